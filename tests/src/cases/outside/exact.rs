//! The command line, the order to a workload, and the check of the reported moves. The cases of this topic share this.
//! Input: a workload that reads its own pagemap, against `tracer --json`.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cases::moves::ensure_same;
use crate::tracer::lines::MoveLine;
use crate::tracer::trace::Trace;
use crate::truth::Report;
use crate::worker::Worker;

pub const SOON: Duration = Duration::from_mins(2);

/// The arguments that trace a process for these kinds of changes.
pub fn kinds<'a>(pid: &'a str, kinds: &'a str) -> [&'a str; 6] {
    ["-p", pid, "--backend", "exact", "--kinds", kinds]
}

/// Makes the workload record its pages, then act.
pub fn act(worker: &mut Worker, order: &str) -> Result<Report> {
    worker.mark(SOON)?;
    Report::parse(&worker.request(order, SOON)?)
}

/// Checks that the moves equal the truth and belong to this process, that their reasons are these, and that nothing is
/// lost.
pub fn ensure_exact(trace: &Trace, pid: u32, truth: &Report, reasons: &[&str]) -> Result<()> {
    trace.ensure_only(&[pid])?;
    ensure_exact_of(trace, pid, truth, reasons)
}

/// The same check for one of several processes.
pub fn ensure_exact_of(trace: &Trace, pid: u32, truth: &Report, reasons: &[&str]) -> Result<()> {
    ensure_same(trace, pid, truth)?;
    trace.ensure_sound()?;
    // Without `move` among the kinds, there is nothing to compare with the kernel's count.
    let imbalance = trace.summary.books.imbalance;
    ensure!(
        matches!(imbalance, None | Some(0)),
        "the books: {:?}",
        trace.summary.books
    );
    let mine = |line: &&MoveLine| line.pid == Some(pid) && truth.range().contains(&line.vaddr.0);
    for line in trace.moves.iter().filter(mine) {
        ensure!(reasons.contains(&line.reason.as_str()), "reason: {line:?}");
        ensure!(line.owner_source.as_deref() == Some("kernel"), "owner: {line:?}");
        ensure!(line.verdict == "confirmed", "verdict: {line:?}");
    }
    Ok(())
}
