//! The owner of a mapping that the kernel side knows only by address and frames (tracepoint backend).
//! Input: pagemaps of the processes that map the address; earlier and later moves of the same page.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use crate::{
    correlate::{
        Pending,
        processes::{Life, Processes},
        spaces::Spaces,
        verdict,
    },
    event::{OwnerSource, Verdict},
    proc::{self, pagemap::Frame},
    units::{Nanos, Pfn, Tgid, VirtAddr},
};

/// Places kept from earlier batches; beyond it all are forgotten.
const MAX_PLACES: usize = 1 << 20;
/// VMAs as old as this are good enough to look for candidates in.
const MAX_AGE: Duration = Duration::from_millis(500);

/// A page at a moment: where it is mapped, and in which frame.
type Place = (VirtAddr, Pfn);

/// Finds owners, and remembers which page was last seen where.
#[derive(Default)]
pub struct Owners {
    /// Who has a page at that place: several, where they share it.
    at: HashMap<Place, Vec<Arrival>>,
}

/// Whose page came to a place.
#[derive(Clone, Copy)]
struct Arrival {
    life: Life,
    /// `CLOCK_MONOTONIC` nanoseconds.
    at: u64,
}

impl Owners {
    /// Fills in owners, as many as can be found:
    /// by pagemap, which must hold the new frame at the address; then backwards, from a later move
    /// of the batch that left the frame which this one entered; then from where pages were before.
    pub fn find(&mut self, pending: &mut [Pending], processes: &mut Processes, spaces: &mut Spaces) {
        let mut wanted: Vec<VirtAddr> = pending
            .iter()
            .filter(|run| run.owner.is_none())
            .map(|run| VirtAddr(run.raw.vaddr))
            .collect();
        if wanted.is_empty() {
            return;
        }
        wanted.sort_unstable();
        wanted.dedup();
        let holders = holders(&wanted, processes, spaces);
        self.by_pagemap(pending, &holders);
        backwards(pending);
        if self.at.len() > MAX_PLACES {
            self.at.clear();
        }
        self.forwards(pending, processes);
        for run in pending.iter_mut() {
            run.owner_task = run.owner.map(|life| processes.process_at(life.tgid, Nanos(run.raw.at)));
        }
    }

    /// Each holder of the new frame owns one of the mappings that entered it: a page shared by fork comes
    /// once for each, perhaps in another batch.
    fn by_pagemap(&self, pending: &mut [Pending], holders: &HashMap<VirtAddr, Vec<(Life, Frame)>>) {
        let mut taken: HashSet<(Place, Tgid)> = HashSet::new();
        // Later moves first: they are what the page tables show.
        for run in pending.iter_mut().rev().filter(|run| run.owner.is_none()) {
            let (_, to) = places(run);
            let holds = |frame: Frame| matches!(frame, Frame::Present(pfn) | Frame::Migrating(pfn) if pfn == to.1);
            // A child forked since has the frame too, and never had the old one.
            let lived = |life: Life| life.born.0 <= run.raw.at;
            let there = self.at.get(&to).map_or(&[][..], Vec::as_slice);
            let fitting = holders
                .get(&to.0)
                .into_iter()
                .flatten()
                .filter(|(life, frame)| holds(*frame) && lived(*life) && !taken.contains(&(to, life.tgid)));
            // Not one that has already arrived, unless there is no other: its leaving may have been lost. What was
            // unmapped before it arrived is another sharer's mapping.
            let arrived = |life: Life| there.iter().find(|arrival| arrival.life == life);
            let newcomer = fitting.clone().find(|(life, _)| arrived(*life).is_none());
            let unmapped_at = run.raw.unmapped_at;
            let mut again = fitting.filter(|(life, _)| arrived(*life).is_some_and(|arrival| arrival.at <= unmapped_at));
            if let Some(&(life, frame)) = newcomer.or_else(|| again.next()) {
                taken.insert((to, life.tgid));
                run.owner = Some(life);
                run.source = OwnerSource::Pagemap;
                run.verdict = Some(verdict(frame, Some(to.1)));
            }
        }
    }

    /// A page that was seen to enter a frame leaves it. Keeps the places up to date.
    fn forwards(&mut self, pending: &mut [Pending], processes: &Processes) {
        for run in pending {
            let (from, to) = places(run);
            if run.owner.is_none()
                && let Some(first) = self.at.get(&from).and_then(|arrivals| arrivals.first())
                && !processes.ended(first.life)
            {
                run.owner = Some(first.life);
                run.source = OwnerSource::Chain;
            }
            let Some(life) = run.owner else { continue };
            if let Some(arrivals) = self.at.get_mut(&from) {
                arrivals.retain(|arrival| arrival.life != life);
                if arrivals.is_empty() {
                    self.at.remove(&from);
                }
            }
            let arrivals = self.at.entry(to).or_default();
            arrivals.retain(|arrival| arrival.life != life);
            arrivals.push(Arrival { life, at: run.raw.at });
        }
    }
}

