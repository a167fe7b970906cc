//! The owner of a mapping that the kernel side knows only by address and frames (tracepoint backend).
//! Input: pagemaps of the processes that map the address; earlier and later moves of the same page.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    iter, mem,
    ops::Range,
    time::Duration,
};

use tracer_common::arch::PMD_ORDER;

use crate::{
    correlate::{
        Pending,
        processes::{Life, Processes},
        spaces::Spaces,
        unmapped_at, verdict,
    },
    event::{OwnerSource, Verdict},
    proc::{self, kpage::FrameFile, pagemap::Frame},
    units::{PAGE_SIZE, Pfn, Tgid, VirtAddr},
};

/// How long an arrival speaks for who leaves, nanoseconds. Nothing tells that a page was unmapped, copied or freed: the
/// longer it is ago, the likelier is the frame another's page at the same address.
const STAY: u64 = 200_000_000;
/// VMAs as old as this are good enough to look for candidates in.
const MAX_AGE: Duration = Duration::from_millis(500);

/// A page at a moment: where it is mapped, and in which frame.
type Place = (VirtAddr, Pfn);

/// What each page table holds at the wanted addresses.
type Holders = HashMap<VirtAddr, Vec<(Life, Frame)>>;

/// Finds owners, and remembers which page was last seen where.
#[derive(Default)]
pub struct Owners {
    now: Seen,
    /// From the time before; forgotten next.
    before: Seen,
    /// When `now` was begun, `CLOCK_MONOTONIC` nanoseconds.
    since: u64,
}

/// Pages that came to places.
#[derive(Default)]
struct Seen {
    /// Whose: of several, where they share it.
    known: HashMap<Place, Vec<Arrival>>,
    /// When the last one came that is nobody's who is known.
    strangers: HashMap<Place, u64>,
}

/// Whose page came to a place.
#[derive(Clone, Copy)]
struct Arrival {
    life: Life,
    /// `CLOCK_MONOTONIC` nanoseconds.
    at: u64,
    /// By a huge mapping, of which this is the first page.
    huge: bool,
}

/// What the owned runs of a batch say of the others at their addresses.
#[derive(Default)]
struct Known {
    /// From unmapping to arrival, by whose and where.
    flights: HashMap<(Tgid, VirtAddr), Vec<Range<u64>>>,
    /// Mappings that pagemap showed at a place.
    held: HashMap<Place, u64>,
}

impl Known {
    fn add(&mut self, run: &Pending, life: Life) {
        let (_, to) = places(run);
        self.flights.entry((life.tgid, to.0)).or_default().push(flight(run));
        *self.held.entry(to).or_default() += u64::from(run.source == OwnerSource::Pagemap);
    }

    /// Whether another run is this process's: all mappings of a page are unmapped before the first is in place again, and
    /// a process has one at an address.
    fn has_another(&self, run: &Pending, life: Life) -> bool {
        let mine = flight(run);
        let flights = self.flights.get(&(life.tgid, VirtAddr(run.raw.vaddr)));
        flights
            .into_iter()
            .flatten()
            .any(|other| other.start < mine.end && mine.start < other.end)
    }
}

impl Owners {
    /// Fills in owners, as many as can be found:
    /// by pagemap, which must hold the new frame at the address; then backwards, from a later move
    /// of the batch that left the frame which this one entered; then from where pages were before.
    /// `counts`: how often a frame is mapped, where the kernel tells.
    pub fn find(
        &mut self,
        pending: &mut [Pending],
        processes: &mut Processes,
        spaces: &mut Spaces,
        counts: Option<&FrameFile>,
    ) {
        let searched = pending.iter().filter(|run| run.owner.is_none());
        let mut wanted: Vec<VirtAddr> = searched
            .flat_map(|run| iter::once(VirtAddr(run.raw.vaddr)).chain(is_huge(run).then(|| last_page(run).0)))
            .collect();
        if wanted.is_empty() {
            return;
        }
        wanted.sort_unstable();
        wanted.dedup();
        let holders = holders(&wanted, processes, spaces);
        self.by_pagemap(pending, &holders);
        backwards(pending);
        let mut words = Vec::new();
        let mapped = |pfn| {
            let asked = counts.and_then(|counts| counts.lookup(&[pfn], &mut words).ok());
            asked.and_then(|()| words.first().copied()).unwrap_or(0)
        };
        self.forwards(pending, processes, &holders, mapped);
        for run in pending.iter_mut() {
            let asked = unmapped_at(&run.raw);
            run.owner_task = run.owner.map(|life| processes.process_at(life.tgid, asked));
        }
    }

