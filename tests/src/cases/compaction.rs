//! Runs of compaction: who ran them, over which zone, for how long, and what they moved.
//! Input: memory with holes, and the kernel asked to mend it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::child::Worker;
use crate::provoke;
use crate::tracing::{CompactionLine, Tracing};

const SOON: Duration = Duration::from_mins(1);
const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };

pub const CASES: &[Case] = &[
    Case {
        name: "compaction/asked_for",
        what: "compact_memory: one run for each zone, by the writer, and its moves are those of the books",
        needs: NEEDS,
        run: |env| asked_for(env, "exact"),
    },
    Case {
        name: "compaction/asked_for_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| asked_for(env, "tracepoint"),
    },
    Case {
        name: "compaction/direct",
        what: "huge pages where there is no room for them: the allocating task waits, and is named",
        needs: NEEDS,
        run: |env| Outcome::of_tries(5, "no allocation waited for a run", || direct(env)),
    },
];

fn vmstat(name: &str) -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat").context("read /proc/vmstat")?;
    let line = vmstat
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no {name}"))?.parse().context("parse it")
}

/// Zones that manage pages (/proc/zoneinfo, mm/vmstat.c): each is compacted.
fn zones() -> Result<usize> {
    let zoneinfo = fs::read_to_string("/proc/zoneinfo").context("read /proc/zoneinfo")?;
    let managed = zoneinfo.lines().filter_map(|line| line.trim().strip_prefix("managed"));
    Ok(managed.filter(|pages| pages.trim() != "0").count())
}

fn ensure_likely(run: &CompactionLine) -> Result<()> {
    ensure!(run.duration_ns > 0 && run.duration_ns < run.ts_ns, "duration: {run:?}");
    ensure!(run.node.is_some_and(|node| node < 2), "node: {run:?}");
    ensure!(
        ["DMA", "DMA32", "Normal", "Movable"].contains(&&*run.zone),
        "zone: {run:?}"
    );
    ensure!(!run.result.starts_with("result_"), "result: {run:?}");
    Ok(())
}

fn asked_for(env: &Env, backend: &str) -> Result<Outcome> {
    let mut worker = Worker::spawn("punched", &["64"])?;
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", backend])?;
    fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
    let trace = tracing.finish()?;
    trace.ensure_sound()?;
    worker.exit(SOON)?;
    let own = std::process::id();
    let runs: Vec<_> = trace.compactions.iter().filter(|run| run.actor_pid == own).collect();
    let zones = zones()?;
    ensure!(runs.len() == zones, "{} runs over {zones} zones: {runs:?}", runs.len());
    for run in &runs {
        ensure_likely(run)?;
        ensure!(
            run.sync && !run.direct && !run.proactive && run.order.is_none(),
            "{run:?}"
        );
    }
    let moved: u64 = trace.compactions.iter().map(|run| run.moved_pages).sum();
    ensure!(moved > 0, "nothing moved: nothing is proven");
    ensure!(
        Some(moved) == trace.summary.books.kernel_pages,
        "{moved} moved in runs: {:?}",
        trace.summary.books
    );
    Ok(Outcome::Passed)
}

/// Whether there was a direct run. The kernel counts a stall also where it then finds that no zone is worth compacting.
fn direct(env: &Env) -> Result<bool> {
    let mut worker = Worker::spawn("punched", &["100"])?;
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a"])?;
    let before = vmstat("compact_stall")?;
    provoke::direct_compaction()?;
    let stalls = vmstat("compact_stall")? - before;
    let trace = tracing.finish()?;
    // kcompactd works at the same time: a kernel that preempts programs skips some of their runs.
    let lost = &trace.summary.lost;
    ensure!(lost.events + lost.missed_detail_runs == 0, "lost: {lost:?}");
    worker.exit(SOON)?;
    let own = std::process::id();
    // khugepaged's own wish for huge pages makes it wait, too.
    let is_daemon =
        |run: &CompactionLine, name: &str| run.actor_comm.as_deref().is_some_and(|comm| comm.starts_with(name));
    let ours = |run: &&CompactionLine| !is_daemon(run, "khugepaged");
    let direct: Vec<_> = trace.compactions.iter().filter(ours).filter(|run| run.direct).collect();
    println!(
        "{stalls} stalls, {} direct runs of {}; {lost:?}",
        direct.len(),
        trace.compactions.len()
    );
    let any = !direct.is_empty();
    for run in direct {
        ensure_likely(run)?;
        ensure!(run.order == Some(9) && !run.proactive, "{run:?}");
        ensure!(run.actor_pid == own, "not {own}: {run:?}");
    }
    for run in trace.compactions.iter().filter(ours).filter(|run| run.actor_pid != own) {
        ensure!(is_daemon(run, "kcompactd") && !run.direct, "{run:?}");
    }
    Ok(any)
}
