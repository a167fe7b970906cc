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

/// Finds owners, and remembers which page was last seen where. What it needs for a batch it keeps for the next one.
#[derive(Default)]
pub(super) struct Owners {
    arrivals: Arrivals,
    batch: Batch,
    /// Addresses of moves without an owner.
    wanted: Vec<VirtAddr>,
    holders: Holders,
}

/// What the moves of one batch say of each other.
#[derive(Default)]
struct Batch {
    /// Mappings whose owner was found in a pagemap, whether by a huge one, and who that is.
    taken: HashSet<(Mapping, bool, Tgid)>,
    /// Who left a frame later.
    left: Lists<Mapping, Life>,
    /// Addresses at which owners are still searched.
    searched: HashSet<u64>,
    owned: Owned,
}

/// What the owned moves of a batch say of the others at their addresses.
#[derive(Default)]
struct Owned {
    /// From unmapping to arrival, by whose and where.
    flights: Lists<(Tgid, VirtAddr), (u64, u64)>,
    /// How many mappings to that frame pagemaps have shown.
    held: HashMap<Mapping, u64>,
}

impl Owned {
    fn add(&mut self, moving: &Moving, life: Life) {
        let (_, to) = mappings(moving);
        let Range { start, end } = flight(moving);
        self.flights.push((life.tgid, to.0), (start, end));
        *self.held.entry(to).or_default() += u64::from(moving.source == OwnerSource::Pagemap);
    }

    /// Whether another move is this process's: all mappings of a page are unmapped before the first is in place again, and
    /// a process has one at an address.
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
    /// Fills in owners, as many as can be found:
    /// by pagemap, which must hold the new frame at the address; then backwards, from a later move
    /// of the batch that left the frame which this one entered; then from where pages were before.
    pub fn find(&mut self, moves: &mut [Moving], processes: &mut Processes, spaces: &mut Spaces, frames: &mut Frames) {
        self.wanted.clear();
        let searched = moves.iter().filter(|moving| moving.owner.is_none());
        self.wanted.extend(searched.flat_map(|moving| {
            let first = VirtAddr(moving.raw.vaddr);
            iter::once(first).chain(is_huge(moving).then(|| last_page(moving).0))
        }));
        if self.wanted.is_empty() {
            return;
        }
        self.wanted.sort_unstable();
        self.wanted.dedup();
        self.holders.read(&self.wanted, processes, spaces);
        self.by_pagemap(moves);
        self.backwards(moves);
        self.forwards(moves, processes, |pfn| frames.map_count(pfn));
        for moving in moves.iter_mut() {
            let asked = unmapped_at(&moving.raw);
            moving.owner_task = moving.owner.map(|life| processes.living(life.tgid, asked).1);
        }
    }

    /// Each holder of the new frame owns one of the mappings that entered it: a page shared by fork comes
    /// once for each, perhaps in another batch. Of the sharers of a huge page one may map it whole, and another its pages.
    fn by_pagemap(&mut self, moves: &mut [Moving]) {
        let taken = &mut self.batch.taken;
        taken.clear();
        let (arrivals, holders) = (&self.arrivals, &self.holders);
        let mut find = |moving: &mut Moving| {
            let (_, to) = mappings(moving);
            let (last, huge) = (last_page(moving), is_huge(moving));
            let holds = |frame: Frame, pfn| matches!(frame, Frame::Present(at) | Frame::Migrating(at) if at == pfn);
            // A child forked since has the frame too, and never had the old one.
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
            // Who maps the first page of it need not map the others.
            let holds_last = |life: Life| {
                let mut there = holders.at(last.0);
                !huge || there.any(|(holder, frame)| holder == life && holds(frame, last.1))
            };
            let unmapped_at = moving.raw.unmapped_at;
            // Not one that has already arrived, unless there is no other: its leaving may have been lost. What was
            // unmapped before it arrived is another sharer's mapping.
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
            // Later moves first: they are what the page tables show.
            moves.iter_mut().rev().filter(searched).for_each(&mut find);
        }
    }

    /// A later move of the batch whose owner is known left the frame that an earlier one entered.
    fn backwards(&mut self, moves: &mut [Moving]) {
        let left = &mut self.batch.left;
        left.clear();
        for moving in moves.iter_mut().rev() {
            let (from, to) = mappings(moving);
            // Who was forked since had no part in it.
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

    /// A page that was seen to enter a frame leaves it. Keeps the arrivals up to date. `mapped`: how often a frame is
    /// mapped now; 0: not at all, or nobody can say.
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
                // Somebody has the page who was not found: it is that one's.
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

/// Who came to the frame that this move leaves, as far as that is certain enough.
fn leaver(
    moving: &Moving,
    processes: &Processes,
    arrivals: &Arrivals,
    holders: &Holders,
    owned: &Owned,
) -> Option<Life> {
    let (from, to) = mappings(moving);
    let unmapped_at = moving.raw.unmapped_at;
    // A stranger shared the page: that one may leave, and the known one have unmapped it.
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

/// When a move's mapping was gone, nanoseconds.
fn flight(moving: &Moving) -> Range<u64> {
    moving.raw.unmapped_at..moving.raw.at
}

/// Whether one entry maps all of it.
fn is_huge(moving: &Moving) -> bool {
    moving.raw.pages > 1
}

/// Where the last page of a move arrived.
fn last_page(moving: &Moving) -> Mapping {
    let pages = moving.pages().saturating_sub(1);
    (
        VirtAddr(moving.raw.vaddr.wrapping_add(pages * PAGE_SIZE)),
        Pfn(moving.raw.new_pfn.wrapping_add(pages)),
    )
}

/// The first page of the huge mapping that a mapping would be in.
fn block((vaddr, pfn): Mapping) -> Mapping {
    let pages = vaddr.0 / PAGE_SIZE % (1 << PMD_ORDER);
    (VirtAddr(vaddr.0 - pages * PAGE_SIZE), Pfn(pfn.0.wrapping_sub(pages)))
}

/// Before and after.
fn mappings(moving: &Moving) -> (Mapping, Mapping) {
    let vaddr = VirtAddr(moving.raw.vaddr);
    ((vaddr, Pfn(moving.raw.old_pfn)), (vaddr, Pfn(moving.raw.new_pfn)))
}

#[cfg(test)]
mod tests;
