//! The owner of a mapping that the kernel side knows only by address and frames (tracepoint backend).
//! Input: pagemaps of the processes that map the address; earlier and later moves of the same page.

mod arrivals;
mod holders;

use std::{
    collections::{HashMap, HashSet},
    iter,
    ops::Range,
};

use tracer_common::arch::PMD_ORDER;

use crate::{
    correlate::{
        frames::Frames,
        life::Life,
        lists::Lists,
        moved::{Moving, unmapped_at, verdict},
        processes::Processes,
        spaces::Spaces,
    },
    event::{OwnerSource, Verdict},
    proc::pagemap::Frame,
    units::{PAGE_SIZE, Pfn, Tgid, VirtAddr},
};

use arrivals::{Arrival, Arrivals, Mapping, STAY};
use holders::Holders;

/// Finds owners, and remembers where each page was last seen. Its buffers are kept from batch to batch.
#[derive(Default)]
pub(super) struct Owners {
    arrivals: Arrivals,
    batch: Batch,
    /// Addresses of moves without an owner.
    wanted: Vec<VirtAddr>,
    holders: Holders,
}

/// Facts that the moves of one batch give about each other.
#[derive(Default)]
struct Batch {
    /// Mappings whose owner is known: whether the mapping is huge, and the owner.
    taken: HashSet<(Mapping, bool, Tgid)>,
    /// The processes whose pages left a frame later.
    left: Lists<Mapping, Life>,
    /// Addresses of moves that still lack an owner.
    searched: HashSet<u64>,
    owned: Owned,
}

/// Facts that the owned moves of a batch give about the others at the same addresses.
#[derive(Default)]
struct Owned {
    /// The times from unmapping to arrival, by owner and address.
    flights: Lists<(Tgid, VirtAddr), (u64, u64)>,
    /// The number of mappings to a frame that pagemaps have shown.
    held: HashMap<Mapping, u64>,
}

impl Owned {
    fn add(&mut self, moving: &Moving, life: Life) {
        let (_, to) = mappings(moving);
        let Range { start, end } = flight(moving);
        self.flights.push((life.tgid, to.0), (start, end));
        *self.held.entry(to).or_default() += u64::from(moving.source == OwnerSource::Pagemap);
    }

    /// Whether another move at the same time is this process's. All mappings of a page are unmapped before the first is
    /// restored, and a process has one at an address.
    fn has_another(&self, moving: &Moving, life: Life) -> bool {
        let mine = flight(moving);
        let mut flights = self.flights.get(&(life.tgid, VirtAddr(moving.raw.vaddr)));
        flights.any(|&(start, end)| start < mine.end && mine.start < end)
    }

    fn clear(&mut self) {
        self.flights.clear();
        self.held.clear();
    }
}

impl Owners {
    /// Fills in the owners that can be found: first by pagemaps, which must have the new frame at the address; then
    /// backwards, from a later move of the batch that left the frame which this one entered; then forwards, from where
    /// pages were before. Returns whether every process that may own one of them was searched.
    pub fn find(
        &mut self,
        moves: &mut [Moving],
        processes: &mut Processes,
        spaces: &mut Spaces,
        frames: &mut Frames,
    ) -> bool {
        self.wanted.clear();
        let searched = moves.iter().filter(|moving| moving.owner.is_none());
        self.wanted.extend(searched.flat_map(|moving| {
            let first = VirtAddr(moving.raw.vaddr);
            iter::once(first).chain(is_huge(moving).then(|| last_page(moving).0))
        }));
        if self.wanted.is_empty() {
            // A later batch may have another mapping of the last page.
            self.forwards(moves, processes, |_| 0);
            return true;
        }
        self.wanted.sort_unstable();
        self.wanted.dedup();
        let all = self.holders.read(&self.wanted, processes, spaces);
        self.by_pagemap(moves);
        self.backwards(moves);
        self.forwards(moves, processes, |pfn| frames.map_count(pfn));
        for moving in moves.iter_mut() {
            let asked = unmapped_at(&moving.raw);
            moving.owner_task = moving.owner.map(|life| processes.living(life.tgid, asked).1);
        }
        all
    }

