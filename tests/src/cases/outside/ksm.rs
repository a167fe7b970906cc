//! Pages that KSM merges, of one process and of two, and the result when they are moved and written to.
//! Input: the workload `ksm`, against `tracer --json --kinds ksm`.

use std::fs;

use anyhow::{Result, ensure};

use super::exact::{SOON, ensure_exact, ensure_exact_of, kinds};
use crate::case::{Env, Outcome};
use crate::cases::kinds::ensure_numbered;
use crate::cases::moves::ensure_same;
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::{Report, Reports};
use crate::worker::Worker;
use crate::workloads::ksm;

/// The reason why there is nothing to prove on a kernel without KSM.
fn without_ksm() -> Result<Option<Outcome>> {
    let there = fs::exists("/sys/kernel/mm/ksm/run")?;
    Ok((!there).then(|| Outcome::NotApplicable("this kernel has no KSM".to_owned())))
}

pub fn ksm(env: &Env) -> Result<Outcome> {
    if let Some(outcome) = without_ksm()? {
        return Ok(outcome);
    }
    let mut worker = Worker::spawn("ksm", &[])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let merged = ksm::PAGES - ksm::WRITTEN;
    let steps = [
        // At least one page of each content stays in its place.
        ("merge", "ksm", "ksm_merge", ksm::PAGES - ksm::CONTENTS),
        ("write", "ksm", "ksm_unmerge", ksm::WRITTEN),
        ("move", "move,ksm", "syscall_or_cpuset", ksm::PAGES),
        ("unmerge", "ksm,cow", "ksm_unmerge", merged),
    ];
    for (order, wanted, reason, pages) in steps {
        let tracing = Tracing::start(&env.tracer, &kinds(&pid.to_string(), wanted))?;
        let truth = Report::parse(&worker.request(order, SOON)?)?;
        let trace = tracing.finish()?;
        println!("{order}:");
        ensure!(
            truth.moves.len() == pages,
            "{order}: {} pages, not {pages}",
            truth.moves.len()
        );
        ensure_exact(&trace, pid, &truth, &[reason])?;
        for line in trace.moves.iter().filter(|line| line.reason == "ksm_merge") {
            ensure!(line.actor_comm.as_deref() == Some("ksmd"), "actor: {line:?}");
        }
    }
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

/// Two processes with the same contents; the second merges its pages with those of the first.
struct Pair([Worker; 2]);

impl Pair {
    fn start() -> Result<Self> {
        let mut pair = [Worker::spawn("ksm", &[])?, Worker::spawn("ksm", &[])?];
        pair.iter_mut().try_for_each(|worker| worker.wait_ready(SOON))?;
        Ok(Self(pair))
    }

    fn pids(&self) -> String {
        format!("{},{}", self.0[0].pid(), self.0[1].pid())
    }

    /// One process acts, the other only looks. Returns the reports of both, in that order.
    fn step(&mut self, actor: usize, order: &str) -> Result<Reports> {
        let [one, two] = &mut self.0;
        let (actor, witness) = if actor == 0 { (one, two) } else { (two, one) };
        ensure!(witness.request("wait", SOON)? == "waiting", "does not wait");
        let acted = Report::parse(&actor.request(order, SOON)?)?;
        let seen = Report::parse(&witness.request("done", SOON)?)?;
        Ok(Reports(vec![(actor.pid(), acted), (witness.pid(), seen)]))
    }

    fn exit(self) -> Result<()> {
        self.0.into_iter().try_for_each(|worker| worker.exit(SOON))
    }
}

/// The number of mappings of each KSM page that two processes share.
const SHARERS: usize = 2 * ksm::PAGES / ksm::CONTENTS;

pub fn ksm_shared(env: &Env) -> Result<Outcome> {
    if let Some(outcome) = without_ksm()? {
        return Ok(outcome);
    }
    let mut pair = Pair::start()?;
    let left = ksm::PAGES - ksm::WRITTEN;
    let steps = [
        (0, "merge", "ksm", "ksm_merge", [ksm::PAGES - ksm::CONTENTS, 0]),
        (1, "merge", "ksm", "ksm_merge", [ksm::PAGES, 0]),
        (0, "move", "move,ksm", "syscall_or_cpuset", [ksm::PAGES, ksm::PAGES]),
        (1, "write", "ksm", "ksm_unmerge", [ksm::WRITTEN, 0]),
        (1, "unmerge", "ksm,cow", "ksm_unmerge", [left, 0]),
    ];
    for (actor, order, wanted, reason, pages) in steps {
        let tracing = Tracing::start(&env.tracer, &kinds(&pair.pids(), wanted))?;
        let truth = pair.step(actor, order)?;
        let trace = tracing.finish()?;
        println!("{order}:");
        let pids: Vec<u32> = truth.0.iter().map(|(pid, _)| *pid).collect();
        trace.ensure_only(&pids)?;
        for ((pid, report), pages) in truth.0.iter().zip(pages) {
            ensure!(
                report.moves.len() == pages,
                "{order}: {} pages of {pid}, not {pages}",
                report.moves.len()
            );
            ensure_exact_of(&trace, *pid, report, &[reason])?;
        }
        if order == "move" {
            ensure_numbered(&trace.moves, &truth, reason, SHARERS)?;
        }
    }
    pair.exit()?;
    Ok(Outcome::Passed)
}

/// A child's inherited pages are in none of KSM's own lists: the kernel finds them by the parent's (mm/ksm.c,
/// `rmap_walk_ksm`, `search_new_forks`, 6.1 to 7.3).
pub fn ksm_forked(env: &Env, backend: &str) -> Result<Outcome> {
    if let Some(outcome) = without_ksm()? {
        return Ok(outcome);
    }
    let mut worker = Worker::spawn("ksm", &["forked"])?;
    worker.wait_ready(SOON)?;
    let args = ["-p", &worker.pid().to_string(), "--backend", backend];
    let (truth, trace) = Trace::during(&env.tracer, &args, &mut worker, "move", SOON)?;
    ensure_moved(&trace, &truth)?;
    if backend == "exact" {
        trace.ensure_exact_books()?;
        ensure_numbered(&trace.moves, &truth, "syscall_or_cpuset", SHARERS)?;
    }
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

pub fn ksm_shared_tracepoint(env: &Env) -> Result<Outcome> {
    if let Some(outcome) = without_ksm()? {
        return Ok(outcome);
    }
    let mut pair = Pair::start()?;
    pair.step(0, "merge")?;
    pair.step(1, "merge")?;
    let tracing = Tracing::start(&env.tracer, &["-p", &pair.pids(), "--backend", "tracepoint"])?;
    let truth = pair.step(0, "move")?;
    let trace = tracing.finish()?;
    ensure_moved(&trace, &truth)?;
    pair.exit()?;
    Ok(Outcome::Passed)
}

/// Checks that all pages of all sharers moved, and no others.
fn ensure_moved(trace: &Trace, truth: &Reports) -> Result<()> {
    let pids: Vec<u32> = truth.0.iter().map(|(pid, _)| *pid).collect();
    trace.ensure_only(&pids)?;
    for (pid, report) in &truth.0 {
        ensure!(
            report.moves.len() == ksm::PAGES,
            "{} pages of {pid} moved: nothing is proven",
            report.moves.len()
        );
        ensure_same(trace, *pid, report)?;
    }
    trace.ensure_sound()
}
