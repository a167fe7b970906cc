//! Folios for which the target node has no free page.
//! Input: the workload `mover`, which fills the node first.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

use super::expected::{ensure_failed, stayed, traced};
use crate::case::{Env, Outcome};
use crate::cases::moves::{balance_eagerly, ensure_same};
use crate::machine::memory::HUGE;
use crate::tracer::lines::FailureLine;

/// Whether the node was full.
pub fn hugetlb(env: &Env, pages: &str) -> Result<bool> {
    let (pid, truth, trace) = traced(env, &[pages, "move_hugetlb_to_full_node", "4"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure_same(&trace, pid, report)?;
    trace.ensure_exact_books()?;
    if report.moves.len() != 0 {
        return Ok(false);
    }
    let mine = |failure: &&FailureLine| failure.reason == "syscall_or_cpuset";
    let failures: Vec<&FailureLine> = trace.failures.iter().filter(mine).collect();
    let [failure] = &failures[..] else {
        bail!("one huge page: {failures:?}, {:?}", trace.summary.books)
    };
    ensure!(
        failure.pages == 512 && (failure.cause == "no_target" || failure.cause == "not_tried"),
        "cause: {failure:?}"
    );
    let [place] = &failure.owners[..] else {
        bail!("one owner: {failure:?}")
    };
    ensure!(
        place.inferred && place.vaddr.0 == report.end - HUGE as u64,
        "place: {failure:?}"
    );
    Ok(true)
}

/// Whether the first page of a huge page stayed.
pub fn thp(env: &Env) -> Result<bool> {
    let (pid, truth, trace) = traced(env, &["thp", "mbind_to_full_node", "32"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure_same(&trace, pid, report)?;
    trace.ensure_exact_books()?;
    let mine = |failure: &&FailureLine| {
        let mut places = failure.owners.iter();
        failure.reason == "mempolicy_mbind" && places.any(|place| report.range().contains(&place.vaddr.0))
    };
    let failures: Vec<&FailureLine> = trace.failures.iter().filter(mine).collect();
    let mut told = BTreeSet::new();
    for failure in &failures {
        ensure!(
            failure.cause == "no_target" || failure.cause == "not_tried",
            "cause: {failure:?}"
        );
        for place in &failure.owners {
            let end = place.vaddr.0 + failure.pages * rustix::param::page_size() as u64;
            told.extend((place.vaddr.0..end).step_by(rustix::param::page_size()));
        }
    }
    let stayed = stayed(report);
    let silent: Vec<_> = stayed.difference(&told).collect();
    ensure!(
        silent.is_empty(),
        "{} pages stayed and were not reported: {:x?}",
        silent.len(),
        silent.first()
    );
    // The first page of a huge page was its folio: only this page could be taken for one that was unmapped to be moved.
    let is_first = |failure: &&&FailureLine| {
        let mut places = failure.owners.iter();
        failure.pages == 1 && places.any(|place| place.vaddr.0.is_multiple_of(HUGE as u64))
    };
    let firsts = failures.iter().filter(is_first);
    let firsts = firsts.filter(|failure| failure.cause == "not_tried").count();
    println!("{} failures, {firsts} first pages that were not tried", failures.len());
    Ok(firsts > 0)
}

pub fn base(env: &Env) -> Result<Outcome> {
    let (pid, truth, trace) = traced(env, &["base", "move_to_full_node", "32"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure_same(&trace, pid, report)?;
    trace.ensure_exact_books()?;
    let failures = ensure_failed(&trace, pid, report)?;
    let of = |cause: &str| failures.iter().filter(|failure| failure.cause == cause).count();
    println!("{} without a target, {} not tried", of("no_target"), of("not_tried"));
    ensure!(of("no_target") > 0, "the node was not full: nothing is proven");
    ensure!(
        of("no_target") + of("not_tried") == failures.len(),
        "other causes: {:?}",
        failures
            .iter()
            .find(|failure| failure.cause != "no_target" && failure.cause != "not_tried")
    );
    for failure in &failures {
        ensure!(
            failure.inferred == (failure.cause == "not_tried"),
            "inferred: {failure:?}"
        );
        if failure.cause == "no_target" {
            ensure!(failure.errno == Some(12) && failure.attempts > 0, "error: {failure:?}");
        }
    }
    Ok(Outcome::Passed)
}

pub fn shared(env: &Env) -> Result<Outcome> {
    let (_, truth, trace) = traced(env, &["fork_shared", "move_to_full_node", "32"], true)?;
    let [(child, report)] = &truth.0[..] else {
        bail!("one child was expected")
    };
    let child = *child;
    ensure_same(&trace, child, report)?;
    trace.ensure_exact_books()?;
    let failures = ensure_failed(&trace, child, report)?;
    let inferred = |failure: &FailureLine| failure.owners.iter().any(|place| place.inferred);
    ensure!(
        failures.iter().any(inferred),
        "all had been unmapped: nothing is proven"
    );
    for failure in &failures {
        ensure!(
            failure.owners.iter().all(|place| place.pid == child),
            "owners: {failure:?}"
        );
    }
    Ok(Outcome::Passed)
}

pub fn hint_fault(env: &Env) -> Result<Outcome> {
    balance_eagerly()?;
    // The moment when the kernel marks pages for hint faults depends on how long the workload has run
    // (`task_tick_numa`, kernel/sched/fair.c).
    let outcome = Outcome::of_tries(3, "no page was refused", || refuse(env));
    fs::write("/proc/sys/kernel/numa_balancing", "0").context("switch NUMA balancing off")?;
    outcome
}

/// Whether there were refusals.
fn refuse(env: &Env) -> Result<bool> {
    let (pid, truth, trace) = traced(env, &["base", "balance_to_full_node", "8"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure_same(&trace, pid, report)?;
    trace.ensure_exact_books()?;
    let refused: Vec<&FailureLine> = trace
        .failures
        .iter()
        .filter(|failure| failure.cause == "numa_refused")
        .collect();
    for failure in &refused {
        let [place] = &failure.owners[..] else {
            bail!("one owner: {failure:?}")
        };
        ensure!(place.pid == pid, "owner: {failure:?}");
        ensure!(
            failure.reason == "numa_misplaced" && failure.node == Some(0),
            "{failure:?}"
        );
    }
    // The workload's stack and similar memory are balanced as well.
    Ok(refused
        .iter()
        .any(|failure| report.range().contains(&failure.owners[0].vaddr.0)))
}
