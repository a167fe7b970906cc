//! Folios that could not be moved: owners, VMAs, and whether what was inferred holds.
//! Input: raw events from `decode`; pagemap for owners that come from the reverse mapping.

use std::sync::Arc;

use tracer_common::event::{FAILED_MAPPINGS, FolioFailed, Place, failure_flags};

use crate::{
    correlate::{
        life::Life,
        machine::{Machine, frame},
        processes::Processes,
        spaces::Spaces,
        strings::Strings,
    },
    event::{
        Task,
        failure::{Cause, FailedPlace, Failure, Refs, is_concluded},
    },
    kernel::names::KernelNames,
    proc::pagemap::Frame,
    units::{Nanos, Order, Pfn, Tgid, Tid, VirtAddr},
};

/// A failure on its way to becoming an event. Its names are those of its time; its mappings are looked up later.
pub(super) struct Failing {
    raw: FolioFailed,
    actor: Task,
    places: [Option<(Place, Life, Task)>; FAILED_MAPPINGS],
}

impl Failing {
    /// Names the thread that tried, and the processes that map the folio.
    pub fn new(raw: &FolioFailed, processes: &mut Processes) -> Self {
        Self {
            raw: *raw,
            places: raw.places.map(|place| {
                (place.owner_tgid != 0).then(|| {
                    let (life, owner) = processes.living(Tgid(place.owner_tgid), Nanos(raw.at));
                    (place, life, owner)
                })
            }),
            actor: processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid)),
        }
    }

    /// The event of a folio that could not be moved.
    pub fn event(self, owners: &mut Mappers<'_>, machine: Machine<'_>, shared: &mut Shared) -> Failure {
        let raw = &self.raw;
        let pfn = frame(raw.pfn, 0);
        let places = self.places.into_iter().flatten();
        let places = places.filter_map(|place| owners.place(place, pfn)).collect();
        let tried = raw.attempts != 0 || raw.errno != 0;
        let (cause, inferred) = cause(raw, machine.names);
        let refs = match cause {
            Cause::Pinned if raw.attempts == 0 => refs_of_pinned(raw, machine.names),
            _ => u32::try_from(raw.refs).ok().zip(u32::try_from(raw.expected_refs).ok()),
        };
        Failure {
            at: Nanos(raw.at),
            order: Order(raw.order),
            pfn,
            node: machine.node(pfn),
            reason: machine.names.reason(raw.reason),
            actor: self.actor,
            mode: shared.strings.share(mode(raw.mode)),
            cause,
            inferred,
            errno: tried.then(|| raw.errno.unsigned_abs()),
            attempts: raw.attempts,
            // With fewer than expected, the folio was being freed, or its kind is counted in another way.
            refs: refs
                .filter(|(held, expected)| *expected > 0 && held >= expected)
                .map(|(held, expected)| Refs { held, expected }),
            map_count: map_count(raw),
            flags: shared.flags(raw, machine.names),
            places,
            cpu: raw.cpu,
        }
    }
}

/// Strings that many failures share.
#[derive(Default)]
pub(super) struct Shared {
    strings: Strings,
    text: String,
}

impl Shared {
    /// The names of a folio's flags, with commas between them.
    fn flags(&mut self, raw: &FolioFailed, names: &KernelNames) -> Arc<str> {
        self.text.clear();
        for (bit, name) in names.page_flags.iter() {
            if bit < PAGE_FLAGS && raw.flags >> bit & 1 != 0 {
                if !self.text.is_empty() {
                    self.text.push(',');
                }
                self.text.push_str(name);
            }
        }
        self.strings.share(&self.text)
    }
}

/// The processes that may map a folio, with the sources for look-ups.
pub(super) struct Mappers<'a> {
    pub processes: &'a Processes,
    pub spaces: &'a mut Spaces,
    /// Whether page tables are read.
    pub ask: bool,
    /// Whether no filter selects an owner or an address. Then the kernel side has not checked the owners that the
    /// reverse mapping names.
    pub unowned: bool,
}

