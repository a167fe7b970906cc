//! Folios that cannot be moved because others use them: under writeback, locked, or in a VMA that is locked.
//! Input: the workloads `writeback`, `locked` and `contended`, which report the frames of those folios.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::expected::SOON;
use crate::case::{Env, Outcome};
use crate::machine::fuse;
use crate::tracer::lines::{FailureLine, MoveLine};
use crate::tracer::trace::{Trace, Tracing};
use crate::worker::Worker;
use crate::workloads::writeback;

/// Returns the workload's answer to its order, and the trace of that time.
fn traced(env: &Env, workload: &str, args: &[&str]) -> Result<(Vec<u64>, Trace)> {
    let mut worker = Worker::spawn(workload, args)?;
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", "exact"])?;
    let answer = worker.request("go", SOON)?;
    let trace = tracing.finish()?;
    worker.exit(SOON)?;
    let numbers: Result<Vec<u64>, _> = answer.split(' ').map(str::parse).collect();
    let numbers = numbers.with_context(|| format!("no numbers: {answer:?}"))?;
    trace.ensure_exact_books()?;
    Ok((numbers, trace))
}

pub fn writeback(env: &Env) -> Result<Outcome> {
    const STATE: &str = "writeback";
    if env.version() < (6, 12) {
        return Ok(Outcome::NotApplicable("DAMON's migrate_cold came with 6.11".into()));
    }
    if !fs::exists(writeback::MODULE)? {
        return Ok(Outcome::NotApplicable(
            "the initramfs has no module null_blk of this kernel".to_owned(),
        ));
    }
    let (numbers, trace) = traced(env, "writeback", &[])?;
    let frames = BTreeSet::from_iter(numbers);
    let mut seen = BTreeSet::new();
    for failure in &trace.failures {
        let first = failure.pfn.context("no frame")?.0;
        let (mine, others): (Vec<u64>, Vec<u64>) = (first..first + failure.pages).partition(|pfn| frames.contains(pfn));
        if mine.is_empty() {
            ensure!(failure.cause != STATE, "invented: {failure:?}");
            continue;
        }
        ensure!(others.is_empty(), "pages of others: {failure:?}");
        seen.extend(mine);
        ensure!(failure.cause == STATE && failure.inferred, "cause: {failure:?}");
        ensure!(failure.flags.iter().any(|flag| flag == STATE), "flags: {failure:?}");
        ensure!(
            (failure.reason.as_str(), failure.mode.as_str()) == ("damon", "async"),
            "{failure:?}"
        );
    }
    println!("{} frames, {} failures", frames.len(), trace.failures.len());
    ensure!(
        seen == frames,
        "{} of {} frames: {:?}",
        seen.len(),
        frames.len(),
        trace.summary.books
    );
    Ok(Outcome::Passed)
}

pub fn locked(env: &Env) -> Result<Outcome> {
    if env.version() < (6, 12) {
        return Ok(Outcome::NotApplicable(
            "kcompactd of 6.1 waits for the lock, where later ones leave a page without content".to_owned(),
        ));
    }
    if !fuse::is_there()? {
        return Ok(Outcome::NotApplicable(
            "neither this kernel nor the initramfs has fuse".to_owned(),
        ));
    }
    // Compaction may find enough pages elsewhere.
    Outcome::of_tries(5, "compaction met no locked page", || locked_once(env))
}

