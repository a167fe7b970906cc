//! Reused process numbers, and processes that end while their pages move: no event may be reported for a wrong process.
//! Input: the workload `churn` and its log, against `tracer --json`.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::moves::ensure_same;
use crate::churn_log::Lives;
use crate::tracer::lines::{Hex, MoveLine};
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::Report;
use crate::worker::Worker;

const LONG: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_mins(1);

/// The requirements for a backend.
struct Ordeal {
    backend: &'static str,
    /// The number of lives in each of the two families, and the duration of the longer ones, ms.
    lives: [&'static str; 2],
    /// Fewer pages and owners than these prove little.
    enough: (u64, usize),
}

const EXACT: Ordeal = Ordeal {
    backend: "exact",
    lives: ["150", "20"],
    enough: (800, 50),
};
/// This backend looks for the owner a moment after the move. It finds few owners that live only for a moment, and has
/// to report the others as unknown.
const TRACEPOINT: Ordeal = Ordeal {
    backend: "tracepoint",
    lives: ["60", "100"],
    enough: (100, 10),
};
/// The number of process numbers that are reused at least.
const REUSED: usize = 10;
const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };

pub const CASES: &[Case] = &[
    Case {
        name: "churn/all",
        what: "-a while processes with few numbers start, exec and exit, and their pages move: every event has the right owner",
        needs: NEEDS,
        run: |env| churn(env, false, &EXACT),
    },
    Case {
        name: "churn/all_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| churn(env, false, &TRACEPOINT),
    },
    Case {
        name: "churn/children",
        what: "the same with -p and its future children",
        needs: NEEDS,
        run: |env| churn(env, true, &EXACT),
    },
    Case {
        name: "churn/children_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| churn(env, true, &TRACEPOINT),
    },
    Case {
        name: "churn/exiting",
        what: "-a while a process is killed in the middle of a call that moves its pages: pages that move after its end are reported as its own",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Everybody, &[], "exact"),
    },
    Case {
        name: "churn/exiting_tracepoint",
        what: "the same with the tracepoint backend, which never reports them for another process",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Everybody, &[], "tracepoint"),
    },
    Case {
        name: "churn/exiting_child",
        what: "the same with -p and a child",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Tree, &[], "exact"),
    },
    Case {
        name: "churn/exiting_child_tracepoint",
        what: "the same with -p, a child and the tracepoint backend",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Tree, &[], "tracepoint"),
    },
    Case {
        name: "churn/exiting_heir",
        what: "the same with -a, and another process that has its number by then",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Everybody, &["heir"], "exact"),
    },
    Case {
        name: "churn/exiting_heir_tracepoint",
        what: "the same with -a, another process that has its number by then, and the tracepoint backend",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Everybody, &["heir"], "tracepoint"),
    },
    Case {
        name: "churn/exiting_child_heir",
        what: "the same with -p, a child, and another one that has its number by then",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Tree, &["heir"], "exact"),
    },
    Case {
        name: "churn/exiting_child_heir_tracepoint",
        what: "the same with -p, a child, another one that has its number by then, and the tracepoint backend",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Tree, &["heir"], "tracepoint"),
    },
    Case {
        name: "churn/exiting_wanted",
        what: "the killed process is requested, and not the other one that has its number by then",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Child, &["heir"], "exact"),
    },
    Case {
        name: "churn/exiting_wanted_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Child, &["heir"], "tracepoint"),
    },
    Case {
        name: "churn/exiting_unwanted",
        what: "the other one is requested: nothing is reported for the killed process",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Heir, &["heir"], "exact"),
    },
    Case {
        name: "churn/exiting_unwanted_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| exiting(env, Asked::Heir, &["heir"], "tracepoint"),
    },
];

/// A kernel that preempts programs may skip both copies of one. Such a run reports that moves may be missing. The moves
/// that it does report are compared with the truth, unless processes may be missing, too. One run of these has to be
/// complete.
const RUNS: usize = 3;

fn churn(env: &Env, one_tree: bool, ordeal: &Ordeal) -> Result<Outcome> {
    for run in 0..RUNS {
        let scratch = env.scratch.join(run.to_string());
        fs::create_dir(&scratch).with_context(|| format!("create {}", scratch.display()))?;
        if churn_once(env, &scratch, one_tree, ordeal)? {
            return Ok(Outcome::Passed);
        }
    }
    bail!("the kernel skipped programs in each of {RUNS} runs")
}

