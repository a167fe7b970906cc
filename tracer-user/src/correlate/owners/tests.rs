//! Tests of the search for owners: mappings that are found, and mappings that are not.
//! Input: made-up moves and page tables.

use tracer_common::event::MappingMoved;

use super::*;
use crate::{
    event::Task,
    units::{Nanos, Tid},
};

/// An address at which a huge page may begin.
const HUGE: u64 = 2 << 20;

fn moving(vaddr: u64, old_pfn: u64, new_pfn: u64) -> Moving {
    Moving {
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

fn owners(moves: &[Moving]) -> Vec<Option<u32>> {
    moves
        .iter()
        .map(|moving| moving.owner.map(|life| life.tgid.0))
        .collect()
}

#[test]
fn sharers_of_a_page_get_one_mapping_each() {
    let mut moves = [moving(0x1000, 1, 2), moving(0x1000, 1, 2), moving(0x1000, 1, 2)];
    let here = vec![(life(7), Frame::Present(Pfn(2))), (life(8), Frame::Present(Pfn(2)))];
    by_pagemap(&mut Owners::default(), &mut moves, &[(VirtAddr(0x1000), here)]);
    assert_eq!(owners(&moves), [None, Some(8), Some(7)]);
}

#[test]
fn an_owner_that_the_kernel_named_has_no_other_mapping_of_the_page() {
    let named = Moving {
        owner: Some(life(7)),
        source: OwnerSource::Kernel,
        ..moving(0x1000, 1, 2)
    };
    let here = vec![(life(7), Frame::Present(Pfn(2))), (life(8), Frame::Present(Pfn(2)))];
    let mut state = Owners {
        wanted: vec![VirtAddr(0x1000)],
        ..Owners::default()
    };
    let mut moves = [moving(0x1000, 1, 2), named];
    by_pagemap(&mut state, &mut moves, &[(VirtAddr(0x1000), here)]);
    assert_eq!(owners(&moves), [Some(8), Some(7)]);
}

#[test]
fn of_a_huge_page_one_has_it_whole_and_another_its_pages() {
    let huge = || {
        let mut huge = moving(HUGE, 0x200, 0x400);
        huge.raw.pages = 512;
        huge
    };
    let small = |page: u64| moving(HUGE + page * PAGE_SIZE, 0x200 + page, 0x400 + page);
    // 8 does not map the last page.
    let all = [life(8), life(7)];
    let holders = |page: u64| {
        let here = all.iter().filter(|life| page < 511 || life.tgid.0 == 7);
        let here = here.map(|life| (*life, Frame::Present(Pfn(0x400 + page))));
        (VirtAddr(HUGE + page * PAGE_SIZE), here.collect())
    };
    let holders = [0, 1, 2, 511].map(holders);
    let expected = [Some(8), Some(8), Some(7), Some(8)];
    let mut moves = [small(0), small(1), huge(), small(2)];
    by_pagemap(&mut Owners::default(), &mut moves, &holders);
    assert_eq!(owners(&moves), expected);
    // The same in two batches.
    let mut state = Owners::default();
    let mut moves = [huge()];
    moves[0].raw.at = 1;
    by_pagemap(&mut state, &mut moves, &holders);
    forwards(&mut state, &mut moves);
    assert_eq!(owners(&moves), [Some(7)]);
    let mut moves = [small(0), small(1)];
    by_pagemap(&mut state, &mut moves, &holders);
    assert_eq!(owners(&moves), [Some(8), Some(8)]);
}

#[test]
fn a_child_forked_after_the_move_had_no_part_in_it() {
    let mut moves = [moving(0x1000, 1, 2), moving(0x1000, 1, 2)];
    moves[1].raw.at = 10;
    let child = Life {
        born: Nanos(9),
        ..life(8)
    };
    let here = vec![(child, Frame::Present(Pfn(2)))];
    by_pagemap(&mut Owners::default(), &mut moves, &[(VirtAddr(0x1000), here)]);
    assert_eq!(owners(&moves), [None, Some(8)]);
}

#[test]
fn a_page_that_moved_twice_is_followed_back() {
    let mut moves = [moving(0x1000, 1, 2), moving(0x1000, 2, 3), moving(0x2000, 1, 3)];
    let here = vec![(life(7), Frame::Present(Pfn(3)))];
    let mut state = Owners::default();
    by_pagemap(&mut state, &mut moves, &[(VirtAddr(0x1000), here)]);
    state.backwards(&mut moves);
    assert_eq!(owners(&moves), [Some(7), Some(7), None]);
    assert_eq!(moves[0].source, OwnerSource::Chain);
    assert_eq!(moves[0].verdict, Some(Verdict::MovedAgain));
}

/// [`Owners::by_pagemap`] with these page tables.
fn by_pagemap(state: &mut Owners, moves: &mut [Moving], holders: &[(VirtAddr, Vec<(Life, Frame)>)]) {
    state.holders = Holders::made_up(holders);
    state.by_pagemap(moves);
}

/// [`Owners::forwards`] with no owner in any pagemap, and no frame mapped.
fn forwards(state: &mut Owners, moves: &mut [Moving]) {
    state.holders = Holders::default();
    state.forwards(moves, &Processes::default(), |_| 0);
}

/// A move at one address, from unmapping to arrival.
fn flown((old_pfn, new_pfn): (u64, u64), (unmapped_at, at): (u64, u64)) -> Moving {
    let mut moving = moving(0x1000, old_pfn, new_pfn);
    (moving.raw.unmapped_at, moving.raw.at) = (unmapped_at, at);
    moving
}

/// The state after that process's page came to frame 2 at that time.
fn arrived(tgid: u32, at: u64) -> Owners {
    let arrival = Arrival {
        life: life(tgid),
        at,
        huge: false,
    };
    let mut state = Owners::default();
    state.arrivals.forget(at);
    state
        .arrivals
        .arrive((VirtAddr(0x1000), Pfn(2)), (at, at), Some(arrival));
    state
}

#[test]
fn a_page_seen_before_is_known_when_it_moves_on() {
    let mut moves = [moving(0x1000, 2, 3), moving(0x1000, 3, 4), moving(0x2000, 2, 3)];
    forwards(&mut arrived(9, 0), &mut moves);
    assert_eq!(owners(&moves), [Some(9), Some(9), None]);
}

#[test]
fn an_arrival_does_not_speak_for_long() {
    for (unmapped_at, expected) in [(4, None), (5, Some(9)), (5 + STAY, Some(9)), (6 + STAY, None)] {
        let mut moves = [flown((2, 3), (unmapped_at, unmapped_at + 1))];
        forwards(&mut arrived(9, 5), &mut moves);
        assert_eq!(owners(&moves), [expected], "unmapped at {unmapped_at}");
    }
}

#[test]
fn of_a_page_shared_with_a_stranger_each_move_is_the_known_sharers_once() {
    let mut state = Owners::default();
    for (pfn, time) in [(1, 10), (2, 20), (3, 30)] {
        let here = vec![(life(7), Frame::Present(Pfn(pfn + 1)))];
        let holders = [(VirtAddr(0x1000), here)];
        let mut moves = [
            flown((pfn, pfn + 1), (time, time + 2)),
            flown((pfn, pfn + 1), (time, time + 3)),
        ];
        by_pagemap(&mut state, &mut moves, &holders);
        state.forwards(&mut moves, &Processes::default(), |_| 2);
        assert_eq!(owners(&moves), [None, Some(7)]);
    }
    // The known process has unmapped the page meanwhile: this move is the stranger's.
    let mut moves = [flown((4, 5), (40, 42))];
    forwards(&mut state, &mut moves);
    assert_eq!(owners(&moves), [None]);
}

#[test]
fn one_process_has_one_mapping_at_an_address() {
    let mut moves = [flown((2, 3), (10, 12)), flown((2, 3), (10, 13))];
    moves[1].owner = Some(life(9));
    forwards(&mut arrived(9, 5), &mut moves);
    assert_eq!(owners(&moves), [None, Some(9)]);
    // The same in two batches.
    let mut state = arrived(9, 5);
    let arrival = Arrival {
        life: life(9),
        at: 12,
        huge: false,
    };
    state
        .arrivals
        .arrive((VirtAddr(0x1000), Pfn(3)), (10, 12), Some(arrival));
    let mut moves = [flown((2, 3), (10, 13))];
    forwards(&mut state, &mut moves);
    assert_eq!(owners(&moves), [None]);
}

#[test]
fn a_chain_yields_to_what_the_page_tables_say() {
    let asked = |frame, mapped| {
        let mut moves = [flown((2, 3), (10, 12))];
        let mut state = arrived(9, 5);
        state.holders = Holders::made_up(&[(VirtAddr(0x1000), vec![(life(9), frame)])]);
        state.forwards(&mut moves, &Processes::default(), |_| mapped);
        owners(&moves)[0]
    };
    // The page moved on, or was unmapped; or it has not left; or another process has the page that moved.
    assert_eq!(asked(Frame::Present(Pfn(4)), 0), Some(9));
    assert_eq!(asked(Frame::None, 0), Some(9));
    assert_eq!(asked(Frame::Present(Pfn(2)), 0), None);
    assert_eq!(asked(Frame::None, 1), None);
}

#[test]
fn who_comes_to_a_frame_finds_nobody_there() {
    // Process 9 freed the frame, which was taken for a page of 8 that moves on, or of a process that is not known.
    for (owner, expected) in [(Some(8), Some(8)), (None, None)] {
        let mut state = arrived(9, 5);
        let mut moves = [flown((1, 2), (10, 12)), flown((2, 3), (14, 16))];
        moves[0].owner = owner.map(life);
        forwards(&mut state, &mut moves);
        assert_eq!(owners(&moves), [owner, expected]);
    }
}

#[test]
fn a_child_forked_between_two_moves_had_no_part_in_the_first() {
    let mut moves = [flown((1, 2), (10, 12)), flown((2, 3), (20, 22))];
    moves[1].owner = Some(Life {
        born: Nanos(15),
        ..life(9)
    });
    Owners::default().backwards(&mut moves);
    assert_eq!(owners(&moves), [None, Some(9)]);
}

#[test]
fn sharers_in_two_batches_are_two() {
    let mut state = Owners::default();
    let holders = [(
        VirtAddr(0x1000),
        vec![(life(7), Frame::Present(Pfn(2))), (life(8), Frame::Present(Pfn(2)))],
    )];
    // A third sharer is not known. A mapping that was unmapped after both had arrived moved again.
    for (unmapped_at, at, expected) in [(1, 2, Some(7)), (1, 3, Some(8)), (1, 4, None), (5, 6, Some(7))] {
        let mut moves = [flown((1, 2), (unmapped_at, at))];
        by_pagemap(&mut state, &mut moves, &holders);
        forwards(&mut state, &mut moves);
        assert_eq!(owners(&moves), [expected]);
    }
}
