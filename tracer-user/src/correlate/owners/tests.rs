//! Whose mappings are found, and whose are not.
//! Input: made-up runs and page tables.

use std::collections::BTreeMap;

use tracer_common::event::MappingMoved;

use super::*;
use crate::{
    event::Task,
    units::{Nanos, Tid},
};

/// Where a huge page may begin.
const HUGE: u64 = 2 << 20;

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
fn of_a_huge_page_one_has_it_whole_and_another_its_pages() {
    let huge = || {
        let mut huge = run(HUGE, 0x200, 0x400);
        huge.raw.pages = 512;
        huge
    };
    let small = |page: u64| run(HUGE + page * PAGE_SIZE, 0x200 + page, 0x400 + page);
    // 8 does not map the last page.
    let all = [life(8), life(7)];
    let holders = |page: u64| {
        let here = all.iter().filter(|life| page < 511 || life.tgid.0 == 7);
        let here = here.map(|life| (*life, Frame::Present(Pfn(0x400 + page))));
        (VirtAddr(HUGE + page * PAGE_SIZE), here.collect())
    };
    let holders: Holders = [0, 1, 2, 511].map(holders).into();
    let expected = [Some(8), Some(8), Some(7), Some(8)];
    let mut pending = [small(0), small(1), huge(), small(2)];
    Owners::default().by_pagemap(&mut pending, &holders);
    assert_eq!(owners(&pending), expected);
    // The same in two batches.
    let mut state = Owners::default();
    let mut pending = [huge()];
    pending[0].raw.at = 1;
    state.by_pagemap(&mut pending, &holders);
    forwards(&mut state, &mut pending);
    assert_eq!(owners(&pending), [Some(7)]);
    let mut pending = [small(0), small(1)];
    state.by_pagemap(&mut pending, &holders);
    assert_eq!(owners(&pending), [Some(8), Some(8)]);
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

/// [`Owners::forwards`] where nobody is found in a pagemap, and no frame is mapped.
fn forwards(state: &mut Owners, pending: &mut [Pending]) {
    state.forwards(pending, &Processes::new(0, BTreeMap::new()), &Holders::new(), |_| 0);
}

/// A run at one address, from unmapping to arrival.
fn flown((old_pfn, new_pfn): (u64, u64), (unmapped_at, at): (u64, u64)) -> Pending {
    let mut run = run(0x1000, old_pfn, new_pfn);
    (run.raw.unmapped_at, run.raw.at) = (unmapped_at, at);
    run
}

/// What is known after that process's page came to frame 2 at that time.
fn arrived(tgid: u32, at: u64) -> Owners {
    let arrival = Arrival {
        life: life(tgid),
        at,
        huge: false,
    };
    let mut state = Owners {
        since: at,
        ..Owners::default()
    };
    state.now.known.insert((VirtAddr(0x1000), Pfn(2)), vec![arrival]);
    state
}

#[test]
fn a_page_seen_before_is_known_when_it_moves_on() {
    let mut pending = [run(0x1000, 2, 3), run(0x1000, 3, 4), run(0x2000, 2, 3)];
    forwards(&mut arrived(9, 0), &mut pending);
    assert_eq!(owners(&pending), [Some(9), Some(9), None]);
}

#[test]
fn an_arrival_does_not_speak_for_long() {
    for (unmapped_at, expected) in [(4, None), (5, Some(9)), (5 + STAY, Some(9)), (6 + STAY, None)] {
        let mut pending = [flown((2, 3), (unmapped_at, unmapped_at + 1))];
        forwards(&mut arrived(9, 5), &mut pending);
        assert_eq!(owners(&pending), [expected], "unmapped at {unmapped_at}");
    }
}

#[test]
fn of_a_page_shared_with_a_stranger_each_move_is_the_known_sharers_once() {
    let mut state = Owners::default();
    for (pfn, time) in [(1, 10), (2, 20), (3, 30)] {
        let here = vec![(life(7), Frame::Present(Pfn(pfn + 1)))];
        let holders = Holders::from([(VirtAddr(0x1000), here)]);
        let mut pending = [
            flown((pfn, pfn + 1), (time, time + 2)),
            flown((pfn, pfn + 1), (time, time + 3)),
        ];
        state.by_pagemap(&mut pending, &holders);
        state.forwards(&mut pending, &Processes::new(0, BTreeMap::new()), &holders, |_| 2);
        assert_eq!(owners(&pending), [None, Some(7)]);
    }
    // It has unmapped the page meanwhile: this is the stranger's.
    let mut pending = [flown((4, 5), (40, 42))];
    forwards(&mut state, &mut pending);
    assert_eq!(owners(&pending), [None]);
}

#[test]
fn one_process_has_one_mapping_at_an_address() {
    let mut pending = [flown((2, 3), (10, 12)), flown((2, 3), (10, 13))];
    pending[1].owner = Some(life(9));
    forwards(&mut arrived(9, 5), &mut pending);
    assert_eq!(owners(&pending), [None, Some(9)]);
    // The same in two batches.
    let mut state = arrived(9, 5);
    let arrival = Arrival {
        life: life(9),
        at: 12,
        huge: false,
    };
    state.now.known.insert((VirtAddr(0x1000), Pfn(3)), vec![arrival]);
    let mut pending = [flown((2, 3), (10, 13))];
    forwards(&mut state, &mut pending);
    assert_eq!(owners(&pending), [None]);
}

#[test]
fn a_chain_yields_to_what_the_page_tables_say() {
    let asked = |frame, mapped| {
        let mut pending = [flown((2, 3), (10, 12))];
        let holders = Holders::from([(VirtAddr(0x1000), vec![(life(9), frame)])]);
        let mut state = arrived(9, 5);
        state.forwards(&mut pending, &Processes::new(0, BTreeMap::new()), &holders, |_| mapped);
        owners(&pending)[0]
    };
    // It moved on, or was unmapped; or it has not left; or somebody else has what moved.
    assert_eq!(asked(Frame::Present(Pfn(4)), 0), Some(9));
    assert_eq!(asked(Frame::None, 0), Some(9));
    assert_eq!(asked(Frame::Present(Pfn(2)), 0), None);
    assert_eq!(asked(Frame::None, 1), None);
}

#[test]
fn who_comes_to_a_frame_finds_nobody_there() {
    // Freed by 9, the frame was taken for a page of 8, which moves on; or of nobody who is known.
    for (owner, expected) in [(Some(8), Some(8)), (None, None)] {
        let mut state = arrived(9, 5);
        let mut pending = [flown((1, 2), (10, 12)), flown((2, 3), (14, 16))];
        pending[0].owner = owner.map(life);
        forwards(&mut state, &mut pending);
        assert_eq!(owners(&pending), [owner, expected]);
    }
}

#[test]
fn a_child_forked_between_two_moves_had_no_part_in_the_first() {
    let mut pending = [flown((1, 2), (10, 12)), flown((2, 3), (20, 22))];
    pending[1].owner = Some(Life {
        born: Nanos(15),
        ..life(9)
    });
    backwards(&mut pending);
    assert_eq!(owners(&pending), [None, Some(9)]);
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
        let mut pending = [flown((1, 2), (unmapped_at, at))];
        state.by_pagemap(&mut pending, &holders);
        forwards(&mut state, &mut pending);
        assert_eq!(owners(&pending), [expected]);
    }
}
