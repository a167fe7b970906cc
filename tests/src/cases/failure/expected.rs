//! Runs a workload under tracer, and checks which pages are reported as failed. The cases of failures share this.
//! Input: the workload `mover`, which reads its own pagemap, against `tracer --json`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::case::Env;
use crate::tracer::lines::FailureLine;
use crate::tracer::trace::Trace;
use crate::truth::{Report, Reports};
use crate::worker::Worker;

pub const SOON: Duration = Duration::from_mins(1);

/// The addresses of the pages that did not move.
pub fn stayed(truth: &Report) -> BTreeSet<u64> {
    let pages = truth.range().step_by(rustix::param::page_size());
    pages.filter(|vaddr| !truth.moves.0.contains_key(vaddr)).collect()
}

/// Checks that every address that did not move has one failure, and that no other has one. Compaction runs on its own
/// when there is little room, and may fail, too.
pub fn ensure_failed(trace: &Trace, pid: u32, truth: &Report) -> Result<Vec<FailureLine>> {
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

/// Runs the workload `mover` under the exact backend. Returns the pid, the workload's reports and the trace. With
/// `of_youngest`, the child that was forked last is traced, and only its report is returned.
pub fn traced(env: &Env, mover: &[&str], of_youngest: bool) -> Result<(u32, Reports, Trace)> {
    let mut worker = Worker::spawn("mover", mover)?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let asked = if of_youngest { worker.youngest_child()? } else { pid };
    let args = ["-p", &asked.to_string(), "--backend", "exact"];
    let (truth, trace) = Trace::during(&env.tracer, &args, &mut worker, "move", SOON)?;
    worker.exit(SOON)?;
    let truth = if of_youngest { truth.only_of(asked)? } else { truth };
    Ok((pid, truth, trace))
}
