//! Made-up moves and runs for tests of printed output.
//! Input: none.

use std::{borrow::Cow, io::BufRead, sync::Arc};

use crate::{
    event::{
        Event, Move, OwnerSource, Reason, Task, Verdict,
        compaction::Compaction,
        failure::{Cause, FailedPlace, Failure, Refs},
        unmapped::{Device, FilePlace, UnmappedMove},
    },
    kernel::hooks::{HOOKS, Kinds},
    proc::{
        kpage::{KpfQuirks, PageFlags},
        maps,
    },
    run::{
        account::{Account, Check},
        attribution::Unattributed,
        backend::Backend,
        books::{Books, Lost, Unasked},
        counters::MissedRuns,
        header::{Header, MissingHook, NodeFrames},
        intervals::{Interval, IntervalTotals},
        kept::Kept,
        outside::Outside,
        summary::Summary,
        totals::Totals,
    },
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

fn mover() -> Task {
    task(4_194_300, 4_194_301, "another-fifteen")
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
        reason: Some(reason(3, "syscall_or_cpuset")),
        actor: Some(mover()),
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
        nth: Some(1),
        cpu: 7,
    }
}

/// Every event except moves of pages: once with everything known, once with as little as possible.
pub fn others() -> Vec<Event> {
    let moved = moved();
    let unmapped = UnmappedMove {
        at: moved.at,
        order: Order(2),
        old_pfn: Some(Pfn(0x1f_03a0)),
        new_pfn: Some(Pfn(0x9_c11c)),
        old_node: Some(NodeId(0)),
        new_node: Some(NodeId(1)),
        reason: reason(2, "memory_hotplug"),
        actor: mover(),
        file: Some(FilePlace {
            dev: Device(8 << 20 | 1),
            inode: 1234,
            offset: 0x4000,
            name: Some(Arc::from("base.db\n\u{1b}[31m")),
        }),
        cpu: 7,
    };
    let failure = Failure {
        at: moved.at,
        order: Order(0),
        pfn: Some(Pfn(0x1f_03a0)),
        node: Some(NodeId(0)),
        reason: reason(0, "compaction"),
        actor: mover(),
        mode: "sync".into(),
        cause: Cause::References,
        inferred: false,
        errno: Some(11),
        attempts: 10,
        refs: Some(Refs { held: 3, expected: 1 }),
        map_count: Some(2),
        flags: Arc::from("uptodate,swapbacked"),
        places: moved
            .owner
            .clone()
            .into_iter()
            .map(|owner| FailedPlace {
                owner,
                vaddr: moved.vaddr,
                vma: moved.vma.clone(),
                inferred: false,
            })
            .collect(),
        cpu: 7,
    };
    let compaction = Compaction {
        at: moved.at,
        duration: Nanos(3_200_000),
        actor: mover(),
        order: Some(Order(9)),
        node: Some(NodeId(1)),
        zone: Arc::from("Normal"),
        direct: true,
        sync: true,
        proactive: false,
        result: Arc::from("success"),
        moved: 1024,
        failed: 3,
        cpu: 7,
    };
    vec![
        Event::Unmapped(unmapped.clone()),
        Event::Unmapped(UnmappedMove {
            old_pfn: None,
            new_pfn: None,
            old_node: None,
            new_node: None,
            file: None,
            ..unmapped
        }),
        Event::Failure(failure.clone()),
        Event::Failure(Failure {
            pfn: None,
            node: None,
            cause: Cause::NotTried,
            inferred: true,
            errno: None,
            attempts: 0,
            refs: None,
            map_count: None,
            flags: Arc::default(),
            places: Vec::new(),
            ..failure
        }),
        Event::Compaction(compaction.clone()),
        Event::Compaction(Compaction {
            order: None,
            node: None,
            direct: false,
            ..compaction
        }),
    ]
}

/// A move about which nearly nothing is known.
pub fn unknown() -> Move {
    Move {
        owner: None,
        owner_source: OwnerSource::Unknown,
        pages: 512,
        order: Order(9),
        old_node: None,
        new_node: None,
        reason: Some(Reason { number: 77, name: None }),
        actor: Some(Task {
            tgid: Tgid(60),
            tid: Tid(60),
            comm: None,
        }),
        blackout: None,
        vma: None,
        verdict: Verdict::NotAsked,
        flags: None,
        map_count: None,
        ambiguous: true,
        ..moved()
    }
}

