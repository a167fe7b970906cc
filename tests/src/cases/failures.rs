//! Folios that could not be moved: each of them once a call, with its owner, its address and the cause.
//! Input: the workload `mover`, which makes moves fail, knows which, and reads its own pagemap.

mod stuck;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::moves::{balance_eagerly, ensure_same};
use crate::child::Worker;
use crate::memory::{HUGE, Memory};
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
        run: |env| pinned(env, "base", 1, false),
    },
    Case {
        name: "failures/pinned_shared",
        what: "the same pages, which a forked child maps too: both owners are told",
        needs: NEEDS,
        run: |env| pinned(env, "fork_shared", 2, false),
    },
    Case {
        name: "failures/pinned_one_of_six",
        what: "the same pages, which six processes map, of which the last is asked for: it alone is told",
        needs: NEEDS,
        run: |env| pinned(env, "shared_by_six", 6, true),
    },
    Case {
        name: "failures/pinned_hugetlb",
        what: "a hugetlb page that a pipe holds, of which a move allows one reference",
        needs: NEEDS,
        run: |env| pinned_hugetlb(env, "hugetlb", 1),
    },
    Case {
        name: "failures/pinned_hugetlb_shared",
        what: "the same of a file: the page cache holds one reference, since 6.7 one for each base page",
        needs: NEEDS,
        run: |env| pinned_hugetlb(env, "hugetlb_shared", if env.version() < (6, 7) { 2 } else { 513 }),
    },
    Case {
        name: "failures/registered",
        what: "base pages of a registered buffer, pinned as for RDMA: each stays, is reported as pinned, with its references",
        needs: NEEDS,
        run: |env| registered(env, "base", Some((1 + 1024 + 1, 2))),
    },
    Case {
        name: "failures/registered_thp",
        what: "the same with huge pages",
        needs: NEEDS,
        run: |env| registered(env, "thp", None),
    },
    Case {
        name: "failures/registered_file",
        what: "the same with pages of a file that six processes map",
        needs: NEEDS,
        run: |env| registered(env, "file_shared", Some((1 + 1 + 1024, 2))),
    },
    Case {
        name: "failures/pinned_thp_address",
        what: "of two pinned huge pages the one with --address in its middle is told",
        needs: NEEDS,
        run: pinned_thp_address,
    },
    Case {
        name: "failures/full_node",
        what: "the target has no free page: what did not move is reported, and nothing else",
        needs: NEEDS,
        run: full_node,
    },
    Case {
        name: "failures/full_node_shared",
        what: "the same, of pages that a forked child maps too, and only the child is traced: it is found among those who do",
        needs: NEEDS,
        run: full_node_shared,
    },
    Case {
        name: "failures/full_node_hugetlb",
        what: "the target has no free huge page: a hugetlb page that was not even unmapped is found by its reverse mapping",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, HAD_ROOM, || full_node_hugetlb(env, "hugetlb")),
    },
    Case {
        name: "failures/full_node_hugetlb_shared",
        what: "the same of a file",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, HAD_ROOM, || full_node_hugetlb(env, "hugetlb_shared")),
    },
    Case {
        name: "failures/full_node_thp",
        what: "huge pages that are split for a full node: what is left of them has no target, or was not tried",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, "no huge page was split and left", || full_node_thp(env)),
    },
    Case {
        name: "failures/refused_hint_fault",
        what: "NUMA balancing wants pages on a full node, and refuses to move them",
        needs: NEEDS,
        run: refused_hint_fault,
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

/// `pgmigrate_fail` of /proc/vmstat.
fn kernel_failed() -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat").context("read /proc/vmstat")?;
    let line = vmstat.lines().find_map(|line| line.strip_prefix("pgmigrate_fail "));
    line.context("no pgmigrate_fail")?
        .parse()
        .context("parse pgmigrate_fail")
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
    let stayed: BTreeSet<u64> = truth
        .range()
        .step_by(rustix::param::page_size())
        .filter(|vaddr| !truth.moves.0.contains_key(vaddr))
        .collect();
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

fn pinned(env: &Env, pages: &str, mappings: u32, of_youngest: bool) -> Result<Outcome> {
    let before = kernel_failed()?;
    let (pid, truth, trace) = traced(env, &[pages, "move_pinned", "0"], of_youngest)?;
    let failed = kernel_failed()? - before;
    ensure!(trace.moves.is_empty(), "invented: {:?}", trace.moves);
    trace.ensure_exact_books()?;
    let owners = truth.0.len();
    for (owner, report) in &truth.0 {
        ensure!(report.moves.len() == 0, "pinned pages moved: {report:?}");
        for failure in ensure_failed(&trace, *owner, report)? {
            ensure!(failure.cause == "references" && !failure.inferred, "cause: {failure:?}");
            // Three passes without waiting, then seven that wait (NR_MAX_MIGRATE_*_RETRY, mm/migrate.c).
            ensure!(
                (failure.errno, failure.attempts) == (Some(11), 10),
                "attempts: {failure:?}"
            );
            // move_pages holds one, the pipe another.
            ensure!(
                (failure.refs, failure.expected_refs) == (Some(2), Some(1)),
                "references: {failure:?}"
            );
            ensure!(failure.map_count == Some(mappings), "mappings: {failure:?}");
            ensure!(failure.owners.len() == owners, "owners: {failure:?}");
            ensure!(failure.reason == "syscall_or_cpuset", "reason: {failure:?}");
            ensure!(
                (failure.node, failure.actor_pid) == (Some(0), pid),
                "node, actor: {failure:?}"
            );
            ensure!(failure.pfn.is_some(), "frame: {failure:?}");
            ensure!(
                failure.flags.iter().any(|flag| flag == "swapbacked"),
                "flags: {failure:?}"
            );
            for place in &failure.owners {
                ensure!(!place.inferred && place.vma.is_some(), "place: {failure:?}");
            }
        }
    }
    let books = &trace.summary.books;
    ensure!(
        books.failed_seen_pages == failed,
        "the kernel counted {failed}: {books:?}"
    );
    Ok(Outcome::Passed)
}

fn pinned_hugetlb(env: &Env, pages: &str, expected: u32) -> Result<Outcome> {
    let before = kernel_failed()?;
    let (pid, truth, trace) = traced(env, &[pages, "move_pinned_huge", "2"], false)?;
    let failed = kernel_failed()? - before;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure!(report.moves.len() == 0 && trace.moves.is_empty(), "moved: {report:?}");
    trace.ensure_exact_books()?;
    let failures = ensure_failed(&trace, pid, report)?;
    let [failure] = &failures[..] else {
        bail!("one huge page: {failures:?}")
    };
    ensure!(failure.cause == "references" && !failure.inferred, "cause: {failure:?}");
    ensure!(
        (failure.refs, failure.expected_refs) == (Some(expected + 1), Some(expected)),
        "references, not {expected}: {failure:?}"
    );
    ensure!(failure.pages == 512 && failure.owners.len() == 1, "{failure:?}");
    ensure!(failure.owners.iter().all(|place| !place.inferred), "place: {failure:?}");
    let books = &trace.summary.books;
    ensure!(
        books.failed_seen_pages == failed,
        "the kernel counted {failed}: {books:?}"
    );
    Ok(Outcome::Passed)
}

/// `refs`: references of each page, and how many a move expects.
fn registered(env: &Env, pages: &str, refs: Option<(u32, u32)>) -> Result<Outcome> {
    let before = kernel_failed()?;
    let (pid, truth, trace) = traced(env, &[pages, "move_registered", "2"], false)?;
    let failed = kernel_failed()? - before;
    trace.ensure_exact_books()?;
    let (_, report) = truth.0.iter().find(|(owner, _)| *owner == pid).context("no report")?;
    ensure!(
        report.moves.len() == 0 && trace.moves.is_empty(),
        "pinned pages moved: {report:?}"
    );
    for failure in ensure_failed(&trace, pid, report)? {
        ensure!(failure.cause == "pinned" && failure.inferred, "cause: {failure:?}");
        ensure!(
            failure.refs.zip(failure.expected_refs) == refs,
            "references, not {refs:?}: {failure:?}"
        );
        ensure!(failure.reason == "syscall_or_cpuset", "reason: {failure:?}");
    }
    let books = &trace.summary.books;
    ensure!(
        books.failed_seen_pages == failed,
        "the kernel counted {failed}: {books:?}"
    );
    Ok(Outcome::Passed)
}

fn pinned_thp_address(env: &Env) -> Result<Outcome> {
    let mut worker = Worker::spawn("changing", &["pinned", "huge"])?;
    let pid = worker.pid().to_string();
    worker.wait_ready(SOON)?;
    worker.send("where")?;
    let range = Report::parse(&worker.read_line(SOON)?)?.range();
    let middle = range.start + HUGE as u64 / 2;
    let address = format!("{middle:#x}-{:#x}", middle + rustix::param::page_size() as u64);
    let args = ["-p", &pid, "--address", &address, "--backend", "exact"];
    let tracing = Tracing::start(&env.tracer, &args)?;
    worker.send("move move_pinned 1")?;
    let truth = Report::parse(&worker.read_line(SOON)?)?;
    let trace = tracing.finish()?;
    worker.exit(SOON)?;
    ensure!(truth.moves.len() == 0, "pinned pages moved: {truth:?}");
    trace.ensure_exact_books()?;
    let [failure] = &trace.failures[..] else {
        bail!(
            "one failure at {address}: {:?}, {:?}",
            trace.failures,
            trace.summary.books
        )
    };
    ensure!(failure.pages == 512 && failure.cause == "references", "{failure:?}");
    ensure!(
        failure.owners.len() == 1 && failure.owners.iter().all(|place| place.vaddr.0 == range.start),
        "place: {failure:?}"
    );
    Ok(Outcome::Passed)
}

/// Whether the node was full.
fn full_node_hugetlb(env: &Env, pages: &str) -> Result<bool> {
    let (pid, truth, trace) = traced(env, &[pages, "move_hugetlb_to_full_node", "4"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure_same(&trace, pid, report)?;
    trace.ensure_exact_books()?;
    if report.moves.len() != 0 {
        return Ok(false);
    }
    let mine = |failure: &&FailureLine| failure.reason == "syscall_or_cpuset";
    let failures: Vec<&FailureLine> = trace.failures.iter().filter(mine).collect();
    let [failure] = &failures[..] else {
        bail!("one huge page: {failures:?}, {:?}", trace.summary.books)
    };
    ensure!(
        failure.pages == 512 && (failure.cause == "no_target" || failure.cause == "not_tried"),
        "cause: {failure:?}"
    );
    let [place] = &failure.owners[..] else {
        bail!("one owner: {failure:?}")
    };
    ensure!(
        place.inferred && place.vaddr.0 == report.end - HUGE as u64,
        "place: {failure:?}"
    );
    Ok(true)
}

/// Whether the first page of a huge page was left.
fn full_node_thp(env: &Env) -> Result<bool> {
    let (pid, truth, trace) = traced(env, &["thp", "mbind_to_full_node", "32"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure_same(&trace, pid, report)?;
    trace.ensure_exact_books()?;
    let mine = |failure: &&FailureLine| {
        let mut places = failure.owners.iter();
        failure.reason == "mempolicy_mbind" && places.any(|place| report.range().contains(&place.vaddr.0))
    };
    let failures: Vec<&FailureLine> = trace.failures.iter().filter(mine).collect();
    let mut told = BTreeSet::new();
    for failure in &failures {
        ensure!(
            failure.cause == "no_target" || failure.cause == "not_tried",
            "cause: {failure:?}"
        );
        for place in &failure.owners {
            let end = place.vaddr.0 + failure.pages * rustix::param::page_size() as u64;
            told.extend((place.vaddr.0..end).step_by(rustix::param::page_size()));
        }
    }
    let silent: Vec<u64> = report
        .range()
        .step_by(rustix::param::page_size())
        .filter(|vaddr| !report.moves.0.contains_key(vaddr) && !told.contains(vaddr))
        .collect();
    ensure!(
        silent.is_empty(),
        "{} pages stayed untold: {:x?}",
        silent.len(),
        silent.first()
    );
    // The first page of a huge page was its folio: it alone could be taken for one that was unmapped to be moved.
    let is_first = |failure: &&&FailureLine| {
        let mut places = failure.owners.iter();
        failure.pages == 1 && places.any(|place| place.vaddr.0.is_multiple_of(HUGE as u64))
    };
    let firsts = failures.iter().filter(is_first);
    let firsts = firsts.filter(|failure| failure.cause == "not_tried").count();
    println!("{} failures, {firsts} first pages that were not tried", failures.len());
    Ok(firsts > 0)
}

fn full_node(env: &Env) -> Result<Outcome> {
    let (pid, truth, trace) = traced(env, &["base", "move_to_full_node", "32"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure_same(&trace, pid, report)?;
    trace.ensure_exact_books()?;
    let failures = ensure_failed(&trace, pid, report)?;
    let of = |cause: &str| failures.iter().filter(|failure| failure.cause == cause).count();
    println!("{} without a target, {} not tried", of("no_target"), of("not_tried"));
    ensure!(of("no_target") > 0, "the node was not full: nothing is proven");
    ensure!(
        of("no_target") + of("not_tried") == failures.len(),
        "other causes: {:?}",
        failures
            .iter()
            .find(|failure| failure.cause != "no_target" && failure.cause != "not_tried")
    );
    for failure in &failures {
        ensure!(
            failure.inferred == (failure.cause == "not_tried"),
            "inferred: {failure:?}"
        );
        if failure.cause == "no_target" {
            ensure!(failure.errno == Some(12) && failure.attempts > 0, "error: {failure:?}");
        }
    }
    Ok(Outcome::Passed)
}

fn full_node_shared(env: &Env) -> Result<Outcome> {
    let (_, truth, trace) = traced(env, &["fork_shared", "move_to_full_node", "32"], true)?;
    let [(child, report)] = &truth.0[..] else {
        bail!("one child was expected")
    };
    let child = *child;
    ensure_same(&trace, child, report)?;
    trace.ensure_exact_books()?;
    let failures = ensure_failed(&trace, child, report)?;
    let inferred = |failure: &FailureLine| failure.owners.iter().any(|place| place.inferred);
    ensure!(
        failures.iter().any(inferred),
        "all had been unmapped: nothing is proven"
    );
    for failure in &failures {
        ensure!(
            failure.owners.iter().all(|place| place.pid == child),
            "owners: {failure:?}"
        );
    }
    Ok(Outcome::Passed)
}

fn refused_hint_fault(env: &Env) -> Result<Outcome> {
    balance_eagerly()?;
    // When the kernel marks pages for hint faults depends on how long the workload has run (`task_tick_numa`,
    // kernel/sched/fair.c).
    let outcome = Outcome::of_tries(3, "no page was refused", || refuse(env));
    fs::write("/proc/sys/kernel/numa_balancing", "0").context("switch NUMA balancing off")?;
    outcome
}

/// Whether there were refusals.
fn refuse(env: &Env) -> Result<bool> {
    let (pid, truth, trace) = traced(env, &["base", "balance_to_full_node", "8"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure_same(&trace, pid, report)?;
    trace.ensure_exact_books()?;
    let refused: Vec<&FailureLine> = trace
        .failures
        .iter()
        .filter(|failure| failure.cause == "numa_refused")
        .collect();
    for failure in &refused {
        let [place] = &failure.owners[..] else {
            bail!("one owner: {failure:?}")
        };
        ensure!(place.pid == pid, "owner: {failure:?}");
        ensure!(
            failure.reason == "numa_misplaced" && failure.node == Some(0),
            "{failure:?}"
        );
    }
    // Its stack and the like are balanced as well.
    Ok(refused
        .iter()
        .any(|failure| report.range().contains(&failure.owners[0].vaddr.0)))
}

fn refused_by_file(env: &Env) -> Result<Outcome> {
    if let Err(error) = Memory::secret(rustix::param::page_size()) {
        ensure!(env.version() < (6, 5), "{error:#}");
        return Ok(Outcome::NotApplicable(
            "before 6.5 memfd_secret(2) is switched on at boot only".into(),
        ));
    }
    let (pid, truth, trace) = traced(env, &["secret", "mbind_refused", "1"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure!(report.moves.len() == 0 && trace.moves.is_empty(), "moved: {report:?}");
    trace.ensure_exact_books()?;
    for failure in ensure_failed(&trace, pid, report)? {
        // `secretmem_migrate_folio`, mm/secretmem.c: EBUSY; once among others, once alone (`migrate_pages_sync`).
        ensure!(
            failure.cause == "error" && !failure.inferred && (failure.errno, failure.attempts) == (Some(16), 2),
            "cause: {failure:?}"
        );
        ensure!(failure.reason == "mempolicy_mbind", "reason: {failure:?}");
    }
    Ok(Outcome::Passed)
}
