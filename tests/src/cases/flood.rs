//! Floods of process events that another user makes: moves keep their room in the kernel and their time in tracer.
//! Input: the workload `flood` beside one whose pages move, against `tracer -a --json`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::moves::ensure_same;
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::{Move, Moves, Report};
use crate::worker::Worker;

const SOON: Duration = Duration::from_mins(1);
/// The ring of the default size was full in a fraction of this time when renames were in it.
const FLOOD: Duration = Duration::from_secs(2);
const PROCESSES: &str = "16";
/// Fewer moves than this prove little.
const ENOUGH: usize = 100;
const NEEDS: Needs = Needs {
    root: true,
    ..Needs::NOTHING
};
/// The name of the process whose pages move.
const NAME: &str = "steady";

pub const CASES: &[Case] = &[
    Case {
        name: "flood/renames",
        what: "-a while 16 processes of another user rename themselves without end: no move is lost, nor another event",
        needs: NEEDS,
        run: |env| flood(env, &RENAMES, "auto"),
    },
    Case {
        name: "flood/renames_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| flood(env, &RENAMES, "tracepoint"),
    },
    Case {
        name: "flood/lives",
        what: "-a while 16 processes of another user fork and exec without end: no move is lost, lost process events are counted",
        needs: NEEDS,
        run: |env| flood(env, &LIVES, "auto"),
    },
    Case {
        name: "flood/lives_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| flood(env, &LIVES, "tracepoint"),
    },
    Case {
        name: "flood/overflow",
        what: "lives, and rings of 4 KiB: lost process events are counted, and moves that are reported have the right names",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| flood(env, &OVERFLOW, "exact"),
    },
    Case {
        name: "flood/overflow_tracepoint",
        what: "the same with the tracepoint backend",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| flood(env, &OVERFLOW, "tracepoint"),
    },
];

/// A flood, and what tracer makes of it.
struct Flood {
    kind: &'static str,
    /// The size of the ring of moves; that of process events is a quarter of it.
    ring: &'static str,
    /// The time between two rounds of moves.
    pause: Duration,
    /// Process events must be lost.
    overflows: bool,
    /// The number of renames that were merged, or of processes that were made, that is a flood.
    least: u64,
}

const RENAMES: Flood = Flood {
    kind: "renames",
    ring: "16M",
    pause: Duration::ZERO,
    overflows: false,
    least: 10_000,
};
const LIVES: Flood = Flood {
    kind: "lives",
    // In an emulated VM; a machine makes 10,000 and more.
    least: 100,
    ..RENAMES
};
const OVERFLOW: Flood = Flood {
    ring: "4K",
    pause: Duration::from_millis(100),
    overflows: true,
    ..LIVES
};

fn flood(env: &Env, flood: &Flood, backend: &str) -> Result<Outcome> {
    if env.nodes > 1 {
        let moved = flood_once(env, flood, backend, &["changing", NAME], between_nodes)?;
        ensure!(moved > ENOUGH, "{moved} pages moved: nothing is proven");
        return Ok(Outcome::Passed);
    }
    // Compaction is for the machine itself. It moves something only by chance, from more and more memory.
    for mib in ["64", "64", "128", "128", "256", "256", "512", "512"] {
        if flood_once(env, flood, backend, &["punched", mib, NAME], compaction)? > ENOUGH {
            return Ok(Outcome::Passed);
        }
    }
    bail!("compaction moved next to nothing, eight times: nothing is proven")
}

/// Makes a workload's pages move until a moment, with pauses of that length.
type Movement = fn(&mut Worker, Instant, Duration) -> Result<Report>;