fn places(run: &Pending) -> (Place, Place) {
    let vaddr = VirtAddr(run.raw.vaddr);
    ((vaddr, Pfn(run.raw.old_pfn)), (vaddr, Pfn(run.raw.new_pfn)))
}

/// What the page tables of all candidates hold at the wanted addresses.
fn holders(wanted: &[VirtAddr], processes: &Processes, spaces: &mut Spaces) -> HashMap<VirtAddr, Vec<(Life, Frame)>> {
    let candidates: Vec<Tgid> = match processes.wanted() {
        Some(wanted) => wanted.collect(),
        None => proc::process::list().unwrap_or_default(),
    };
    let mut found: HashMap<VirtAddr, Vec<(Life, Frame)>> = HashMap::new();
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
        let mut linked = left.get_mut(&to).and_then(VecDeque::pop_front);
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
mod tests {
    use std::collections::BTreeMap;

    use tracer_common::event::MappingMoved;

    use super::*;
    use crate::{event::Task, units::Tid};

    fn run(vaddr: u64, old_pfn: u64, new_pfn: u64) -> Pending {
        Pending {
            raw: MappingMoved {
                vaddr,
                old_pfn,
                new_pfn,
                pages: 1,
                ..MappingMoved::default()
            },
            owner: None,
            source: OwnerSource::Unknown,
            owner_task: None,
            actor: Task {
                tgid: Tgid(1),
                tid: Tid(1),
                comm: None,
            },
            verdict: None,
        }
    }

    fn life(tgid: u32) -> Life {
        Life {
            tgid: Tgid(tgid),
            generation: 0,
            born: Nanos(0),
        }
    }

    fn owners(pending: &[Pending]) -> Vec<Option<u32>> {
        pending.iter().map(|run| run.owner.map(|life| life.tgid.0)).collect()
    }

    #[test]
    fn sharers_of_a_page_get_one_mapping_each() {
        let mut pending = [run(0x1000, 1, 2), run(0x1000, 1, 2), run(0x1000, 1, 2)];
        let here = vec![(life(7), Frame::Present(Pfn(2))), (life(8), Frame::Present(Pfn(2)))];
        Owners::default().by_pagemap(&mut pending, &HashMap::from([(VirtAddr(0x1000), here)]));
        assert_eq!(owners(&pending), [None, Some(8), Some(7)]);
    }

    #[test]
    fn a_child_forked_after_the_move_had_no_part_in_it() {
        let mut pending = [run(0x1000, 1, 2), run(0x1000, 1, 2)];
        pending[1].raw.at = 10;
        let child = Life {
            born: Nanos(9),
            ..life(8)
        };
        let here = vec![(child, Frame::Present(Pfn(2)))];
        Owners::default().by_pagemap(&mut pending, &HashMap::from([(VirtAddr(0x1000), here)]));
        assert_eq!(owners(&pending), [None, Some(8)]);
    }

    #[test]
    fn a_page_that_moved_twice_is_followed_back() {
        let mut pending = [run(0x1000, 1, 2), run(0x1000, 2, 3), run(0x2000, 1, 3)];
        let here = vec![(life(7), Frame::Present(Pfn(3)))];
        Owners::default().by_pagemap(&mut pending, &HashMap::from([(VirtAddr(0x1000), here)]));
        backwards(&mut pending);
        assert_eq!(owners(&pending), [Some(7), Some(7), None]);
        assert_eq!(pending[0].source, OwnerSource::Chain);
        assert_eq!(pending[0].verdict, Some(Verdict::MovedAgain));
    }

    #[test]
    fn a_page_seen_before_is_known_when_it_moves_on() {
        let mut owners_state = Owners::default();
        owners_state
            .at
            .insert((VirtAddr(0x1000), Pfn(2)), vec![Arrival { life: life(9), at: 0 }]);
        let mut pending = [run(0x1000, 2, 3), run(0x1000, 3, 4), run(0x2000, 2, 3)];
        owners_state.forwards(&mut pending, &Processes::new(0, BTreeMap::new()));
        assert_eq!(owners(&pending), [Some(9), Some(9), None]);
    }

    #[test]
    fn sharers_in_two_batches_are_two() {
        let mut state = Owners::default();
        let holders = HashMap::from([(
            VirtAddr(0x1000),
            vec![(life(7), Frame::Present(Pfn(2))), (life(8), Frame::Present(Pfn(2)))],
        )]);
        // Of a third sharer nobody knows; what was unmapped when both had arrived moved again.
        for (unmapped_at, at, expected) in [(1, 2, Some(7)), (1, 3, Some(8)), (1, 4, None), (5, 6, Some(7))] {
            let mut pending = [run(0x1000, 1, 2)];
            (pending[0].raw.unmapped_at, pending[0].raw.at) = (unmapped_at, at);
            state.by_pagemap(&mut pending, &holders);
            state.forwards(&mut pending, &Processes::new(0, BTreeMap::new()));
            assert_eq!(owners(&pending), [expected]);
        }
    }
}
