//! Frames that change without migrate_pages: each change is reported, with its frames and its owner, and no other.
//! Input: workloads that cause them and read their own pagemap, against `tracer --json --kinds`.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::moves::ensure_same;
use crate::child::Worker;
use crate::tracing::{Trace, Tracing};
use crate::truth::Report;
use crate::workloads::collapser;

const SOON: Duration = Duration::from_mins(2);

pub const CASES: &[Case] = &[
    Case {
        name: "outside/madv_collapse",
        what: "MADV_COLLAPSE of base pages with gaps: each page that had a frame goes to its place in the huge page",
        needs: Needs::VM,
        run: |env| collapse(env, "madvise"),
    },
    Case {
        name: "outside/khugepaged",
        what: "the same by khugepaged",
        needs: Needs::VM,
        run: |env| collapse(env, "khugepaged"),
    },
    Case {
        name: "outside/refused",
        what: "the tracepoint backend refuses kinds that it cannot see, and takes move",
        needs: Needs::VM,
        run: refused,
    },
];

fn collapse(env: &Env, by: &str) -> Result<Outcome> {
    let mut worker = Worker::spawn("collapser", &[by])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    // Without --kinds: collapses are shown by default.
    let tracing = Tracing::start(&env.tracer, &["-p", &pid.to_string(), "--backend", "exact"])?;
    let truth = act(&mut worker, "collapse")?;
    let trace = tracing.finish()?;
    let pages = ((truth.end - truth.start) as usize) / rustix::param::page_size();
    ensure!(
        truth.moves.len() == pages / 512 * collapser::WITH_FRAME,
        "{} of {pages} pages: not those of the gaps' pattern",
        truth.moves.len()
    );
    ensure_exact(&trace, pid, &truth, &["collapse"])?;
    for line in trace.moves.iter().filter(|line| truth.range().contains(&line.vaddr.0)) {
        ensure!(line.order == 9, "order: {line:?}");
        ensure!(line.blackout_ns.is_some_and(|ns| ns > 0), "blackout: {line:?}");
        let itself = line.actor_pid == pid;
        ensure!(itself == (by == "madvise"), "actor: {line:?}");
        ensure!(
            itself || line.actor_comm.as_deref() == Some("khugepaged"),
            "actor: {line:?}"
        );
    }
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

/// Tells the workload to look, then to act.
fn act(worker: &mut Worker, order: &str) -> Result<Report> {
    worker.send("mark")?;
    worker.read_line(SOON)?;
    worker.send(order)?;
    Report::parse(&worker.read_line(SOON)?)
}

/// The moves are the truth's, they are of these reasons, and nothing is lost.
fn ensure_exact(trace: &Trace, pid: u32, truth: &Report, reasons: &[&str]) -> Result<()> {
    trace.ensure_only(&[pid])?;
    ensure_same(trace, pid, truth)?;
    trace.ensure_exact_books()?;
    for line in trace.moves.iter().filter(|line| truth.range().contains(&line.vaddr.0)) {
        ensure!(reasons.contains(&line.reason.as_str()), "reason: {line:?}");
        ensure!(line.owner_source.as_deref() == Some("kernel"), "owner: {line:?}");
        ensure!(line.verdict == "confirmed", "verdict: {line:?}");
    }
    Ok(())
}

fn refused(env: &Env) -> Result<Outcome> {
    let run = |kinds: &str| {
        std::process::Command::new(&env.tracer)
            .args(["-a", "-d", "0.1", "--backend", "tracepoint", "--kinds", kinds])
            .output()
    };
    let outcome = run("move,collapse")?;
    let said = String::from_utf8_lossy(&outcome.stderr);
    ensure!(outcome.status.code() == Some(2), "{}: {said}", outcome.status);
    ensure!(said.contains("--kinds move"), "what to do is not said: {said}");
    let outcome = run("move")?;
    ensure!(outcome.status.success(), "{}", outcome.status);
    Ok(Outcome::Passed)
}
