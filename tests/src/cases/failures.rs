//! Folios that could not be moved: each of them once a call, with its owner, its address and the cause.
//! Input: the workload `mover`, which makes moves fail, knows which, and reads its own pagemap.

mod full_node;
mod pinned;
mod stuck;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::child::Worker;
use crate::tracing::{FailureLine, Trace, Tracing};
use crate::truth::{Report, Reports};

const SOON: Duration = Duration::from_mins(1);
const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };
/// Others may give memory back in just the wrong moment.
const HAD_ROOM: &str = "the node had room";

pub const CASES: &[Case] = &[
    Case {
        name: "failures/pinned",
        what: "pages that a pipe holds: each reported once, with the references that are too many",
        needs: NEEDS,
        run: |env| pinned::held(env, "base", 1, false),
    },
    Case {
        name: "failures/pinned_shared",
        what: "the same pages, which a forked child maps too: both owners are told",
        needs: NEEDS,
        run: |env| pinned::held(env, "fork_shared", 2, false),
    },
    Case {
        name: "failures/pinned_one_of_six",
        what: "the same pages, which six processes map, of which the last is asked for: it alone is told",
        needs: NEEDS,
        run: |env| pinned::held(env, "shared_by_six", 6, true),
    },
    Case {
        name: "failures/pinned_hugetlb",
        what: "a hugetlb page that a pipe holds, of which a move allows one reference",
        needs: NEEDS,
        run: |env| pinned::hugetlb(env, "hugetlb", 1),
    },
    Case {
        name: "failures/pinned_hugetlb_shared",
        what: "the same of a file: the page cache holds one reference, since 6.7 one for each base page",
        needs: NEEDS,
        run: |env| pinned::hugetlb(env, "hugetlb_shared", if env.version() < (6, 7) { 2 } else { 513 }),
    },
    Case {
        name: "failures/registered",
        what: "base pages of a registered buffer, pinned as for RDMA: each stays, is reported as pinned, with its references",
        needs: NEEDS,
        run: |env| pinned::registered(env, "base", Some((1 + 1024 + 1, 2))),
    },
    Case {
        name: "failures/registered_thp",
        what: "the same with huge pages",
        needs: NEEDS,
        run: |env| pinned::registered(env, "thp", None),
    },
    Case {
        name: "failures/registered_file",
        what: "the same with pages of a file that six processes map",
        needs: NEEDS,
        run: |env| pinned::registered(env, "file_shared", Some((1 + 1 + 1024, 2))),
    },
    Case {
        name: "failures/pinned_thp_address",
        what: "of two pinned huge pages the one with --address in its middle is told",
        needs: NEEDS,
        run: pinned::thp_address,
    },
    Case {
        name: "failures/full_node",
        what: "the target has no free page: what did not move is reported, and nothing else",
        needs: NEEDS,
        run: full_node::base,
    },
    Case {
        name: "failures/full_node_shared",
        what: "the same, of pages that a forked child maps too, and only the child is traced: it is found among those who do",
        needs: NEEDS,
        run: full_node::shared,
    },
    Case {
        name: "failures/full_node_hugetlb",
        what: "the target has no free huge page: a hugetlb page that was not even unmapped is found by its reverse mapping",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, HAD_ROOM, || full_node::hugetlb(env, "hugetlb")),
    },
    Case {
        name: "failures/full_node_hugetlb_shared",
        what: "the same of a file",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, HAD_ROOM, || full_node::hugetlb(env, "hugetlb_shared")),
    },
    Case {
        name: "failures/full_node_thp",
        what: "huge pages that are split for a full node: what is left of them has no target, or was not tried",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, "no huge page was split and left", || full_node::thp(env)),
    },
    Case {
        name: "failures/refused_hint_fault",
        what: "NUMA balancing wants pages on a full node, and refuses to move them",
        needs: NEEDS,
        run: full_node::hint_fault,
    },
    Case {
        name: "failures/refused_by_file",
        what: "pages of a file that refuses to move them: the error is told",
        needs: NEEDS,
        run: refused_by_file,
    },
    Case {
        name: "failures/writeback",
        what: "page cache that is being written to a slow disk: each page is reported as under writeback",
        needs: NEEDS,
        run: stuck::writeback,
    },
    Case {
        name: "failures/locked",
        what: "page cache that waits for its content: compaction leaves it, and it is reported as locked",
        needs: NEEDS,
        run: stuck::locked,
    },
    Case {
        name: "failures/still_mapped",
        what: "a hugetlb page of a file while its VMA is locked: each call that could not unmap it is told, with that cause",
        needs: NEEDS,
        run: |env| stuck::still_mapped(env, "alone"),
    },
    Case {
        name: "failures/still_mapped_shared",
        what: "the same where another process maps it, too",
        needs: NEEDS,
        run: |env| stuck::still_mapped(env, "shared"),
    },
];