    /// Takes note that moves are not looked at: the pages may not be where they were seen last.
    pub fn skip(&mut self) {
        self.arrivals.clear();
    }

    /// Each holder of the new frame owns one of the mappings that entered it: a page that is shared by fork comes once
    /// for each process, perhaps in another batch. One process may map a huge page whole, and another its single pages.
    fn by_pagemap(&mut self, moves: &mut [Moving]) {
        let taken = &mut self.batch.taken;
        taken.clear();
        let wanted = &self.wanted;
        taken.extend(moves.iter().filter_map(|moving| {
            let (_, to) = mappings(moving);
            let life = moving.owner.filter(|_| wanted.binary_search(&to.0).is_ok())?;
            Some((to, is_huge(moving), life.tgid))
        }));
        let (arrivals, holders) = (&self.arrivals, &self.holders);
        let mut find = |moving: &mut Moving| {
            let (_, to) = mappings(moving);
            let (last, huge) = (last_page(moving), is_huge(moving));
            let holds = |frame: Frame, pfn| matches!(frame, Frame::Present(at) | Frame::Migrating(at) if at == pfn);
            // A child that was forked since has the frame, too, and never had the old one.
            let lived = |life: Life| life.born.0 <= moving.raw.at;
            let free =
                |life: Life| !taken.contains(&(to, huge, life.tgid)) && !taken.contains(&(block(to), true, life.tgid));
            let arrived = |life: Life| {
                let mut whole = arrivals.at(block(to)).filter(|arrival| arrival.huge);
                arrivals
                    .at(to)
                    .find(|arrival| arrival.life == life)
                    .or_else(|| whole.find(|arrival| arrival.life == life))
            };
            // A process that maps its first page need not map the others.
            let holds_last = |life: Life| {
                let mut there = holders.at(last.0);
                !huge || there.any(|(holder, frame)| holder == life && holds(frame, last.1))
            };
            let unmapped_at = moving.raw.unmapped_at;
            // A process whose mapping has already arrived is taken only if there is no other: its leaving may have been
            // lost. A mapping that was unmapped before that arrival is another sharer's.
            let rank = |life: Life| match arrived(life) {
                None => Some((false, !holds_last(life))),
                Some(arrival) => (arrival.at <= unmapped_at).then(|| (true, !holds_last(life))),
            };
            let here = holders.at(to.0);
            let fitting = here.filter(|(life, frame)| holds(*frame, to.1) && lived(*life) && free(*life));
            let ranked = fitting.filter_map(|(life, frame)| Some((rank(life)?, life, frame)));
            if let Some((_, life, frame)) = ranked.min_by_key(|(rank, ..)| *rank) {
                taken.insert((to, huge, life.tgid));
                moving.owner = Some(life);
                moving.source = OwnerSource::Pagemap;
                moving.verdict = Some(verdict(frame, Some(to.1)));
            }
        };
        for huge in [true, false] {
            let searched = |moving: &&mut Moving| moving.owner.is_none() && is_huge(moving) == huge;
            // Later moves come first: the page tables show these.
            moves.iter_mut().rev().filter(searched).for_each(&mut find);
        }
    }

    /// A later move of the batch whose owner is known left the frame that an earlier one entered.
    fn backwards(&mut self, moves: &mut [Moving]) {
        let left = &mut self.batch.left;
        left.clear();
        for moving in moves.iter_mut().rev() {
            let (from, to) = mappings(moving);
            // A process that was forked since had no part in the move.
            let lived = |life: &Life| life.born.0 <= moving.raw.at;
            let mut linked = left.pop_front(&to).filter(lived);
            if moving.owner.is_none() && linked.is_some() {
                moving.owner = linked.take();
                moving.source = OwnerSource::Chain;
                moving.verdict = Some(Verdict::MovedAgain);
            }
            if let Some(owner) = moving.owner {
                left.push(from, owner);
            }
        }
    }