impl Mappers<'_> {
    /// None if the page table of the process that the reverse mapping names has another page there.
    fn place(&mut self, (place, life, owner): (Place, Life, Task), pfn: Option<Pfn>) -> Option<FailedPlace> {
        let vaddr = VirtAddr(place.vaddr);
        let inferred = place.inferred != 0;
        let ask = self.ask && !self.processes.ended(life);
        // The kernel side has found the folio in the page table of each wanted owner.
        if inferred && self.unowned && !(ask && self.holds(life.tgid, vaddr, pfn?)) {
            return None;
        }
        Some(FailedPlace {
            owner,
            vaddr,
            vma: ask.then(|| self.spaces.vma(life.tgid, vaddr)).flatten(),
            inferred,
        })
    }

    /// Whether the process maps the frame at that address, or another one of the folio.
    fn holds(&mut self, tgid: Tgid, vaddr: VirtAddr, pfn: Pfn) -> bool {
        // A page that is moving again shows the frame that it leaves.
        matches!(self.spaces.frame(tgid, vaddr), Ok(Frame::Present(at) | Frame::Migrating(at)) if at == pfn)
    }
}

/// The cause of the failure: the one that was observed, or else one that follows from the flags and the call. True if
/// it is inferred.
fn cause(raw: &FolioFailed, names: &KernelNames) -> (Cause, bool) {
    const EAGAIN: i32 = -11;
    let seen = |flag| raw.seen & flag != 0;
    let has = |name| has(raw, names, name);
    let cause = if seen(failure_flags::NUMA_REFUSED) {
        Cause::NumaRefused
    } else if seen(failure_flags::NO_TARGET) {
        Cause::NoTarget
    } else if is_pinned(raw) && (raw.errno == EAGAIN || raw.attempts == 0) {
        Cause::Pinned
    } else if raw.errno == EAGAIN {
        Cause::References
    } else if raw.attempts != 0 {
        Cause::Error
    } else if seen(failure_flags::STILL_MAPPED) {
        Cause::StillMapped
    } else if has("writeback") {
        Cause::Writeback
    } else if has("locked") {
        Cause::Locked
    } else if seen(failure_flags::NO_MEMORY) {
        Cause::NotTried
    } else {
        Cause::Unknown
    };
    // The references are counted a moment after the kernel did, and the extra one may be gone.
    let gone = cause == Cause::References && raw.refs <= raw.expected_refs;
    (cause, gone || is_concluded(cause))
}

fn has(raw: &FolioFailed, names: &KernelNames, flag: &str) -> bool {
    let bit = names.page_flags.number(flag);
    bit.is_some_and(|bit| raw.flags >> (bit & 63) & 1 != 0)
}