/// Returns the number of pages that moved.
fn flood_once(env: &Env, flood: &Flood, backend: &str, workload: &[&str], moves: Movement) -> Result<usize> {
    let mut worker = Worker::spawn(workload[0], &workload[1..])?;
    worker.wait_ready(SOON)?;
    let forked = forks()?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", backend, "--ring-size", flood.ring])?;
    let mut flooding = Worker::spawn("flood", &[flood.kind, PROCESSES])?;
    flooding.wait_ready(SOON)?;
    let truth = moves(&mut worker, Instant::now() + FLOOD, flood.pause)?;
    flooding.exit(SOON)?;
    let trace = tracing.finish()?;
    let lost = &trace.summary.lost;
    let forked = forks()? - forked;
    println!(
        "{forked} processes made; {lost:?}; cost: {:?}",
        trace.stderr.lines().last()
    );
    ensure_named(&trace, worker.pid(), &truth)?;
    if !flood.overflows {
        ensure!(lost.mapping_pages == 0, "moves were lost: {lost:?}");
        ensure_same(&trace, worker.pid(), &truth)?;
        // A kernel that preempts programs may skip both copies of one: that is counted, too.
        ensure!(
            lost.events == lost.process_events + lost.missed_runs,
            "others were lost: {lost:?}"
        );
    }
    ensure!(flood.overflows == (lost.process_events > 0), "process events: {lost:?}");
    if lost.events == 0 {
        ensure!(trace.status.success(), "tracer: {}; {}", trace.status, trace.stderr);
        ensure!(trace.summary.books.balanced, "the books: {:?}", trace.summary.books);
    } else {
        ensure!(trace.status.code() == Some(1), "exit code: {}", trace.status);
    }
    let flooded = if flood.kind == "renames" {
        lost.merged_renames
    } else {
        forked
    };
    ensure!(flooded >= flood.least, "no flood: {flooded} of {}", flood.least);
    worker.exit(SOON)?;
    Ok(truth.moves.len())
}

/// Checks that each move of these pages has the name of its owner.
fn ensure_named(trace: &Trace, pid: u32, truth: &Report) -> Result<()> {
    let lines = trace.moves.iter().filter(|line| line.pid == Some(pid));
    for line in lines.filter(|line| truth.range().contains(&line.vaddr.0)) {
        ensure!(line.comm.as_deref() == Some(NAME), "name: {line:?}");
        let by_itself = line.actor_pid == pid;
        ensure!(
            !by_itself || line.actor_comm.as_deref() == Some(NAME),
            "actor: {line:?}"
        );
    }
    Ok(())
}

/// The number of processes and threads that this machine has made (`processes` of /proc/stat).
fn forks() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let mut lines = stat.lines();
    let line = lines.find_map(|line| line.strip_prefix("processes "));
    line.context("no processes in /proc/stat")?
        .parse()
        .context("parse them")
}

/// Pages that move from one node to the other and back.
fn between_nodes(worker: &mut Worker, end: Instant, pause: Duration) -> Result<Report> {
    let mut whole = Report::parse(&worker.request("where", SOON)?)?;
    for node in [1, 0].into_iter().cycle() {
        let moved = Report::parse(&worker.request(&format!("move move_pages {node}"), SOON)?)?;
        whole.moves = joined(whole.moves, moved.moves);
        if node == 1 && Instant::now() >= end {
            break;
        }
        thread::sleep(pause);
    }
    Ok(whole)
}

/// The moves of the same pages, one after the other.
fn joined(before: Moves, after: Moves) -> Moves {
    let mut moves = before.0;
    for (vaddr, moved) in after.0 {
        let old = moves.get(&vaddr).map_or(moved.old, |first| first.old);
        moves.insert(vaddr, Move { old, ..moved });
    }
    moves.retain(|_, moved| moved.old != moved.new);
    Moves(moves)
}

/// Pages that compaction moves, without pauses.
fn compaction(worker: &mut Worker, end: Instant, _pause: Duration) -> Result<Report> {
    worker.mark(SOON)?;
    while Instant::now() < end {
        // Large folios of the page cache are the most likely to find no room.
        fs::write("/proc/sys/vm/drop_caches", "1").context("drop the page cache")?;
        fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
    }
    Report::parse(&worker.request("look", SOON)?)
}