/// The addresses of the pages that did not move.
fn stayed(truth: &Report) -> BTreeSet<u64> {
    let pages = truth.range().step_by(rustix::param::page_size());
    pages.filter(|vaddr| !truth.moves.0.contains_key(vaddr)).collect()
}

/// Every address that did not move has one failure, and no other has one. Compaction tries for itself, where there is
/// little room, and may fail, too.
fn ensure_failed(trace: &Trace, pid: u32, truth: &Report) -> Result<Vec<FailureLine>> {
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    let mut failures = Vec::new();
    for failure in trace.failures.iter().filter(|failure| failure.reason != "compaction") {
        let mine = |vaddr: u64| truth.range().contains(&vaddr);
        for place in failure
            .owners
            .iter()
            .filter(|place| place.pid == pid && mine(place.vaddr.0))
        {
            for page in 0..failure.pages {
                let vaddr = place.vaddr.0 + page * rustix::param::page_size() as u64;
                *seen.entry(vaddr).or_default() += 1;
            }
            failures.push(failure.clone());
        }
    }
    let stayed = stayed(truth);
    let missed: Vec<_> = stayed
        .iter()
        .filter(|vaddr| !seen.contains_key(vaddr))
        .take(5)
        .collect();
    let invented: Vec<_> = seen
        .iter()
        .filter(|(vaddr, times)| **times != 1 || !stayed.contains(vaddr))
        .take(5)
        .collect();
    println!("{} pages stayed, {} reported", stayed.len(), seen.len());
    if let Some(vaddr) = invented.first() {
        let at = |failure: &&FailureLine| failure.owners.iter().any(|place| place.vaddr.0 == *vaddr.0);
        for failure in failures.iter().filter(at) {
            println!("{failure:?}");
        }
        for line in trace.moves.iter().filter(|line| line.vaddr.0 == *vaddr.0) {
            println!("{line:?}");
        }
    }
    ensure!(
        missed.is_empty() && invented.is_empty(),
        "of {} pages that stayed, missed {missed:x?}, invented or repeated {invented:x?}; summary {:?}",
        stayed.len(),
        trace.summary
    );
    Ok(failures)
}

/// What the workload `mover` says became of its pages, and what the exact backend, its pid given or that of the child it
/// forked last, whose report alone is then returned.
fn traced(env: &Env, mover: &[&str], of_youngest: bool) -> Result<(u32, Reports, Trace)> {
    let mut worker = Worker::spawn("mover", mover)?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let asked = if of_youngest { worker.youngest_child()? } else { pid };
    let tracing = Tracing::start(&env.tracer, &["-p", &asked.to_string(), "--backend", "exact"])?;
    worker.send("mark")?;
    worker.read_line(SOON)?;
    worker.send("move")?;
    let truth = Reports::parse(&worker.read_line(SOON)?)?;
    let trace = tracing.finish()?;
    worker.exit(SOON)?;
    let truth = if of_youngest { truth.only_of(asked)? } else { truth };
    Ok((pid, truth, trace))
}

fn refused_by_file(env: &Env) -> Result<Outcome> {
    let (pid, truth, trace) = traced(env, &["secret", "mbind_refused", "1"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure!(report.moves.len() == 0 && trace.moves.is_empty(), "moved: {report:?}");
    trace.ensure_exact_books()?;
    for failure in ensure_failed(&trace, pid, report)? {
        // `secretmem_migrate_folio`, mm/secretmem.c: EBUSY; once among others, and since 6.3 once alone
        // (`migrate_pages_sync`).
        let attempts = if env.version() < (6, 3) { 1 } else { 2 };
        ensure!(
            failure.cause == "error" && !failure.inferred && (failure.errno, failure.attempts) == (Some(16), attempts),
            "cause: {failure:?}"
        );
        ensure!(failure.reason == "mempolicy_mbind", "reason: {failure:?}");
    }
    Ok(Outcome::Passed)
}
