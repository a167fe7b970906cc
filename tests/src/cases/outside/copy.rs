//! Pages that are copied because a process writes to them.
//! Input: the workload `copy`, against `tracer --json --kinds cow`.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use super::exact::{SOON, ensure_exact, kinds};
use crate::case::{Env, Outcome};
use crate::cases::moves::ensure_same;
use crate::machine::memory::HUGE;
use crate::tracer::trace::Trace;
use crate::truth::{Report, Reports};
use crate::worker::Worker;
use crate::workloads::copy;

pub fn cow_fork(env: &Env, what: &str, pages: usize, order: u8) -> Result<Outcome> {
    // How long a write waits is also up to what else the machine does.
    Outcome::of_tries(5, "no blackout has the split in it", || {
        fork_and_copy(env, what, pages, order)
    })
}

/// Whether the blackouts show the split of huge pages, if there were any.
fn fork_and_copy(env: &Env, what: &str, pages: usize, order: u8) -> Result<bool> {
    let (trace, truth) = copied(env, what)?;
    let mut shows_split = true;
    for (pid, report) in &truth.0 {
        // Both processes write to one huge page. Each may have to copy pages that the other has copied already: the
        // huge page counts as shared while the other maps a page of it, and until 6.15 always.
        let copied = report.moves.len();
        ensure!(
            copied == pages / 2 || what == "thp" && copied > pages / 2,
            "{copied} of {pages} pages of {pid} were copied, not half of them"
        );
        ensure_same(&trace, *pid, report)?;
        let of_another = trace
            .moves
            .iter()
            .find(|line| report.range().contains(&line.vaddr.0) && line.order != order);
        ensure!(of_another.is_none(), "order: {of_another:?}");
        if what == "thp" && !report.waits.is_empty() {
            shows_split &= is_split_waited_for(&trace, *pid, report);
        }
    }
    // This run has no books of moves, and no event of another process may be reported.
    let pids: Vec<u32> = truth.0.iter().map(|(pid, _)| *pid).collect();
    trace.ensure_only(&pids)?;
    trace.ensure_sound()?;
    Ok(shows_split)
}

/// The first write to a huge page also waits until that is split: most of what it waits longer than the others is part of
/// the blackout. Whether one of the writes shows it.
fn is_split_waited_for(trace: &Trace, pid: u32, report: &Report) -> bool {
    let of_process = trace.moves.iter().filter(|line| line.pid == Some(pid));
    let times = of_process.filter_map(|line| {
        let waited = report.waits.get(&line.vaddr.0)?;
        Some((line.vaddr.0, *waited, line.blackout_ns.unwrap_or(0)))
    });
    let (splits, others): (Vec<_>, Vec<_>) = times.partition(|(vaddr, ..)| vaddr % HUGE as u64 == 0);
    let median = |of: fn(&(u64, u64, u64)) -> u64| {
        let mut values: Vec<u64> = others.iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let (waited, blackout) = (median(|times| times.1), median(|times| times.2));
    println!("waits and blackouts with a split {splits:?}, of the others {waited} and {blackout}");
    let holds = |times: &&(u64, u64, u64)| {
        let (longer_waited, longer_dark) = (times.1.saturating_sub(waited), times.2.saturating_sub(blackout));
        longer_waited > 0 && 2 * longer_dark > longer_waited && times.2 <= times.1
    };
    splits.iter().any(|times| holds(&times))
}

pub fn cow_zero(env: &Env) -> Result<Outcome> {
    let (trace, truth) = copied(env, "zero")?;
    let [(pid, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    let zero: BTreeSet<u64> = report.moves.0.values().map(|moved| moved.old).collect();
    ensure!(
        zero.len() == 1 && report.moves.len() == copy::PAGES,
        "not all from the zero page: {zero:x?}"
    );
    ensure!(
        trace.moves.iter().all(|line| line.order == 0),
        "orders: {:?}",
        trace.moves
    );
    ensure_exact(&trace, *pid, report, &["cow"])?;
    Ok(Outcome::Passed)
}

pub fn cow_file(env: &Env) -> Result<Outcome> {
    let (trace, truth) = copied(env, "file")?;
    let [(pid, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure!(
        report.moves.len() == copy::PAGES / 2,
        "{} pages were copied, not the half that had been read",
        report.moves.len()
    );
    ensure_exact(&trace, *pid, report, &["cow"])?;
    Ok(Outcome::Passed)
}

fn copied(env: &Env, what: &str) -> Result<(Trace, Reports)> {
    let mut worker = Worker::spawn("copy", &[what])?;
    let pid = worker.pid().to_string();
    worker.wait_ready(SOON)?;
    let (truth, trace) = Trace::during(&env.tracer, &kinds(&pid, "cow"), &mut worker, "write", SOON)?;
    for line in &trace.moves {
        ensure!(line.reason == "cow", "reason: {line:?}");
        ensure!(Some(line.actor_pid) == line.pid, "actor: {line:?}");
    }
    worker.exit(SOON)?;
    Ok((trace, truth))
}
