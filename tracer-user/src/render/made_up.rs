//! Moves and runs that no kernel made, for tests of what is printed.
//! Input: none.

use std::{io::BufRead, sync::Arc};

use crate::{
    analysis::{
        books::{Books, Lost},
        totals::Totals,
    },
    event::{Event, Move, OwnerSource, Reason, Task, Verdict},
    kernel::hooks::{HOOKS, Kinds},
    proc::{
        kpage::{KpfQuirks, PageFlags},
        maps,
    },
    sink::{Header, Summary},
    source::ring::{Backend, MissedRuns, Refusal},
    units::{Nanos, NodeId, Order, Pfn, Tgid, Tid, VirtAddr},
};

fn task(tgid: u32, tid: u32, comm: &str) -> Task {
    Task {
        tgid: Tgid(tgid),
        tid: Tid(tid),
        comm: Some(Arc::from(comm)),
    }
}

fn reason(number: u8, name: &str) -> Reason {
    Reason {
        number,
        name: Some(Arc::from(name)),
    }
}

fn vma(mut line: impl BufRead) -> Option<Arc<maps::Vma>> {
    maps::parse(&mut line).next()?.ok().map(Arc::new)
}

/// Two pages of a library with the longest names and numbers that occur.
pub fn moved() -> Move {
    Move {
        at: Nanos(5_000_000_000),
        owner: Some(task(4_194_303, 4_194_303, "fifteen-letters")),
        owner_source: OwnerSource::Pagemap,
        vaddr: VirtAddr(0x7f3a_5c20_0000),
        pages: 2,
        order: Order(0),
        old_pfn: Some(Pfn(0x1f_03a0)),
        new_pfn: Some(Pfn(0x9_c11e)),
        old_node: Some(NodeId(0)),
        new_node: Some(NodeId(1)),
        reason: reason(3, "syscall_or_cpuset"),
        actor: task(4_194_300, 4_194_301, "another-fifteen"),
        blackout: Some(Nanos(412_000)),
        vma: vma(
            &b"7f3a5c200000-7f3a5c400000 r-xp 00000000 08:01 1234 /usr/lib/x86_64-linux-gnu/libLLVM.so.19.1\n"[..],
        ),
        verdict: Verdict::Confirmed,
        flags: Some(PageFlags::new(
            1 << 5 | 1 << 12,
            KpfQuirks {
                ksm_on_every_anon: false,
            },
        )),
        map_count: Some(3),
        ambiguous: false,
        cpu: 7,
    }
}

/// A move of which next to nothing is known.
pub fn unknown() -> Move {
    Move {
        owner: None,
        owner_source: OwnerSource::Unknown,
        pages: 512,
        order: Order(9),
        old_node: None,
        new_node: None,
        reason: Reason { number: 77, name: None },
        actor: Task {
            tgid: Tgid(60),
            tid: Tid(60),
            comm: None,
        },
        blackout: None,
        vma: None,
        verdict: Verdict::NotAsked,
        flags: None,
        map_count: None,
        ambiguous: true,
        ..moved()
    }
}

/// A run on a machine that refuses function hooks.
pub fn header() -> Header {
    Header {
        kernel: "6.12.117".to_owned(),
        nodes: 2,
        backend: Backend::Tracepoint,
        kinds: Kinds::DEFAULT,
        fallbacks: vec!["cannot attach fexit/move_to_new_folio: Operation not permitted (os error 1)".to_owned()],
        refused: HOOKS
            .iter()
            .filter(|hook| hook.target == "sched_process_exec")
            .map(|hook| Refusal {
                hook,
                reason: "Permission denied (os error 13)".to_owned(),
                errno: Some(13),
            })
            .collect(),
        targets: "postgres[4711] and 12 children".to_owned(),
        clock_offset: 1_700_000_000_000_000_000,
    }
}

/// Its end: something was lost everywhere.
pub fn summary() -> Summary {
    let mut totals = Totals::default();
    for moved in [moved(), unknown()] {
        totals.add(&Event::Move(moved));
    }
    Summary {
        duration: Nanos(10_000_000_000),
        totals,
        books: Books {
            kernel: Some(1000),
            unseen: 1,
            released: 2,
            moved: 900,
            reported: 514,
            filtered: 300,
            unowned: 14,
            unmapped: 72,
            unbalanced_calls: 4,
            settled: true,
            lost: Lost {
                mappings_by_cpu: vec![0, 12, 0, 1],
                mapping_pages: 20,
                processes: 3,
                calls: 5,
                unpaired: 6,
                undecoded: 7,
                missed_runs: MissedRuns { moves: 8, details: 10 },
                targets: 11,
                unsearched_pages: 13,
                not_asked_pages: 512,
                unattributed_pages: 9,
            },
            blind_to_unmapped: true,
        },
        startup_cpu: Nanos(61_000_000),
        cpu: Nanos(3_000_000),
        max_rss: 68 << 20,
    }
}
