//! Frames that change without migrate_pages: each change is reported, with its frames and its owner, and no other.
//! Input: workloads that cause them and read their own pagemap, against `tracer --json --kinds`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::moves::ensure_same;
use crate::child::Worker;
use crate::tracing::{MoveLine, Trace, Tracing};
use crate::truth::{Report, Reports};
use crate::workloads::{collapser, copied, merged, swapped};

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
        name: "outside/cow_fork",
        what: "pages shared by fork, written by the parent and by the child: who copies moves, who is left alone does not",
        needs: Needs::VM,
        run: |env| cow_fork(env, "fork", copied::PAGES, 0),
    },
    Case {
        name: "outside/cow_hugetlb",
        what: "the same with hugetlb pages",
        needs: Needs::VM,
        run: |env| cow_fork(env, "hugetlb", copied::HUGE_PAGES << 9, 9),
    },
    Case {
        name: "outside/cow_zero",
        what: "pages that were only read, written to: from the zero page's frame to their own",
        needs: Needs::VM,
        run: cow_zero,
    },
    Case {
        name: "outside/ksm",
        what: "KSM: merged, written to, moved to another node while merged, unmerged",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: ksm,
    },
    Case {
        name: "outside/swap",
        what: "pages that go to swap and come back: each leaves its frame, and comes back from it to another",
        needs: Needs::VM,
        run: swap,
    },
    Case {
        name: "outside/swap_slot_reused",
        what: "slots that pages of nobody who was asked for took meanwhile: a page comes back from the frame that it had",
        needs: Needs::VM,
        run: swap_slot_reused,
    },
    Case {
        name: "outside/hooks",
        what: "a run without --kinds hangs nothing on the way of page faults, unmapping and moves; with them all attach",
        needs: Needs::VM,
        run: hooks,
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

fn kinds<'a>(pid: &'a str, kinds: &'a str) -> [&'a str; 6] {
    ["-p", pid, "--backend", "exact", "--kinds", kinds]
}

fn cow_fork(env: &Env, what: &str, pages: usize, order: u8) -> Result<Outcome> {
    let (trace, truth) = copied(env, what)?;
    for (pid, report) in &truth.0 {
        ensure!(
            report.moves.len() == pages / 2,
            "{} pages of {pid} were copied, not half of them",
            report.moves.len()
        );
        ensure_same(&trace, *pid, report)?;
        let of_another = trace
            .moves
            .iter()
            .find(|line| report.range().contains(&line.vaddr.0) && line.order != order);
        ensure!(of_another.is_none(), "order: {of_another:?}");
    }
    // The books of moves are not drawn up, and nothing else may have been seen of these two.
    let pids: Vec<u32> = truth.0.iter().map(|(pid, _)| *pid).collect();
    trace.ensure_only(&pids)?;
    trace.ensure_sound()?;
    Ok(Outcome::Passed)
}

