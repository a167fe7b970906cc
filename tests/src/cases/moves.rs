//! Checks that every move that the workload saw is reported with its frames and its owner, and no other.
//! Input: the workload's own pagemap before and after, against `tracer --json`.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::case::{Case, Env, Needs, Outcome, Site};
use crate::tracer::lines::MoveLine;
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::Report;
use crate::worker::Worker;

const SOON: Duration = Duration::from_mins(1);

pub const CASES: &[Case] = &[
    Case {
        name: "moves/compaction",
        what: "compaction of punched memory, the backend that tracer chooses",
        needs: Needs {
            root: true,
            ..Needs::NOTHING
        },
        run: |env| compaction(env, "auto"),
    },
    Case {
        name: "moves/compaction_tracepoint",
        what: "the same with the tracepoint backend, where the other one works too",
        needs: Needs {
            root: true,
            ..Needs::NOTHING
        },
        run: |env| compaction(env, "tracepoint"),
    },
    Case {
        name: "moves/numa_balancing",
        what: "64 MiB filled on node 0 and read from node 1, exact backend",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| numa_balancing(env, "base", "exact"),
    },
    Case {
        name: "moves/numa_balancing_tracepoint",
        what: "the same with the tracepoint backend",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| numa_balancing(env, "base", "tracepoint"),
    },
    Case {
        name: "moves/numa_balancing_thp",
        what: "the same with huge pages, which stay whole",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| numa_balancing(env, "thp", "exact"),
    },
    Case {
        name: "moves/numa_balancing_thp_tracepoint",
        what: "the same with the tracepoint backend",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| numa_balancing(env, "thp", "tracepoint"),
    },
    Case {
        name: "moves/fentry_refused",
        what: "this kernel refuses function hooks: exact fails with the reason, auto goes on without",
        needs: Needs {
            root: true,
            site: Site::Host,
            ..Needs::NOTHING
        },
        run: fentry_refused,
    },
];

/// Checks that the set of (address, old frame, new frame) is the same on both sides.
pub fn ensure_same(trace: &Trace, pid: u32, truth: &Report) -> Result<()> {
    let seen = trace.of(pid, truth.range())?;
    let missed: Vec<_> = truth
        .moves
        .0
        .iter()
        .filter(|(at, moved)| seen.0.get(at) != Some(moved))
        .take(5)
        .collect();
    let invented: Vec<_> = seen
        .0
        .iter()
        .filter(|(at, moved)| truth.moves.0.get(at) != Some(moved))
        .take(5)
        .collect();
    println!("{} pages moved, tracer reported {}", truth.moves.len(), seen.len());
    if let Some(&(&at, _)) = missed.first().or(invented.first()) {
        let frames = [&seen, &truth.moves].map(|moves| moves.0.get(&at));
        let frames: BTreeSet<u64> = frames
            .into_iter()
            .flatten()
            .flat_map(|moved| [moved.old, moved.new])
            .collect();
        let touches = |line: &&MoveLine| {
            let ends = [line.old_pfn, line.new_pfn].into_iter().flatten();
            let mut ends = ends.map(|first| first.0..first.0 + line.pages);
            line.vaddr.0 == at || ends.any(|range| frames.range(range).next().is_some())
        };
        println!("moves of the page at {at:#x}, of its frames, and of their neighbours in a line:");
        trace
            .moves
            .iter()
            .filter(touches)
            .for_each(|line| println!("  {line:x?}"));
        println!("compactions: {:?}", trace.compactions);
    }
    ensure!(
        missed.is_empty() && invented.is_empty(),
        "of {} moves, missed {missed:x?}, invented {invented:x?}; summary {:?}",
        truth.moves.len(),
        trace.summary
    );
    Ok(())
}

/// Fewer moves than this prove little.
const ENOUGH: usize = 100;

/// Whether compaction moves anything depends on where the kernel put the pages, and it stops at the first large folio
/// that finds no room (mm/compaction.c, `compact_zone`). So there are several tries, with more and more memory.
fn compaction(env: &Env, backend: &str) -> Result<Outcome> {
    let most = available_mib()? / 16;
    for doublings in [0, 0, 1, 1, 2, 2, 3, 3] {
        if compact_once(env, backend, (64 << doublings).min(most))? > ENOUGH {
            return Ok(Outcome::Passed);
        }
    }
    bail!("compaction moved next to nothing, eight times: nothing is proven")
}

/// `MemAvailable` of /proc/meminfo, MiB.
fn available_mib() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .context("no MemAvailable")?;
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .context("parse MemAvailable")?;
    Ok(kib >> 10)
}

