//! Folios that could not be moved: owners, VMAs, and whether what was inferred holds.
//! Input: raw events from `decode`; pagemap for owners that come from the reverse mapping.

use std::borrow::Cow;

use tracer_common::event::{FolioFailed, Place, failure_flags};

use crate::{
    correlate::Correlator,
    event::{
        Event,
        failure::{Cause, FailedPlace, Failure, Refs},
    },
    proc::pagemap::Frame,
    units::{Nanos, Order, Pfn, Tgid, Tid, VirtAddr},
};

impl Correlator {
    /// The event of a folio that could not be moved. With `ask` false no page table is read.
    pub(super) fn failure(&mut self, raw: &FolioFailed, ask: bool) -> Event {
        let pfn = (raw.pfn != 0).then_some(Pfn(raw.pfn));
        let places = raw.places.iter().filter(|place| place.owner_tgid != 0);
        let places = places.filter_map(|place| self.failed_place(place, pfn, ask)).collect();
        let tried = raw.attempts != 0 || raw.errno != 0;
        let refs = u32::try_from(raw.refs).ok().zip(u32::try_from(raw.expected_refs).ok());
        Event::Failure(Failure {
            at: Nanos(raw.at),
            order: Order(raw.order),
            pfn,
            node: pfn.and_then(|pfn| self.topology.node_of(pfn)),
            reason: self.names.reason(raw.reason),
            actor: self.processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid)),
            mode: Cow::Borrowed(mode(raw.mode)),
            cause: self.cause(raw),
            errno: tried.then(|| raw.errno.unsigned_abs()),
            attempts: raw.attempts,
            // Fewer than expected: it was being freed, or is of a kind that is counted otherwise.
            refs: refs
                .filter(|(held, expected)| *expected > 0 && held >= expected)
                .map(|(held, expected)| Refs { held, expected }),
            // Elsewhere it counts something else, or is the page's type.
            map_count: (raw.order == 0 && raw.mappings <= i32::MAX.cast_unsigned()).then_some(raw.mappings),
            flags: self
                .names
                .page_flags
                .iter()
                .filter(|(bit, _)| raw.flags >> (bit & 63) & 1 != 0 && *bit < PAGE_FLAGS)
                .map(|(_, name)| name.clone())
                .collect(),
            places,
            cpu: raw.cpu,
        })
    }

    /// Why it was not moved: what was seen, else what its flags and its call tell.
    fn cause(&self, raw: &FolioFailed) -> Cause {
        const EAGAIN: i32 = -11;
        let seen = |flag| raw.seen & flag != 0;
        let has = |name| {
            let bit = self.names.page_flags.number(name);
            bit.is_some_and(|bit| raw.flags >> (bit & 63) & 1 != 0)
        };
        if seen(failure_flags::NUMA_REFUSED) {
            Cause::NumaRefused
        } else if seen(failure_flags::NO_TARGET) {
            Cause::NoTarget
        } else if raw.errno == EAGAIN && raw.refs > raw.expected_refs {
            Cause::References
        } else if raw.attempts != 0 {
            Cause::Error
        } else if seen(failure_flags::PUT_BACK) {
            Cause::StillMapped
        } else if has("writeback") {
            Cause::Writeback
        } else if has("locked") {
            Cause::Locked
        } else if seen(failure_flags::NO_MEMORY) {
            Cause::NotTried
        } else {
            Cause::Unknown
        }
    }

    /// None: the reverse mapping named a process whose page table says otherwise.
    fn failed_place(&mut self, place: &Place, pfn: Option<Pfn>, ask: bool) -> Option<FailedPlace> {
        let (tgid, vaddr) = (Tgid(place.owner_tgid), VirtAddr(place.vaddr));
        let inferred = place.inferred != 0;
        if inferred && !(ask && self.holds(tgid, vaddr, pfn?)) {
            return None;
        }
        Some(FailedPlace {
            owner: self.processes.process(tgid),
            vaddr,
            vma: ask.then(|| self.spaces.vma(tgid, vaddr)).flatten(),
            inferred,
        })
    }

    /// Whether the process has that frame at that address, or one of the same folio.
    fn holds(&mut self, tgid: Tgid, vaddr: VirtAddr, pfn: Pfn) -> bool {
        let mut words = Vec::new();
        let looked = self.spaces.lookup(tgid, &[vaddr], &mut words);
        looked.is_ok()
            && words
                .first()
                // On its way once more, it shows the frame that it leaves.
                .is_some_and(
                    |&word| matches!(Frame::decode(word), Frame::Present(at) | Frame::Migrating(at) if at == pfn),
                )
    }
}

/// Bits of `folio.flags` that can be flags; above them are zone, node and section (include/linux/page-flags-layout.h).
const PAGE_FLAGS: u8 = 32;

/// `enum migrate_mode`, include/linux/migrate_mode.h, 6.1 to 7.3.
fn mode(number: u8) -> &'static str {
    match number {
        0 => "async",
        1 => "sync_light",
        2 => "sync",
        _ => "other",
    }
}
