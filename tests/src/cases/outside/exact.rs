//! The command line, the order to a workload, and what must be reported: shared by the cases of this topic.
//! Input: a workload that reads its own pagemap, against `tracer --json`.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cases::moves::ensure_same;
use crate::tracer::lines::MoveLine;
use crate::tracer::trace::Trace;
use crate::truth::Report;
use crate::worker::Worker;

pub const SOON: Duration = Duration::from_mins(2);

/// The arguments with which a process is traced for these kinds of changes.
pub fn kinds<'a>(pid: &'a str, kinds: &'a str) -> [&'a str; 6] {
    ["-p", pid, "--backend", "exact", "--kinds", kinds]
}

/// Tells the workload to look, then to act.
pub fn act(worker: &mut Worker, order: &str) -> Result<Report> {
    worker.send("mark")?;
    worker.read_line(SOON)?;
    worker.send(order)?;
    Report::parse(&worker.read_line(SOON)?)
}

/// The moves are the truth's and of nobody else, they are of these reasons, and nothing is lost.
pub fn ensure_exact(trace: &Trace, pid: u32, truth: &Report, reasons: &[&str]) -> Result<()> {
    trace.ensure_only(&[pid])?;
    ensure_exact_of(trace, pid, truth, reasons)
}

/// The same of one of several.
pub fn ensure_exact_of(trace: &Trace, pid: u32, truth: &Report, reasons: &[&str]) -> Result<()> {
    ensure_same(trace, pid, truth)?;
    trace.ensure_sound()?;
    // Without `move` among the kinds there is nothing to hold against the kernel's count.
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