/// Checks one compaction, and returns how many of the workload's pages it moved.
fn compact_once(env: &Env, backend: &str, mib: u64) -> Result<usize> {
    let mut worker = Worker::spawn("punched", &[&mib.to_string()])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-p", &pid.to_string(), "--backend", backend])?;
    worker.mark(SOON)?;
    // One pass may stop early if others contend for the zone's lock.
    let mut truth = None;
    for _ in 0..10 {
        // Large folios of the page cache are the most likely to find no room.
        fs::write("/proc/sys/vm/drop_caches", "1").context("drop the page cache")?;
        fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
        let seen = Report::parse(&worker.request("look", SOON)?)?;
        let enough = seen.moves.len() > ENOUGH;
        truth = Some(seen);
        if enough {
            break;
        }
    }
    let truth = truth.context("compacted not even once")?;
    let trace = tracing.finish()?;
    ensure_same(&trace, pid, &truth)?;
    trace.ensure_only(&[pid])?;
    trace.ensure_sound()?;
    let exact = trace.stderr.contains("exact (fentry)");
    if exact {
        trace.ensure_exact_books()?;
    }
    for line in trace.moves.iter().filter(|line| truth.range().contains(&line.vaddr.0)) {
        ensure!(line.reason == "compaction", "reason: {line:?}");
        ensure!(line.pid == Some(pid), "owner: {line:?}");
        // Only this case's write to compact_memory or the kernel's daemon compacts here; on a bare machine, others may.
        let actor = line.actor_comm.as_deref().unwrap_or_default();
        ensure!(
            !env.in_vm || line.actor_pid == std::process::id() || actor.starts_with("kcompactd"),
            "actor, not {}: {line:?}",
            std::process::id()
        );
        ensure!(
            line.verdict == "confirmed" || line.verdict == "moved_again",
            "verdict: {line:?}"
        );
        ensure!(line.blackout_ns.is_some_and(|nanos| nanos > 0), "blackout: {line:?}");
        ensure!(line.owner_source.as_deref() == Some("kernel"), "owner_source: {line:?}");
        let vma = line.vma.as_ref().with_context(|| format!("vma: {line:?}"))?;
        ensure!(vma.start <= line.vaddr && line.vaddr < vma.end, "vma: {line:?}");
    }
    worker.exit(SOON)?;
    Ok(truth.moves.len())
}

/// Balances as eagerly as the kernel allows (kernel/sched/fair.c, kernel/sched/debug.c; 6.1 to 7.3).
pub fn balance_eagerly() -> Result<()> {
    let debug = "/sys/kernel/debug/sched/numa_balancing";
    for (knob, value) in [
        ("scan_delay_ms", "50"),
        ("scan_period_min_ms", "50"),
        ("scan_period_max_ms", "200"),
        ("scan_size_mb", "256"),
    ] {
        fs::write(format!("{debug}/{knob}"), value).with_context(|| format!("set {knob}"))?;
    }
    fs::write("/proc/sys/kernel/numa_balancing", "1").context("switch NUMA balancing on")
}

fn numa_balancing(env: &Env, pages: &str, backend: &str) -> Result<Outcome> {
    balance_eagerly()?;
    let outcome = balance_once(env, pages, backend);
    fs::write("/proc/sys/kernel/numa_balancing", "0").context("switch NUMA balancing off")?;
    outcome
}

fn balance_once(env: &Env, pages: &str, backend: &str) -> Result<Outcome> {
    let mut worker = Worker::spawn("balanced", &["64", pages])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-p", &pid.to_string(), "--backend", backend])?;
    worker.mark(SOON)?;
    let truth = Report::parse(&worker.request("balance", SOON)?)?;
    let trace = tracing.finish()?;
    let pages = (64 << 20) / rustix::param::page_size();
    ensure!(
        truth.moves.len() == pages,
        "balancing moved {} of {pages} pages: nothing is proven",
        truth.moves.len()
    );
    ensure_same(&trace, pid, &truth)?;
    trace.ensure_only(&[pid])?;
    if backend == "exact" {
        trace.ensure_exact_books()?;
    } else {
        trace.ensure_sound()?;
    }
    for line in trace.moves.iter().filter(|line| truth.range().contains(&line.vaddr.0)) {
        ensure!(line.reason == "numa_misplaced", "reason: {line:?}");
        ensure!((line.old_node, line.new_node) == (Some(0), Some(1)), "nodes: {line:?}");
        // A hint fault migrates in the task that touched the page.
        ensure!(
            (line.pid, line.actor_pid) == (Some(pid), pid),
            "owner and actor: {line:?}"
        );
        ensure!(
            line.actor_tid == pid && line.cpu == 1,
            "the thread on CPU 1 did it: {line:?}"
        );
        ensure!(line.verdict == "confirmed", "verdict: {line:?}");
        ensure!(line.comm.as_deref() == Some("tracer-tests"), "comm: {line:?}");
    }
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

fn fentry_refused(env: &Env) -> Result<Outcome> {
    // The check has two sides: if this kernel allows function hooks, the VM suite's cases have shown that they work.
    let probe = std::process::Command::new(&env.tracer)
        .args(["-a", "-d", "0.1", "--backend", "exact"])
        .output()
        .context("run tracer")?;
    let stderr = String::from_utf8_lossy(&probe.stderr);
    if probe.status.success() {
        return Ok(Outcome::NotApplicable("this kernel allows function hooks".into()));
    }
    ensure!(probe.status.code() == Some(2), "exit code {:?}: {stderr}", probe.status);
    ensure!(
        stderr.contains("cannot attach f") && stderr.contains("--backend tracepoint"),
        "what and what to do: {stderr}"
    );
    let trace = Tracing::start(&env.tracer, &["-a", "-d", "0.2"])?.join()?;
    ensure!(
        trace.stderr.contains("going on with the tracepoint backend"),
        "{}",
        trace.stderr
    );
    Ok(Outcome::Passed)
}
