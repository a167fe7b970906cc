//! Passes of compaction: the task that ran them, their zone, their duration, and the pages that they moved.
//! Input: memory with holes, and requests to compact it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::moves::ensure_same;
use crate::churn_log::now;
use crate::machine::provoke::{self, Knob};
use crate::tracer::lines::{CompactionLine, MoveLine};
use crate::tracer::trace::Tracing;
use crate::truth::{Report, vmstat};
use crate::worker::Worker;

const SOON: Duration = Duration::from_mins(1);
const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };

/// Memory that has hardly been used yet leaves hardly anything to compact.
const NOTHING_MOVED: &str = "no run moved a page";

/// A process that took huge pages may have woken kcompactd, too.
const NOT_MENDED: &str = "proactive runs moved next to nothing";

pub const CASES: &[Case] = &[
    Case {
        name: "compaction/asked_for",
        what: "compact_memory: one run for each zone, by the writer, and its moves equal those of the books",
        needs: NEEDS,
        run: |env| Outcome::of_tries(5, NOTHING_MOVED, || asked_for(env, "exact")),
    },
    Case {
        name: "compaction/asked_for_tracepoint",
        what: "the same with the tracepoint backend",
        needs: Needs {
            root: true,
            ..Needs::NOTHING
        },
        run: |env| Outcome::of_tries(5, NOTHING_MOVED, || asked_for(env, "tracepoint")),
    },
    Case {
        name: "compaction/direct",
        what: "requests for huge pages without room for them: the allocating task waits, and is named",
        needs: NEEDS,
        run: |env| Outcome::of_tries(5, "no allocation waited for a run", || direct(env)),
    },
    Case {
        name: "compaction/proactive",
        what: "kcompactd compacts on its own initiative: its runs show that, and its moves equal the truth",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, NOT_MENDED, || proactive(env, "exact")),
    },
    Case {
        name: "compaction/proactive_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, NOT_MENDED, || proactive(env, "tracepoint")),
    },
    Case {
        name: "compaction/deferred",
        what: "requests for huge pages while nothing can be moved: the number of deferred runs equals the kernel's own tracing",
        needs: NEEDS,
        run: |env| deferred(env, "exact"),
    },
    Case {
        name: "compaction/deferred_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| deferred(env, "tracepoint"),
    },
];

/// The number of zones that manage pages (/proc/zoneinfo, mm/vmstat.c): each is compacted.
fn zones() -> Result<usize> {
    let zoneinfo = fs::read_to_string("/proc/zoneinfo").context("read /proc/zoneinfo")?;
    let managed = zoneinfo.lines().filter_map(|line| line.trim().strip_prefix("managed"));
    Ok(managed.filter(|pages| pages.trim() != "0").count())
}

fn ensure_likely(run: &CompactionLine) -> Result<()> {
    ensure!(run.duration_ns > 0 && run.duration_ns < run.ts_ns, "duration: {run:?}");
    let is_node = |node| Path::new(&format!("/sys/devices/system/node/node{node}")).exists();
    ensure!(run.node.is_some_and(is_node), "node: {run:?}");
    ensure!(
        ["DMA", "DMA32", "Normal", "Movable"].contains(&&*run.zone),
        "zone: {run:?}"
    );
    ensure!(!run.result.starts_with("result_"), "result: {run:?}");
    Ok(())
}

/// Whether anything moved.
fn asked_for(env: &Env, backend: &str) -> Result<bool> {
    let mut worker = Worker::spawn("punched", &["64"])?;
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", backend])?;
    fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
    let trace = tracing.finish()?;
    worker.exit(SOON)?;
    let lost = &trace.summary.lost;
    // On a bare machine, there may be more events than tracer can process in time.
    if !env.in_vm && lost.events + lost.not_asked_pages > 0 {
        return Ok(false);
    }
    trace.ensure_sound()?;
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
    let kernel = trace.summary.books.kernel_pages.context("the kernel does not count")?;
    // On a bare machine, other processes may move pages, too.
    ensure!(
        moved == kernel || !env.in_vm && moved < kernel,
        "{moved} moved in runs: {:?}",
        trace.summary.books
    );
    println!("{} runs moved {moved} pages", trace.compactions.len());
    Ok(moved > 0)
}