/// Returns false if the kernel skipped programs, so that events may be missing.
fn churn_once(env: &Env, scratch: &Path, one_tree: bool, ordeal: &Ordeal) -> Result<bool> {
    let log = scratch.join("lives");
    let [count, stay] = ordeal.lives;
    let mut worker = Worker::spawn("churn", &[&log.to_string_lossy(), count, stay])?;
    worker.wait_ready(SOON)?;
    let pid = worker.pid().to_string();
    let target: &[&str] = if one_tree { &["-p", &pid] } else { &["-a"] };
    let tracing = Tracing::start(&env.tracer, &[target, &["--backend", ordeal.backend]].concat())?;
    let answer = worker.request("go", LONG)?;
    let families: Result<Vec<u32>, _> = answer.split(' ').map(str::parse).collect();
    let mut others = families.with_context(|| format!("no process numbers: {answer:?}"))?;
    others.push(worker.pid());
    let trace = tracing.finish()?;
    let lost = &trace.summary.lost;
    if lost.missed_detail_runs > 0 {
        println!("lost: {lost:?}");
        worker.exit(SOON)?;
        return Ok(false);
    }
    let lives = Lives::read(&log)?;
    let found = lives.check(&trace.moves, one_tree.then_some(&others[..]))?;
    println!(
        "{found:?} of {} lines; {} numbers used again; {lost:?}",
        trace.moves.len(),
        lives.reused()
    );
    worker.exit(SOON)?;
    if lost.missed_runs > 0 {
        return Ok(false);
    }
    let (pages, owners) = ordeal.enough;
    ensure!(
        found.pages >= pages && found.lives >= owners && lives.reused() >= REUSED,
        "nothing is proven: {found:?}"
    );
    if ordeal.backend == "exact" {
        ensure!(found.unowned == 0, "pages of nobody: {found:?}");
        trace.ensure_exact_books()?;
    }
    Ok(true)
}

/// The name of the child, which is its parent's.
const NAME: &str = "tracer-tests";

/// Enough time for tracer to look up the owners of the moved pages, even while other processes keep the CPUs busy.
const ASKING: Duration = Duration::from_secs(1);

/// The process that is requested when a process ends in the middle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Everybody,
    /// The child that is killed, requested by its parent.
    Tree,
    /// The child, requested by its name.
    Child,
    /// The later owner of its number, requested by name.
    Heir,
}

fn exiting(env: &Env, asked: Asked, heir: &[&str], backend: &str) -> Result<Outcome> {
    let mut worker = Worker::spawn("killed", heir)?;
    worker.wait_ready(SOON)?;
    let (parent, child) = (worker.pid(), worker.youngest_child()?);
    let pid = parent.to_string();
    let target: &[&str] = match asked {
        Asked::Everybody => &["-a"],
        Asked::Tree => &["-p", &pid],
        Asked::Child => &["--comm", NAME],
        Asked::Heir => &["--comm", "heir"],
    };
    let tracing = Tracing::start(&env.tracer, &[target, &["--backend", backend]].concat())?;
    let half = worker.request("move", SOON)?;
    ensure!(half == "half", "{half}");
    thread::sleep(ASKING);
    let truth = Report::parse(&worker.request("end", SOON)?)?;
    let trace = tracing.finish()?;
    let pages = truth.range().step_by(rustix::param::page_size()).count();
    ensure!(
        truth.moves.len() == pages,
        "{} of {pages} pages moved: nothing is proven",
        truth.moves.len()
    );
    if backend == "exact" {
        trace.ensure_exact_books()?;
    } else {
        trace.ensure_sound()?;
    }
    worker.exit(SOON)?;
    if asked == Asked::Heir {
        ensure!(
            lines_of(&trace, child, &truth)? == 0,
            "reported for {child}, which was another process"
        );
        return Ok(Outcome::Passed);
    }
    if asked == Asked::Tree {
        trace.ensure_only(&[parent, child])?;
    }
    let middle = truth.start.midpoint(truth.end);
    let of_call = |line: &&MoveLine| line.pid == Some(child) && line.reason == "syscall_or_cpuset";
    for line in trace.moves.iter().filter(of_call) {
        ensure!(line.actor_pid == parent, "actor: {line:?}");
        // Its name is lost with its number.
        let nameless = !heir.is_empty() && line.vaddr.0 >= middle && line.comm.is_none();
        ensure!(nameless || line.comm.as_deref() == Some(NAME), "name: {line:?}");
    }
    if backend == "exact" {
        ensure_same(&trace, child, &truth)?;
        for line in trace.moves.iter().filter(of_call) {
            let (source, verdict) = if line.vaddr.0 < middle {
                ("kernel", "confirmed")
            } else {
                ("kernel_exiting", "process_gone")
            };
            ensure!(line.owner_source.as_deref() == Some(source), "not {source}: {line:?}");
            ensure!(line.verdict == verdict, "not {verdict}: {line:?}");
        }
    } else {
        ensure_same(&trace, child, &truth.within(truth.start..middle))?;
        // A process that has ended can rarely be looked up.
        let over = truth.within(middle..truth.end);
        let told = lines_of(&trace, child, &over)?;
        let dropped = match asked {
            Asked::Everybody => 0,
            _ => trace.summary.lost.unattributed_pages,
        };
        println!("of {} pages {told} reported, {dropped} dropped", over.moves.len());
        ensure!(told + dropped >= over.moves.len() as u64, "pages are missing");
    }
    Ok(Outcome::Passed)
}

/// The number of these pages that are reported as that process's or without an owner, and never as another process's.
fn lines_of(trace: &Trace, pid: u32, truth: &Report) -> Result<u64> {
    let mut pages = 0;
    for line in &trace.moves {
        let Some(moved) = truth.moves.0.get(&line.vaddr.0) else {
            continue;
        };
        if (line.old_pfn, line.new_pfn) == (Some(Hex(moved.old)), Some(Hex(moved.new))) {
            ensure!(line.pid.is_none_or(|owner| owner == pid), "not of {pid}: {line:?}");
            pages += line.pages;
        }
    }
    Ok(pages)
}