/// Whether locked pages were reported.
fn locked_once(env: &Env) -> Result<bool> {
    const STATE: &str = "locked";
    let (numbers, trace) = traced(env, "locked", &[])?;
    let [from, until, frames @ ..] = &numbers[..] else {
        bail!("no times: {numbers:?}")
    };
    let frames: BTreeSet<u64> = frames.iter().copied().collect();
    let is_state = |failure: &FailureLine| failure.flags.iter().any(|flag| flag == STATE);
    let mut seen = BTreeSet::new();
    for failure in &trace.failures {
        let first = failure.pfn.context("no frame")?.0;
        let held = (*from..*until).contains(&failure.ts_ns);
        // Before and after that time, the frames belong to others.
        if !held || !frames.contains(&first) {
            ensure!(failure.cause != STATE || is_state(failure), "invented: {failure:?}");
            continue;
        }
        let kind = (failure.pages, failure.reason.as_str(), failure.owners.len());
        ensure!(kind == (1, "compaction", 0), "{failure:?}");
        // The kernel requests a page for the copy before it takes the lock.
        if failure.cause == "no_target" {
            ensure!(!failure.inferred && failure.errno == Some(12), "no target: {failure:?}");
            continue;
        }
        ensure!(
            failure.cause == STATE && failure.inferred && is_state(failure),
            "cause: {failure:?}"
        );
        ensure!(
            (failure.attempts, failure.errno) == (0, None),
            "it was never unmapped: {failure:?}"
        );
        seen.insert(first);
    }
    let moved = trace
        .unmapped
        .iter()
        .filter(|line| (*from..*until).contains(&line.ts_ns));
    let moved = moved
        .filter_map(|line| line.old_pfn)
        .find(|pfn| frames.contains(&pfn.0));
    ensure!(moved.is_none(), "locked, and moved: {moved:?}");
    println!(
        "{} of {} frames, {} failures, {} passes of compaction",
        seen.len(),
        frames.len(),
        trace.failures.len(),
        trace.compactions.len()
    );
    Ok(!seen.is_empty())
}

pub fn still_mapped(env: &Env, who: &str) -> Result<Outcome> {
    const HUGE_ORDER: u8 = 9;
    let (numbers, trace) = traced(env, "contended", &[who])?;
    let [parent, child, address, stayed, frames @ ..] = &numbers[..] else {
        bail!("no address: {numbers:?}")
    };
    let pids: BTreeSet<u64> = [*parent, *child].into_iter().filter(|pid| *pid != 0).collect();
    // The page had these frames one after the other.
    for pid in &pids {
        let mine = |line: &&MoveLine| line.vaddr.0 == *address && line.pid.map(u64::from) == Some(*pid);
        let mut moves: Vec<_> = trace.moves.iter().filter(mine).collect();
        moves.sort_by_key(|line| line.ts_ns);
        let path = moves
            .iter()
            .map(|line| (line.old_pfn.map(|pfn| pfn.0), line.new_pfn.map(|pfn| pfn.0)));
        let expected = frames
            .windows(2)
            .map(|pair| (pair.first().copied(), pair.last().copied()));
        ensure!(expected.eq(path), "of {pid}, not {frames:x?}: {moves:?}");
    }
    let at = |failure: &&FailureLine| failure.owners.iter().any(|place| place.vaddr.0 == *address);
    let failures: Vec<_> = trace.failures.iter().filter(at).collect();
    println!("{} moves, stayed {stayed} times", frames.len() - 1);
    ensure!(
        failures.len() as u64 == *stayed,
        "it stayed {stayed} times: {failures:?}"
    );
    for failure in &failures {
        ensure!(failure.pages == 1 << HUGE_ORDER, "size: {failure:?}");
        ensure!(
            failure.pfn.is_some_and(|pfn| frames.contains(&pfn.0)) && failure.errno.is_none() && failure.attempts == 0,
            "{failure:?}"
        );
        ensure!(
            failure.cause == "still_mapped" && !failure.inferred,
            "cause: {failure:?}"
        );
        // The lock is that of the parent's VMA. The child's mapping is reported if it had been unmapped before.
        let owners: BTreeSet<u64> = failure.owners.iter().map(|place| u64::from(place.pid)).collect();
        ensure!(
            owners.contains(parent) && owners.is_subset(&pids) && owners.len() == failure.owners.len(),
            "owners: {failure:?}"
        );
        ensure!(
            failure
                .owners
                .iter()
                .all(|place| !place.inferred && place.vma.is_some()),
            "places: {failure:?}"
        );
    }
    Ok(Outcome::Passed)
}