    /// Each holder of the new frame owns one of the mappings that entered it: a page shared by fork comes
    /// once for each, perhaps in another batch. Of the sharers of a huge page one may map it whole, and another its pages.
    fn by_pagemap(&self, pending: &mut [Pending], holders: &Holders) {
        let mut taken: HashSet<(Place, bool, Tgid)> = HashSet::new();
        let mut find = |run: &mut Pending| {
            let (_, to) = places(run);
            let (last, huge) = (last_page(run), is_huge(run));
            let holds = |frame: Frame, pfn| matches!(frame, Frame::Present(at) | Frame::Migrating(at) if at == pfn);
            // A child forked since has the frame too, and never had the old one.
            let lived = |life: Life| life.born.0 <= run.raw.at;
            let free =
                |life: Life| !taken.contains(&(to, huge, life.tgid)) && !taken.contains(&(block(to), true, life.tgid));
            let arrived = |life: Life| {
                let mut whole = self.there(block(to)).filter(|arrival| arrival.huge);
                self.there(to)
                    .find(|arrival| arrival.life == life)
                    .or_else(|| whole.find(|arrival| arrival.life == life))
            };
            // Who maps the first page of it need not map the others.
            let holds_last = |life: Life| {
                let mut there = holders.get(&last.0).into_iter().flatten();
                !huge || there.any(|(holder, frame)| *holder == life && holds(*frame, last.1))
            };
            let unmapped_at = run.raw.unmapped_at;
            // Not one that has already arrived, unless there is no other: its leaving may have been lost. What was
            // unmapped before it arrived is another sharer's mapping.
            let rank = |life: Life| match arrived(life) {
                None => Some((false, !holds_last(life))),
                Some(arrival) => (arrival.at <= unmapped_at).then(|| (true, !holds_last(life))),
            };
            let here = holders.get(&to.0).into_iter().flatten();
            let fitting = here.filter(|(life, frame)| holds(*frame, to.1) && lived(*life) && free(*life));
            let ranked = fitting.filter_map(|&(life, frame)| Some((rank(life)?, life, frame)));
            if let Some((_, life, frame)) = ranked.min_by_key(|(rank, ..)| *rank) {
                taken.insert((to, huge, life.tgid));
                run.owner = Some(life);
                run.source = OwnerSource::Pagemap;
                run.verdict = Some(verdict(frame, Some(to.1)));
            }
        };
        for huge in [true, false] {
            let searched = |run: &&mut Pending| run.owner.is_none() && is_huge(run) == huge;
            // Later moves first: they are what the page tables show.
            pending.iter_mut().rev().filter(searched).for_each(&mut find);
        }
    }

    /// A page that was seen to enter a frame leaves it. Keeps the places up to date. `mapped`: how often a frame is mapped
    /// now; 0: not at all, or nobody can say.
    fn forwards(
        &mut self,
        pending: &mut [Pending],
        processes: &Processes,
        holders: &Holders,
        mut mapped: impl FnMut(Pfn) -> u64,
    ) {
        self.forget(pending);
        let mut known = Known::default();
        let searched = pending.iter().filter(|run| run.owner.is_none());
        let searched: HashSet<u64> = searched.map(|run| run.raw.vaddr).collect();
        for run in pending.iter().filter(|run| searched.contains(&run.raw.vaddr)) {
            if let Some(life) = run.owner {
                known.add(run, life);
            }
        }
        for run in pending {
            let (from, to) = places(run);
            if run.owner.is_none()
                && let Some(life) = self.leaver(run, processes, holders, &known)
                // Somebody has the page who was not found: it is that one's.
                && mapped(to.1) <= known.held.get(&to).copied().unwrap_or(0)
            {
                run.owner = Some(life);
                run.source = OwnerSource::Chain;
                known.add(run, life);
            }
            if let Some(life) = run.owner {
                self.retain(from, |arrival| arrival.life != life);
            }
            self.arrive(to, run);
        }
    }

    /// Who came to the place that this run leaves, as far as that is certain enough.
    fn leaver(&self, run: &Pending, processes: &Processes, holders: &Holders, known: &Known) -> Option<Life> {
        let (from, to) = places(run);
        let unmapped_at = run.raw.unmapped_at;
        // A stranger shared the page: that one may leave, and the known one have unmapped it.
        if [&self.now, &self.before]
            .iter()
            .any(|seen| seen.strangers.contains_key(&from))
        {
            return None;
        }
        let stays = |life| {
            let mut here = holders.get(&from.0).into_iter().flatten();
            here.any(|&(holder, frame)| {
                holder == life && matches!(frame, Frame::Present(pfn) | Frame::Migrating(pfn) if pfn == from.1)
            })
        };
        let came = |life| {
            let mut there = self.there(to);
            there.any(|arrival| arrival.life == life && arrival.at > unmapped_at)
        };
        let recent = |at| at <= unmapped_at && unmapped_at - at <= STAY;
        let leaves = |life| !processes.ended(life) && !known.has_another(run, life) && !came(life) && !stays(life);
        let mut there = self.there(from);
        there
            .find(|arrival| recent(arrival.at) && leaves(arrival.life))
            .map(|arrival| arrival.life)
    }

