//! Pages that go to swap and come back.
//! Input: the workload `swap`, against `tracer --json --kinds swap`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::exact::{SOON, act, kinds};
use crate::case::{Env, Outcome};
use crate::cases::moves::ensure_same;
use crate::tracer::lines::MoveLine;
use crate::tracer::trace::Tracing;
use crate::worker::Worker;
use crate::workloads::swap;

pub fn swap(env: &Env, what: &str) -> Result<Outcome> {
    if what == "mthp" && env.version() < (6, 12) {
        return Ok(Outcome::NotApplicable(
            "anonymous folios of such orders came with 6.8".to_owned(),
        ));
    }
    if !fs::exists(swap::MODULE)? {
        return Ok(Outcome::NotApplicable(
            "the initramfs has no module brd of this kernel".to_owned(),
        ));
    }
    let mut worker = Worker::spawn("swap", &[what])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &kinds(&pid.to_string(), "swap"))?;
    let truth = act(&mut worker, "swap")?;
    let trace = tracing.finish()?;
    let pages = ((truth.end - truth.start) as usize) / rustix::param::page_size();
    // A page may get its old frame back; nearly all get another.
    ensure!(
        truth.moves.len() > pages / 2,
        "{} of {pages} pages moved",
        truth.moves.len()
    );
    trace.ensure_only(&[pid])?;
    ensure_same(&trace, pid, &truth)?;
    trace.ensure_sound()?;
    let mut gone = BTreeSet::new();
    let mut orders: BTreeMap<(&str, u8), u64> = BTreeMap::new();
    for line in trace.moves.iter().filter(|line| truth.range().contains(&line.vaddr.0)) {
        *orders.entry((&line.reason, line.order)).or_default() += line.pages;
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
    ensure!(gone.len() == pages, "{} of {pages} pages left", gone.len());
    let whole = |reason| orders.keys().any(|(of, order)| *of == reason && *order > 0);
    ensure!(
        whole("swap_out") == (what != "base") && (what != "mthp" || whole("swap_in")),
        "pages by reason and order: {orders:?}: nothing is proven of large folios"
    );
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

pub fn swap_slot_reused(env: &Env) -> Result<Outcome> {
    if !fs::exists(swap::MODULE)? {
        return Ok(Outcome::NotApplicable(
            "the initramfs has no module brd of this kernel".to_owned(),
        ));
    }
    let mut worker = Worker::spawn("swap", &["reuse"])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let args = ["--comm", swap::ASKED_FOR, "--backend", "exact", "--kinds", "swap"];
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