/// Whether there was a direct run. The kernel also counts a stall if it then finds no zone that is worth compacting.
fn direct(env: &Env) -> Result<bool> {
    let mut worker = Worker::spawn("punched", &["100"])?;
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a"])?;
    let before = vmstat("compact_stall")?;
    provoke::direct_compaction()?;
    let stalls = vmstat("compact_stall")? - before;
    let trace = tracing.finish()?;
    // kcompactd works at the same time, and a kernel that preempts programs skips some of their runs.
    let lost = &trace.summary.lost;
    ensure!(lost.events + lost.missed_detail_runs == 0, "lost: {lost:?}");
    worker.exit(SOON)?;
    let own = std::process::id();
    // khugepaged's own requests for huge pages make it wait, too.
    let is_daemon =
        |run: &CompactionLine, name: &str| run.actor_comm.as_deref().is_some_and(|comm| comm.starts_with(name));
    let ours = |run: &&CompactionLine| !is_daemon(run, "khugepaged");
    // Memory is short then: anybody's request for a few pages in a row may wait, too.
    let (direct, small): (Vec<_>, Vec<_>) = trace
        .compactions
        .iter()
        .filter(ours)
        .filter(|run| run.direct)
        .partition(|run| run.order == Some(9));
    println!(
        "{stalls} stalls, {} direct runs for huge pages and {} for others, of {}; {lost:?}",
        direct.len(),
        small.len(),
        trace.compactions.len()
    );
    let any = !direct.is_empty();
    for run in direct {
        ensure_likely(run)?;
        ensure!(!run.proactive, "{run:?}");
        ensure!(run.actor_pid == own, "not {own}: {run:?}");
    }
    for run in small {
        ensure_likely(run)?;
        ensure!(run.order.is_some_and(|order| 0 < order && order < 9), "{run:?}");
    }
    for run in trace.compactions.iter().filter(ours).filter(|run| !run.direct) {
        ensure!(is_daemon(run, "kcompactd"), "{run:?}");
    }
    Ok(any)
}

/// Fewer moves than this prove little.
const ENOUGH: usize = 256;
/// The size of the memory with holes.
const CROWDED_MIB: &str = "128";
/// kcompactd looks twice a second (`HPAGE_FRAG_CHECK_INTERVAL_MSEC`, mm/compaction.c, 6.1 to 7.3).
const MENDING: Duration = Duration::from_secs(5);

/// Whether enough pages moved that kcompactd had not compacted before the workload looked.
fn proactive(env: &Env, backend: &str) -> Result<bool> {
    let proactiveness = Knob::set("/proc/sys/vm/compaction_proactiveness", "0")?;
    let mut worker = Worker::spawn("crowded", &[CROWDED_MIB])?;
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", backend])?;
    worker.send("crowd")?;
    worker.wait_ready(SOON)?;
    // The workload's requests for huge pages have woken kcompactd.
    settle()?;
    worker.mark(SOON)?;
    let marked = now();
    proactiveness.change("100")?;
    thread::sleep(MENDING);
    proactiveness.change("0")?;
    settle()?;
    let truth = Report::parse(&worker.request("look", SOON)?)?;
    let mut trace = tracing.finish()?;
    let pid = worker.pid();
    worker.exit(SOON)?;
    let runs = trace.compactions.iter().filter(|run| run.proactive);
    let moved: u64 = runs.clone().map(|run| run.moved_pages).sum();
    println!(
        "{} proactive runs of {}, which moved {moved} pages; {:?}",
        runs.clone().count(),
        trace.compactions.len(),
        trace.summary.lost
    );
    for run in runs {
        ensure_likely(run)?;
        let name = run.actor_comm.as_deref().unwrap_or_default();
        ensure!(name.starts_with("kcompactd") && run.order.is_none(), "{run:?}");
        ensure!(run.ts_ns >= marked, "before it was to: {run:?}");
    }
    if backend == "exact" {
        trace.ensure_exact_books()?;
    } else {
        trace.ensure_sound()?;
    }
    let all: u64 = trace.compactions.iter().map(|run| run.moved_pages).sum();
    ensure!(
        Some(all) == trace.summary.books.kernel_pages,
        "{all} moved in runs: {:?}",
        trace.summary.books
    );
    trace.moves.retain(|line| line.ts_ns >= marked);
    ensure_same(&trace, pid, &truth)?;
    let of_worker = |line: &&MoveLine| line.pid == Some(pid) && truth.range().contains(&line.vaddr.0);
    for line in trace.moves.iter().filter(of_worker) {
        let actor = line.actor_comm.as_deref().unwrap_or_default();
        ensure!(
            line.reason == "compaction" && actor.starts_with("kcompactd"),
            "{line:?}"
        );
    }
    Ok(truth.moves.len() >= ENOUGH && moved >= ENOUGH as u64)
}