    /// Notes who came to a place.
    fn arrive(&mut self, to: Place, run: &Pending) {
        // The frame was free before: who had been there had left.
        self.retain(to, |arrival| {
            arrival.at > run.raw.unmapped_at && run.owner != Some(arrival.life)
        });
        for seen in [&mut self.before, &mut self.now] {
            if seen.strangers.get(&to).is_some_and(|&at| at <= run.raw.unmapped_at) {
                seen.strangers.remove(&to);
            }
        }
        let at = run.raw.at;
        match run.owner {
            Some(life) => {
                let huge = is_huge(run);
                let there = self.now.known.entry(to).or_default();
                there.push(Arrival { life, at, huge });
            }
            None => {
                self.now.strangers.insert(to, at);
            }
        }
    }

    /// Who came to a place, the first one first.
    fn there(&self, place: Place) -> impl Iterator<Item = &Arrival> {
        let both = [&self.before, &self.now].into_iter();
        both.filter_map(move |seen| seen.known.get(&place)).flatten()
    }

    fn retain(&mut self, place: Place, keep: impl Fn(&Arrival) -> bool) {
        for seen in [&mut self.before, &mut self.now] {
            if let Some(there) = seen.known.get_mut(&place) {
                there.retain(&keep);
                if there.is_empty() {
                    seen.known.remove(&place);
                }
            }
        }
    }

    /// Forgets what is too long ago by the time of these runs.
    fn forget(&mut self, pending: &[Pending]) {
        let Some(last) = pending.last().map(|run| run.raw.at) else {
            return;
        };
        if last.saturating_sub(self.since) > STAY {
            self.before = mem::take(&mut self.now);
            self.since = last;
        }
    }
}

/// When a run's mapping was gone, nanoseconds.
fn flight(run: &Pending) -> Range<u64> {
    run.raw.unmapped_at..run.raw.at
}

/// Whether one entry maps all of it.
fn is_huge(run: &Pending) -> bool {
    run.raw.pages > 1
}

/// Where the last page of a run arrived.
fn last_page(run: &Pending) -> Place {
    let pages = u64::from(run.raw.pages).saturating_sub(1);
    (
        VirtAddr(run.raw.vaddr.wrapping_add(pages * PAGE_SIZE)),
        Pfn(run.raw.new_pfn.wrapping_add(pages)),
    )
}

/// The first page of the huge mapping that the place would be in.
fn block((vaddr, pfn): Place) -> Place {
    let pages = vaddr.0 / PAGE_SIZE % (1 << PMD_ORDER);
    (VirtAddr(vaddr.0 - pages * PAGE_SIZE), Pfn(pfn.0.wrapping_sub(pages)))
}

fn places(run: &Pending) -> (Place, Place) {
    let vaddr = VirtAddr(run.raw.vaddr);
    ((vaddr, Pfn(run.raw.old_pfn)), (vaddr, Pfn(run.raw.new_pfn)))
}

/// What the page tables of all candidates hold at the wanted addresses.
fn holders(wanted: &[VirtAddr], processes: &Processes, spaces: &mut Spaces) -> Holders {
    let candidates: Vec<Tgid> = match processes.wanted() {
        Some(wanted) => wanted.collect(),
        None => proc::process::list().unwrap_or_default(),
    };
    let mut found = Holders::new();
    let mut covered = Vec::new();
    let mut words = Vec::new();
    for tgid in candidates {
        covered.clear();
        let Some(vmas) = spaces.vmas(tgid, MAX_AGE) else {
            continue;
        };
        for vma in vmas.iter() {
            let from = wanted.partition_point(|&address| address < vma.start);
            let to = wanted.partition_point(|&address| address < vma.end);
            covered.extend_from_slice(&wanted[from..to]);
        }
        if covered.is_empty() || spaces.lookup(tgid, &covered, &mut words).is_err() {
            continue;
        }
        let life = processes.life(tgid);
        for (&address, &word) in covered.iter().zip(&words) {
            found.entry(address).or_default().push((life, Frame::decode(word)));
        }
    }
    found
}

/// A later move of the batch whose owner is known left the frame that an earlier one entered.
fn backwards(pending: &mut [Pending]) {
    let mut left: HashMap<Place, VecDeque<Life>> = HashMap::new();
    for run in pending.iter_mut().rev() {
        let (from, to) = places(run);
        // Who was forked since had no part in it.
        let lived = |life: &Life| life.born.0 <= run.raw.at;
        let mut linked = left.get_mut(&to).and_then(VecDeque::pop_front).filter(lived);
        if run.owner.is_none() && linked.is_some() {
            run.owner = linked.take();
            run.source = OwnerSource::Chain;
            run.verdict = Some(Verdict::MovedAgain);
        }
        if let Some(owner) = run.owner {
            left.entry(from).or_default().push_back(owner);
        }
    }
}

#[cfg(test)]
mod tests;