/// References to a pinned base page that was not even unmapped, and the number that it would have without the pins: the
/// caller's, those of its mappings and of the swap cache. Only pinned anonymous pages are not unmapped (mm/rmap.c,
/// `folio_try_share_anon_rmap_pte`).
fn refs_of_pinned(raw: &FolioFailed, names: &KernelNames) -> Option<(u32, u32)> {
    let expected = map_count(raw)? + 1 + u32::from(has(raw, names, "swapcache"));
    Some((u32::try_from(raw.refs_left).ok()?, expected))
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

/// The number of mappings of a base page. In other folios the field counts something else, or is the page's type.
fn map_count(raw: &FolioFailed) -> Option<u32> {
    (raw.order == 0 && raw.mappings <= i32::MAX.cast_unsigned()).then_some(raw.mappings)
}

/// Whether a folio may be pinned, by the rule of `folio_maybe_dma_pinned` (include/linux/mm.h, 6.1 to 7.3): a pin of a
/// base page counts as `GUP_PIN_COUNTING_BIAS` references, pins of large folios are counted apart.
fn is_pinned(raw: &FolioFailed) -> bool {
    const PIN: u32 = 1024;
    if raw.order == 0 {
        raw.refs_left.cast_unsigned() >= PIN
    } else {
        raw.pins != 0
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        event::{ProcessChange, ProcessSeen},
        filter::membership,
    };

    use super::*;
    use crate::{
        correlate::tests::{NOBODY, correlator},
        decode::Raw,
        event::{Event, Names, failure::cause_name},
    };

    fn failed(errno: i32, refs: i32) -> FolioFailed {
        let mut raw = FolioFailed {
            at: 10,
            pfn: 5,
            errno,
            attempts: 1,
            refs,
            expected_refs: 1,
            actor_tgid: NOBODY,
            actor_tid: NOBODY,
            ..FolioFailed::default()
        };
        raw.places[0] = Place {
            vaddr: 0x1000,
            owner_tgid: NOBODY,
            inferred: 1,
        };
        raw
    }

    #[test]
    fn a_reference_that_is_gone_when_they_are_counted_is_inferred() {
        let names = KernelNames::default();
        let cause = |errno, refs| {
            let (cause, inferred) = cause(&failed(errno, refs), &names);
            (cause_name(cause), inferred)
        };
        assert_eq!(cause(-11, 2), ("references", false));
        assert_eq!(cause(-11, 1), ("references", true));
        assert_eq!(cause(-11, 0), ("references", true));
        assert_eq!(cause(-5, 1), ("error", false));
        let pinned = |errno, attempts| {
            let mut raw = failed(errno, 1026);
            (raw.refs_left, raw.attempts) = (1026, attempts);
            let (cause, inferred) = super::cause(&raw, &names);
            (cause_name(cause), inferred)
        };
        assert_eq!(pinned(-11, 10), ("pinned", true));
        assert_eq!(pinned(0, 0), ("pinned", true));
        assert_eq!(pinned(-5, 1), ("error", false));
    }

    #[test]
    fn what_nobody_saw_is_told_by_its_flags_in_their_order() {
        let flags = [("locked", 0), ("lru", 5), ("writeback", 15)];
        let names = KernelNames {
            page_flags: Names::new(flags.into_iter(), |name| Some(name.to_owned())),
            ..KernelNames::default()
        };
        let (locked, writeback) = (1 << 0, 1 << 15);
        let (still_mapped, no_memory) = (failure_flags::STILL_MAPPED, failure_flags::NO_MEMORY);
        let cause = |seen, flags| {
            let raw = FolioFailed {
                attempts: 0,
                seen,
                flags,
                ..failed(0, 0)
            };
            let (cause, inferred) = cause(&raw, &names);
            (cause_name(cause), inferred)
        };
        // Each cause with all that come after it, and alone.
        for later in [0, writeback | locked] {
            assert_eq!(cause(still_mapped, later), ("still_mapped", false));
            assert_eq!(cause(still_mapped | no_memory, later), ("still_mapped", false));
        }
        for seen in [0, no_memory] {
            assert_eq!(cause(seen, writeback | locked), ("writeback", true));
            assert_eq!(cause(seen, writeback), ("writeback", true));
            assert_eq!(cause(seen, locked), ("locked", true));
        }
        let others = !(writeback | locked);
        for flags in [0, others] {
            assert_eq!(cause(no_memory, flags), ("not_tried", true));
            assert_eq!(cause(0, flags), ("unknown", true));
        }
        // Observed causes come before all of them.
        let all = still_mapped | no_memory;
        assert_eq!(cause(all | failure_flags::NO_TARGET, !0), ("no_target", false));
        let refused = all | failure_flags::NO_TARGET | failure_flags::NUMA_REFUSED;
        assert_eq!(cause(refused, !0), ("numa_refused", false));
    }

    /// The owners of a failure, in a batch in which they are renamed and then exit.
    fn owners(unowned: bool) -> Vec<Option<String>> {
        let change = |change, at, comm: &[u8; 16]| {
            let seen = ProcessSeen {
                tgid: NOBODY,
                tid: NOBODY,
                at,
                comm: *comm,
                membership: membership::COMM,
                ..ProcessSeen::default()
            };
            Raw::Process(change, seen)
        };
        let batch = [
            change(ProcessChange::Fork, 5, b"first\0\0\0\0\0\0\0\0\0\0\0"),
            change(ProcessChange::Renamed, 15, b"second\0\0\0\0\0\0\0\0\0\0"),
            Raw::Failure(failed(-11, 2)),
            change(ProcessChange::Exit, 20, b"second\0\0\0\0\0\0\0\0\0\0"),
        ];
        let mut correlator = correlator(unowned);
        let mut out = Vec::new();
        correlator.batch(&batch, true, &mut out);
        let [Event::Failure(failure)] = &out[..] else {
            panic!("one failure, not {out:?}")
        };
        let places = failure.places.iter();
        let named = places.inspect(|place| assert!(place.inferred && place.vma.is_none()));
        named
            .map(|place| place.owner.comm.as_deref().map(str::to_owned))
            .collect()
    }

    #[test]
    fn an_owner_bears_the_name_of_its_moment_and_stays_though_gone() {
        assert_eq!(owners(false), [Some("first".to_owned())]);
        // Only the reverse mapping names the owner, and no page table can be read.
        assert_eq!(owners(true), []);
    }
}