/// Waits until nothing has moved for a while.
fn settle() -> Result<()> {
    const STILL: Duration = Duration::from_secs(2);
    let mut moved = None;
    loop {
        let so_far = Some(vmstat("pgmigrate_success")?);
        if so_far == moved {
            return Ok(());
        }
        moved = so_far;
        thread::sleep(STILL);
    }
}

/// The number of requests for a huge page for which there is no room.
const IN_VAIN: u32 = 20;

/// The movable memory of others fits into a part of the holes. So compaction ends because it finds no more pages, and
/// not because free memory is missing.
const STUCK_MIB: &str = "256";

fn deferred(env: &Env, backend: &str) -> Result<Outcome> {
    let mut worker = Worker::spawn("crowded", &[STUCK_MIB, "stuck"])?;
    worker.wait_ready(SOON)?;
    let counting = Deferrals::count()?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", backend])?;
    worker.send("crowd")?;
    worker.wait_ready(SOON)?;
    let before = Deferrals::so_far()?;
    provoke::huge_pages_in_vain(IN_VAIN)?;
    let within = Deferrals::so_far()? - before;
    let trace = tracing.finish()?;
    let all = Deferrals::so_far()?;
    drop(counting);
    worker.exit(SOON)?;
    let told = trace.summary.compaction.deferred;
    let mut runs: BTreeMap<(bool, bool, &str, &str), usize> = BTreeMap::new();
    for run in &trace.compactions {
        *runs.entry((run.direct, run.sync, &run.zone, &run.result)).or_default() += 1;
    }
    println!(
        "{told} reported, of {within} to {all}; {runs:?}; {:?}",
        trace.summary.lost
    );
    trace.ensure_sound()?;
    ensure!(within > 0, "nothing was put off: nothing is proven");
    // Runs of a program that the kernel skipped are reported as skipped.
    ensure!(
        told <= all && told + trace.summary.lost.missed_detail_runs >= within,
        "{told} deferrals, not {within} to {all}"
    );
    Ok(Outcome::Passed)
}

/// The kernel's own tracing of deferred compaction. It is switched off and unmounted on drop.
struct Deferrals;

impl Deferrals {
    const TRACEFS: &str = "/sys/kernel/tracing";
    const TRACE: &str = "/sys/kernel/tracing/trace";
    const SWITCH: &str = "/sys/kernel/tracing/events/compaction/mm_compaction_deferred/enable";

    /// Counts from now on.
    fn count() -> Result<Self> {
        mount("tracefs", Self::TRACEFS, "tracefs", MountFlags::empty(), None).context("mount tracefs")?;
        let counting = Self;
        provoke::write(Self::TRACE, "")?;
        provoke::write(Self::SWITCH, "1")?;
        Ok(counting)
    }

    fn so_far() -> Result<u64> {
        let trace = fs::read_to_string(Self::TRACE).context("read the trace")?;
        Ok(trace.matches(" mm_compaction_deferred: ").count() as u64)
    }
}

impl Drop for Deferrals {
    fn drop(&mut self) {
        // If this fails, the counting continues and harms nobody.
        let _ = provoke::write(Self::SWITCH, "0");
        let _ = unmount(Self::TRACEFS, UnmountFlags::DETACH);
    }
}