fn cow_zero(env: &Env) -> Result<Outcome> {
    let (trace, truth) = copied(env, "zero")?;
    let [(pid, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    let zero: BTreeSet<u64> = report.moves.0.values().map(|moved| moved.old).collect();
    ensure!(
        zero.len() == 1 && report.moves.len() == copied::PAGES,
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

fn copied(env: &Env, what: &str) -> Result<(Trace, Reports)> {
    let mut worker = Worker::spawn("copied", &[what])?;
    let pid = worker.pid().to_string();
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &kinds(&pid, "cow"))?;
    worker.send("mark")?;
    worker.read_line(SOON)?;
    worker.send("write")?;
    let truth = Reports::parse(&worker.read_line(SOON)?)?;
    let trace = tracing.finish()?;
    for line in &trace.moves {
        ensure!(line.reason == "cow", "reason: {line:?}");
        ensure!(Some(line.actor_pid) == line.pid, "actor: {line:?}");
    }
    worker.exit(SOON)?;
    Ok((trace, truth))
}

fn ksm(env: &Env) -> Result<Outcome> {
    if !fs::exists("/sys/kernel/mm/ksm/run")? {
        return Ok(Outcome::NotApplicable("this kernel has no KSM".to_owned()));
    }
    let mut worker = Worker::spawn("merged", &[])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let merged = merged::PAGES - merged::WRITTEN;
    let steps = [
        // At least one page of each content stays where it is.
        ("merge", "ksm", "ksm_merge", merged::PAGES - merged::CONTENTS),
        ("write", "ksm", "ksm_unmerge", merged::WRITTEN),
        ("move", "move,ksm", "syscall_or_cpuset", merged::PAGES),
        ("unmerge", "ksm,cow", "ksm_unmerge", merged),
    ];
    for (order, wanted, reason, pages) in steps {
        let tracing = Tracing::start(&env.tracer, &kinds(&pid.to_string(), wanted))?;
        worker.send(order)?;
        let truth = Report::parse(&worker.read_line(SOON)?)?;
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

fn swap(env: &Env) -> Result<Outcome> {
    if !fs::exists(swapped::MODULE)? {
        return Ok(Outcome::NotApplicable(
            "the initramfs has no module brd of this kernel".to_owned(),
        ));
    }
    let mut worker = Worker::spawn("swapped", &[])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &kinds(&pid.to_string(), "swap"))?;
    let truth = act(&mut worker, "swap")?;
    let trace = tracing.finish()?;
    // A page may get the frame back that it had; nearly all do not.
    ensure!(
        truth.moves.len() > swapped::PAGES / 2,
        "{} pages moved",
        truth.moves.len()
    );
    trace.ensure_only(&[pid])?;
    ensure_same(&trace, pid, &truth)?;
    trace.ensure_sound()?;
    let mut gone = BTreeSet::new();
    for line in trace.moves.iter().filter(|line| truth.range().contains(&line.vaddr.0)) {
        match line.reason.as_str() {
            "swap_out" => {
                ensure!(line.new_pfn.is_none() && line.new_node.is_none(), "{line:?}");
                let left = line.old_pfn.map(|pfn| pfn.0);
                for page in 0..line.pages {
                    let vaddr = line.vaddr.0 + page * rustix::param::page_size() as u64;
                    ensure!(gone.insert(vaddr), "{vaddr:#x} left twice: {line:?}");
                    let was = truth.moves.0.get(&vaddr).map(|moved| moved.old);
                    ensure!(
                        was.is_none() || was == left.map(|pfn| pfn + page),
                        "{vaddr:#x}: {line:?}"
                    );
                }
            }
            "swap_in" => ensure!(line.verdict == "confirmed" && line.actor_pid == pid, "{line:?}"),
            other => bail!("reason {other}: {line:?}"),
        }
    }
    ensure!(
        gone.len() == swapped::PAGES,
        "{} of {} pages left",
        gone.len(),
        swapped::PAGES
    );
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

fn swap_slot_reused(env: &Env) -> Result<Outcome> {
    if !fs::exists(swapped::MODULE)? {
        return Ok(Outcome::NotApplicable(
            "the initramfs has no module brd of this kernel".to_owned(),
        ));
    }
    let mut worker = Worker::spawn("swapped", &["reuse"])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let args = ["--comm", swapped::ASKED_FOR, "--backend", "exact", "--kinds", "swap"];
    let tracing = Tracing::start(&env.tracer, &args)?;
    let truth = act(&mut worker, "swap")?;
    let trace = tracing.finish()?;
    worker.exit(SOON)?;
    trace.ensure_only(&[pid])?;
    trace.ensure_sound()?;
    let back = |line: &&MoveLine| line.reason == "swap_in" && truth.range().contains(&line.vaddr.0);
    let mut last: BTreeMap<u64, &MoveLine> = BTreeMap::new();
    for line in trace.moves.iter().filter(back) {
        let of = last.entry(line.vaddr.0).or_insert(line);
        if of.ts_ns < line.ts_ns {
            *of = line;
        }
    }
    let mut known = 0;
    for (vaddr, moved) in &truth.moves.0 {
        let line = last
            .get(vaddr)
            .with_context(|| format!("{vaddr:#x} did not come back"))?;
        ensure!(
            line.new_pfn.map(|pfn| pfn.0) == Some(moved.new),
            "{vaddr:#x} {moved:x?}: {line:?}"
        );
        if let Some(old) = line.old_pfn {
            known += 1;
            ensure!(old.0 == moved.old, "{vaddr:#x} {moved:x?}: {line:?}");
        }
    }
    println!("{} pages came back, {known} from a known frame", truth.moves.len());
    ensure!(known > 0, "no slot was used again: nothing is proven");
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
    trace.ensure_sound()?;
    // Without `move` among the kinds there is nothing to hold against the kernel's count.
    let imbalance = trace.summary.books.imbalance;
    ensure!(
        matches!(imbalance, None | Some(0)),
        "the books: {:?}",
        trace.summary.books
    );
    for line in trace.moves.iter().filter(|line| truth.range().contains(&line.vaddr.0)) {
        ensure!(reasons.contains(&line.reason.as_str()), "reason: {line:?}");
        ensure!(line.owner_source.as_deref() == Some("kernel"), "owner: {line:?}");
        ensure!(line.verdict == "confirmed", "verdict: {line:?}");
    }
    Ok(())
}

fn hooks(env: &Env) -> Result<Outcome> {
    let attached = |args: &[&str]| -> Result<BTreeSet<String>> {
        let mut command = std::process::Command::new(&env.tracer);
        let output = command
            .args(["-v", "-a", "-d", "0.1", "--backend", "exact"])
            .args(args)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success() && !said.contains("cannot attach"),
            "{}: {said}",
            output.status
        );
        let labels = said.lines().filter_map(|line| line.strip_prefix("tracer: attached "));
        Ok(labels.map(str::to_owned).collect())
    };
    let costly = ["rmap", "do_wp_page", "do_swap_page", "try_to_unmap_one", "try_to_merge"];
    let is_costly = |label: &&String| costly.iter().any(|part| label.contains(part));
    let default = attached(&[])?;
    ensure!(default.contains("fentry/collapse_huge_page"), "{default:?}");
    ensure!(!default.iter().any(|label| is_costly(&label)), "{default:?}");
    let all = attached(&["--kinds", "move,collapse,ksm,cow,swap"])?;
    for part in costly {
        ensure!(all.iter().any(|label| label.contains(part)), "no {part}: {all:?}");
    }
    let moves = attached(&["--kinds", "move"])?;
    ensure!(
        moves.is_subset(&default) && !moves.contains("fentry/collapse_huge_page"),
        "{moves:?}"
    );
    Ok(Outcome::Passed)
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