    /// Finds pages that leave a frame which they were seen to enter, and keeps the arrivals up to date. `mapped` is the
    /// number of mappings of a frame; 0 if there are none, or if it cannot be read.
    fn forwards(&mut self, moves: &mut [Moving], processes: &Processes, mut mapped: impl FnMut(Pfn) -> u64) {
        if let Some(last) = moves.last() {
            self.arrivals.forget(last.raw.at);
        }
        let Batch { searched, owned, .. } = &mut self.batch;
        owned.clear();
        searched.clear();
        let unowned = moves.iter().filter(|moving| moving.owner.is_none());
        searched.extend(unowned.map(|moving| moving.raw.vaddr));
        for moving in moves.iter().filter(|moving| searched.contains(&moving.raw.vaddr)) {
            if let Some(life) = moving.owner {
                owned.add(moving, life);
            }
        }
        for moving in moves {
            let (from, to) = mappings(moving);
            if moving.owner.is_none()
                && let Some(life) = leaver(moving, processes, &self.arrivals, &self.holders, owned)
                // If more mappings exist than were found, the page may belong to a process that was not found.
                && mapped(to.1) <= owned.held.get(&to).copied().unwrap_or(0)
            {
                moving.owner = Some(life);
                moving.source = OwnerSource::Chain;
                owned.add(moving, life);
            }
            if let Some(life) = moving.owner {
                self.arrivals.leave(from, life);
            }
            let at = moving.raw.at;
            let arrival = moving.owner.map(|life| Arrival {
                life,
                at,
                huge: is_huge(moving),
            });
            self.arrivals.arrive(to, (moving.raw.unmapped_at, at), arrival);
        }
    }
}

/// The process whose page came to the frame that this move leaves, if that is certain enough.
fn leaver(
    moving: &Moving,
    processes: &Processes,
    arrivals: &Arrivals,
    holders: &Holders,
    owned: &Owned,
) -> Option<Life> {
    let (from, to) = mappings(moving);
    let unmapped_at = moving.raw.unmapped_at;
    // A process that is not known shared the page: its mapping may leave, and the known process may have unmapped its
    // own.
    if arrivals.has_stranger(from) {
        return None;
    }
    let stays = |life| {
        let mut here = holders.at(from.0);
        here.any(|(holder, frame)| {
            holder == life && matches!(frame, Frame::Present(pfn) | Frame::Migrating(pfn) if pfn == from.1)
        })
    };
    let came = |life| {
        let mut there = arrivals.at(to);
        there.any(|arrival| arrival.life == life && arrival.at > unmapped_at)
    };
    let recent = |at| at <= unmapped_at && unmapped_at - at <= STAY;
    let leaves = |life| !processes.ended(life) && !owned.has_another(moving, life) && !came(life) && !stays(life);
    let mut there = arrivals.at(from);
    there
        .find(|arrival| recent(arrival.at) && leaves(arrival.life))
        .map(|arrival| arrival.life)
}

/// The time in which a move's mapping was gone, nanoseconds.
fn flight(moving: &Moving) -> Range<u64> {
    moving.raw.unmapped_at..moving.raw.at
}

/// Whether one entry maps all of it.
fn is_huge(moving: &Moving) -> bool {
    moving.raw.pages > 1
}

/// The arrival of the last page of a move.
fn last_page(moving: &Moving) -> Mapping {
    let pages = moving.pages().saturating_sub(1);
    (
        VirtAddr(moving.raw.vaddr.wrapping_add(pages * PAGE_SIZE)),
        Pfn(moving.raw.new_pfn.wrapping_add(pages)),
    )
}

/// The first page of the huge mapping that would contain a mapping.
fn block((vaddr, pfn): Mapping) -> Mapping {
    let pages = vaddr.0 / PAGE_SIZE % (1 << PMD_ORDER);
    (VirtAddr(vaddr.0 - pages * PAGE_SIZE), Pfn(pfn.0.wrapping_sub(pages)))
}

/// The mappings before and after a move.
fn mappings(moving: &Moving) -> (Mapping, Mapping) {
    let vaddr = VirtAddr(moving.raw.vaddr);
    ((vaddr, Pfn(moving.raw.old_pfn)), (vaddr, Pfn(moving.raw.new_pfn)))
}

#[cfg(test)]
mod tests;