/// A move that is known only from page tables before and after: its reason and actor are unknown.
pub fn compared() -> Move {
    Move {
        reason: None,
        actor: None,
        blackout: None,
        nth: None,
        ..moved()
    }
}

/// A run on a machine that refuses function hooks.
pub fn header() -> Header {
    Header {
        version: "VERSION".to_owned(),
        host: "db-1".to_owned(),
        boot_id: "d4f5bc26-54ad-4aa4-9b2e-0d1a5fbf5e0c".to_owned(),
        kernel: "6.12.117".to_owned(),
        nodes: 2,
        frames: vec![NodeFrames {
            first: Pfn(0x1000),
            end: Pfn(0x20_0000),
            node: NodeId(0),
        }],
        command_line: ["tracer", "-p", "4711"].map(str::to_owned).to_vec(),
        begun: Nanos(4_900_000_000),
        backend: Backend::Tracepoint.into(),
        kinds: Kinds::DEFAULT.into(),
        fallbacks: vec!["cannot attach fexit/move_to_new_folio: Operation not permitted (os error 1)".to_owned()],
        refused: HOOKS
            .iter()
            .filter(|hook| hook.target == "sched_process_exec")
            .map(|hook| MissingHook {
                hook: hook.label(),
                reason: "Permission denied (os error 13)".to_owned(),
                loses: hook.loses.unwrap_or_default().to_owned(),
            })
            .collect(),
        targets: "postgres[4711] and 12 children".to_owned(),
        clock_offset: 1_700_000_000_000_000_000,
    }
}

/// An account of the tracepoint backend, which does not see every move.
pub fn account() -> Account {
    let check = |name, kernel, seen, exact| Check {
        name: Cow::Borrowed(name),
        kernel,
        seen,
        exact,
    };
    Account {
        begin: Nanos(5_000_000_000),
        end: Nanos(6_001_000_000),
        kernel: Some(1000),
        moved: 900,
        released: 2,
        unseen: 1,
        unbalanced_calls: 4,
        checks: vec![
            check("pgmigrate_fail", 3, 3, true),
            check("thp_migration_success", 2, 1, true),
            check("pgdemote", 0, 31, false),
        ],
        settled: true,
        blind_to_unmapped: true,
    }
}

/// An interval of a second with those events.
pub fn interval() -> Interval {
    Interval {
        account: account(),
        lost: 60,
    }
}

/// The end of the run, with losses of every kind.
pub fn summary() -> Summary {
    let mut totals = Totals::default();
    for moved in [moved(), unknown()] {
        totals.add(&Event::Move(moved));
    }
    for event in others() {
        totals.add(&event);
    }
    Summary {
        duration: Nanos(10_000_000_000),
        totals,
        books: Books {
            whole: account(),
            intervals: IntervalTotals {
                closed: 3,
                unbalanced: 0,
                worst: None,
            },
            reported: 514,
            filtered: 300,
            unowned: 14,
            unmapped: 72,
            unbooked: 6,
            outside: Some(512),
            failed_seen: 514,
            failed_reported: 482,
            unasked: Unasked {
                failed: 9,
                refused: 4,
                unmapped: 64,
                outside: 33,
            },
            compaction_deferred: 17,
            machine_outside: Outside {
                swapped_out: 1204,
                swapped_in: 12,
                collapses: 1,
                ksm_copies: 2,
            },
            lost: Lost {
                mappings_by_cpu: vec![0, 12, 0, 1],
                mapping_pages: 20,
                processes: 3,
                merged_renames: 24,
                folios: 18,
                folio_pages: 19,
                failures: 20,
                failure_pages: 23,
                cut_failures: 21,
                compactions: 22,
                calls: 5,
                unpaired: 6,
                undecoded: 7,
                missed_runs: MissedRuns {
                    events: 8,
                    details: 10,
                    stood_in: 12,
                },
                targets: 11,
                unsearched_pages: 13,
                not_asked_pages: 512,
                unattributed: Unattributed {
                    unnamed: 1,
                    unsearched: 2,
                    not_found: 6,
                },
            },
        },
        startup_cpu: Nanos(61_000_000),
        cpu: Nanos(3_000_000),
        max_rss: 68 << 20,
        kept: Kept::default(),
    }
}
