//! Folios with extra references: in a pipe, or pinned as for a device or direct I/O.
//! Input: the workloads `mover` and `changing`, which hold pages while they request the move.

use anyhow::{Context, Result, bail, ensure};

use super::expected::{SOON, ensure_failed, traced};
use crate::case::{Env, Outcome};
use crate::machine::memory::HUGE;
use crate::tracer::trace::Tracing;
use crate::truth::{Report, vmstat};
use crate::worker::Worker;

pub fn held(env: &Env, pages: &str, mappings: u32, of_youngest: bool) -> Result<Outcome> {
    let before = vmstat("pgmigrate_fail")?;
    let (pid, truth, trace) = traced(env, &[pages, "move_pinned", "0"], of_youngest)?;
    let failed = vmstat("pgmigrate_fail")? - before;
    ensure!(trace.moves.is_empty(), "invented: {:?}", trace.moves);
    trace.ensure_exact_books()?;
    let owners = truth.0.len();
    for (owner, report) in &truth.0 {
        ensure!(report.moves.len() == 0, "pinned pages moved: {report:?}");
        for failure in ensure_failed(&trace, *owner, report)? {
            ensure!(failure.cause == "references" && !failure.inferred, "cause: {failure:?}");
            // The kernel makes three passes without waiting, then seven that wait (NR_MAX_MIGRATE_*_RETRY,
            // mm/migrate.c).
            ensure!(
                (failure.errno, failure.attempts) == (Some(11), 10),
                "attempts: {failure:?}"
            );
            // move_pages holds one reference, the pipe another.
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

pub fn hugetlb(env: &Env, pages: &str, expected: u32) -> Result<Outcome> {
    let before = vmstat("pgmigrate_fail")?;
    let (pid, truth, trace) = traced(env, &[pages, "move_pinned_huge", "2"], false)?;
    let failed = vmstat("pgmigrate_fail")? - before;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure!(
        report.moves.len() == 0 && trace.moves.is_empty(),
        "moved: {report:?}; {:?}",
        trace.moves
    );
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

/// `refs` are the references of each page and the number that a move expects.
pub fn registered(env: &Env, pages: &str, refs: Option<(u32, u32)>) -> Result<Outcome> {
    let before = vmstat("pgmigrate_fail")?;
    let (pid, truth, trace) = traced(env, &[pages, "move_registered", "2"], false)?;
    let failed = vmstat("pgmigrate_fail")? - before;
    trace.ensure_exact_books()?;
    let (_, report) = truth.0.iter().find(|(owner, _)| *owner == pid).context("no report")?;
    ensure!(
        report.moves.len() == 0 && trace.moves.is_empty(),
        "pinned pages moved: {report:?}; {:?}",
        trace.moves
    );
    for failure in ensure_failed(&trace, pid, report)? {
        ensure!(failure.cause == "pinned" && failure.inferred, "cause: {failure:?}");
        ensure!(
            failure.refs.zip(failure.expected_refs) == refs,
            "references, not {refs:?}: {failure:?}"
        );
        ensure!(failure.reason == "syscall_or_cpuset", "reason: {failure:?}");
        // The kernel could not unmap the page there, or restored its mapping.
        ensure!(
            failure.owners.iter().all(|place| !place.inferred),
            "places: {failure:?}"
        );
    }
    let books = &trace.summary.books;
    ensure!(
        books.failed_seen_pages == failed,
        "the kernel counted {failed}: {books:?}"
    );
    Ok(Outcome::Passed)
}

pub fn thp_address(env: &Env) -> Result<Outcome> {
    let mut worker = Worker::spawn("changing", &["pinned", "huge"])?;
    let pid = worker.pid().to_string();
    worker.wait_ready(SOON)?;
    let range = Report::parse(&worker.request("where", SOON)?)?.range();
    let middle = range.start + HUGE as u64 / 2;
    let address = format!("{middle:#x}-{:#x}", middle + rustix::param::page_size() as u64);
    let args = ["-p", &pid, "--address", &address, "--backend", "exact"];
    let tracing = Tracing::start(&env.tracer, &args)?;
    let truth = Report::parse(&worker.request("move move_pinned 1", SOON)?)?;
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
