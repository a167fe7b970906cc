//! Each filter passes exactly the requested events, checked from both sides, also while processes change.
//! Input: workloads that move their own pages step by step and report which, against `tracer --json`.

pub mod cost;
pub mod steps;

use std::fs;
use std::process::{Command, id};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::steps::{CGROUPS, Changing, Step, check, start};
use crate::case::{Case, Env, Needs, Outcome};

const NEEDS: Needs = Needs {
    nodes: 2,
    // In each case, the kernel verifies several programs again, under software emulation.
    timeout: Duration::from_mins(5),
    ..Needs::VM
};

macro_rules! filters {
    ($($name:ident: $what:literal;)*) => {
        pub const CASES: &[Case] = &[
            $(
                Case {
                    name: concat!("filters/", stringify!($name)),
                    what: $what,
                    needs: NEEDS,
                    run: |env| $name(env, "exact"),
                },
                Case {
                    name: concat!("filters/", stringify!($name), "_tracepoint"),
                    what: concat!($what, ", tracepoint backend"),
                    needs: NEEDS,
                    run: |env| $name(env, "tracepoint"),
                },
            )*
            Case {
                name: "filters/refused",
                what: "an unknown name is refused in one line that lists the known ones",
                needs: Needs { root: true, ..Needs::NOTHING },
                run: refused,
            },
        ];
    };
}

filters! {
    comm: "--comm follows renames and forks";
    cgroup: "--cgroup follows processes from cgroup to cgroup, and forks";
    conjunction: "-p and --comm: both must hold";
    children: "--no-children and --comm: children are not followed, however they are named";
    reason: "--reason distinguishes mbind from move_pages";
    nodes: "--nodes distinguishes there from back";
    address: "--address cuts a run in two";
    min_order: "--min-order distinguishes huge pages from base pages";
    actor: "--actor by number and by name, also after a rename";
}

fn comm(env: &Env, backend: &str) -> Result<Outcome> {
    let (mut a, mut b) = (Changing::start("wanted-a")?, Changing::start("other-b")?);
    let tracing = start(env, backend, &["--comm", "wanted-?,never*"])?;
    let mut steps = vec![a.step("move_pages", 1, true)?, b.step("move_pages", 1, false)?];
    b.rename("wanted-b")?;
    steps.push(b.step("move_pages", 0, true)?);
    a.rename("wanted-more")?;
    steps.push(a.step("move_pages", 0, false)?);
    a.fork()?;
    steps.push(a.step("move_pages", 1, false)?);
    b.fork()?;
    steps.push(b.step("move_pages", 1, true)?);
    // This process begins while tracer runs.
    let mut late = Changing::start("never-before")?;
    steps.push(late.step("move_pages", 1, true)?);
    let outcome = check(tracing, backend, &steps)?;
    for each in [a, b, late] {
        each.exit()?;
    }
    Ok(outcome)
}

fn cgroup(env: &Env, backend: &str) -> Result<Outcome> {
    for cgroup in ["/wanted", "/wanted/below", "/wanted-not"] {
        fs::create_dir_all(format!("{CGROUPS}{cgroup}")).with_context(|| format!("make cgroup {cgroup}"))?;
    }
    let (mut a, mut b) = (Changing::start("a")?, Changing::start("b")?);
    a.enter("/wanted/below")?;
    b.enter("/wanted-not")?;
    let tracing = start(env, backend, &["--cgroup", "/sys/fs/cgroup/wanted"])?;
    let mut steps = vec![a.step("move_pages", 1, true)?, b.step("move_pages", 1, false)?];
    b.enter("/wanted")?;
    steps.push(b.step("move_pages", 0, true)?);
    b.fork()?;
    steps.push(b.step("move_pages", 1, true)?);
    a.enter("")?;
    steps.push(a.step("move_pages", 0, false)?);
    a.fork()?;
    steps.push(a.step("move_pages", 1, false)?);
    a.enter("/wanted/below")?;
    steps.push(a.step("move_pages", 0, true)?);
    let outcome = check(tracing, backend, &steps)?;
    for each in [a, b] {
        each.exit()?;
    }
    Ok(outcome)
}

fn conjunction(env: &Env, backend: &str) -> Result<Outcome> {
    let (mut a, mut b, mut c) = (
        Changing::start("wanted-a")?,
        Changing::start("other-b")?,
        Changing::start("wanted-c")?,
    );
    let pids = format!("{},{}", a.pid, b.pid);
    let tracing = start(env, backend, &["-p", &pids, "--comm", "wanted*"])?;
    let mut steps = vec![
        a.step("move_pages", 1, true)?,
        b.step("move_pages", 1, false)?,
        c.step("move_pages", 1, false)?,
    ];
    // It is part of the lineage, though its name is not requested. So is its child.
    b.fork()?;
    steps.push(b.step("move_pages", 1, false)?);
    b.rename("wanted-b")?;
    steps.push(b.step("move_pages", 0, true)?);
    c.fork()?;
    steps.push(c.step("move_pages", 1, false)?);
    let outcome = check(tracing, backend, &steps)?;
    for each in [a, b, c] {
        each.exit()?;
    }
    Ok(outcome)
}

fn children(env: &Env, backend: &str) -> Result<Outcome> {
    let mut a = Changing::start("wanted-a")?;
    let pid = a.pid.to_string();
    let tracing = start(env, backend, &["-p", &pid, "--no-children", "--comm", "wanted*"])?;
    let mut steps = vec![a.step("move_pages", 1, true)?];
    a.fork()?;
    steps.push(a.step("move_pages", 1, false)?);
    a.rename("wanted-child")?;
    steps.push(a.step("move_pages", 0, false)?);
    let outcome = check(tracing, backend, &steps)?;
    a.exit()?;
    Ok(outcome)
}

fn reason(env: &Env, backend: &str) -> Result<Outcome> {
    let mut a = Changing::start("a")?;
    let tracing = start(env, backend, &["-a", "--reason", "mempolicy_mbind,demotion"])?;
    let steps = [
        a.step("move_pages", 1, false)?,
        a.step("mbind", 0, true)?,
        a.step("move_pages", 1, false)?,
    ];
    let outcome = check(tracing, backend, &steps)?;
    a.exit()?;
    Ok(outcome)
}

fn nodes(env: &Env, backend: &str) -> Result<Outcome> {
    for (pairs, there, back) in [
        ("0:1", true, false),
        ("1:0", false, true),
        ("any:0", false, true),
        ("1->0,0:any", true, true),
    ] {
        let mut a = Changing::start("a")?;
        let tracing = start(env, backend, &["-p", &a.pid.to_string(), "--nodes", pairs])?;
        let steps = [
            a.step("move_pages", 1, there)?,
            a.step("move_pages", 0, back)?,
            a.step("move_pages", 1, there)?,
        ];
        check(tracing, backend, &steps).with_context(|| format!("--nodes {pairs}"))?;
        a.exit()?;
    }
    Ok(Outcome::Passed)
}

fn address(env: &Env, backend: &str) -> Result<Outcome> {
    let mut a = Changing::start("a")?;
    let all = a.range()?.range();
    // The range begins and ends within a page: both pages are wanted.
    let page = rustix::param::page_size() as u64;
    let (from, to) = (all.start + 16 * page, all.start + 48 * page);
    let range = format!("{:x}-0x{:x}", from + 1, to - 1);
    let tracing = start(env, backend, &["-p", &a.pid.to_string(), "--address", &range])?;
    let step = a.step("move_pages", 1, true)?;
    let outcome = check(tracing, backend, &split(&step, |vaddr| (from..to).contains(&vaddr)))?;
    a.exit()?;
    Ok(outcome)
}

/// Splits the step in two: its wanted pages, and the others.
fn split(step: &Step, wanted: impl Fn(u64) -> bool) -> [Step; 2] {
    [true, false].map(|side| {
        let mut report = step.report.clone();
        report.moves.0.retain(|vaddr, _| wanted(*vaddr) == side);
        Step {
            pid: step.pid,
            report,
            wanted: side,
        }
    })
}

fn min_order(env: &Env, backend: &str) -> Result<Outcome> {
    let thp = "/sys/kernel/mm/transparent_hugepage/enabled";
    fs::write(thp, "always").context("switch THP on")?;
    let (mut huge, mut base) = (Changing::start_with(&["huge", "huge"])?, Changing::start("base")?);
    let pids = format!("{},{}", huge.pid, base.pid);
    let tracing = start(env, backend, &["-p", &pids, "--min-order", "2M"])?;
    let steps = [huge.step("move_pages", 1, true)?, base.step("move_pages", 1, false)?];
    let outcome = check(tracing, backend, &steps)?;
    for each in [huge, base] {
        each.exit()?;
    }
    Ok(outcome)
}

fn actor(env: &Env, backend: &str) -> Result<Outcome> {
    let (mut a, mut b) = (Changing::start("mover-a")?, Changing::start("moved-b")?);
    let tracing = start(env, backend, &["--actor", "mover-*"])?;
    let mut steps = vec![
        a.step("move_pages", 1, true)?,
        b.step("move_pages", 1, false)?,
        b.moved_by_us(1, 0, false)?,
    ];
    a.rename("no-mover")?;
    steps.push(a.step("move_pages", 0, false)?);
    b.rename("mover-b")?;
    steps.push(b.step("move_pages", 1, true)?);
    check(tracing, backend, &steps)?;
    // The filter by number means the process that moves pages, not their owner.
    let tracing = start(env, backend, &["-p", &b.pid.to_string(), "--actor", &b.pid.to_string()])?;
    let steps = [
        b.step("move_pages", 0, true)?,
        a.step("move_pages", 1, false)?,
        b.step("move_pages", 1, true)?,
        b.moved_by_us(1, 0, false)?,
    ];
    check(tracing, backend, &steps)?;
    let us = id().to_string();
    let tracing = start(env, backend, &["-p", &b.pid.to_string(), "--actor", &us])?;
    let unwanted = b.step("move_pages", 1, false)?;
    b.moved_by_us(1, 0, true)?;
    let trace = tracing.finish()?;
    // migrate_pages(2) moves all pages of the process, so only the actor is certain.
    let range = unwanted.report.range();
    let of_range: Vec<_> = trace
        .moves
        .iter()
        .filter(|line| range.contains(&line.vaddr.0))
        .collect();
    let pages: u64 = of_range.iter().map(|line| line.pages).sum();
    ensure!(
        pages == unwanted.report.moves.len() as u64 && trace.moves.iter().all(|line| line.actor_pid == id()),
        "{pages} pages of {}: {of_range:?}",
        unwanted.report.moves.len()
    );
    for each in [a, b] {
        each.exit()?;
    }
    Ok(Outcome::Passed)
}

fn refused(env: &Env) -> Result<Outcome> {
    for (args, says) in [
        (&["-a", "--reason", "boredom"][..], "this kernel has compaction, "),
        (&["--cgroup", "/no/such/cgroup"], "no cgroup /no/such/cgroup in "),
        (&["-a", "--nodes", "0:999"], "no node 999; this machine has 0"),
        (
            &[
                "--comm",
                "aaaaaaaaaaaaaaa,bbbbbbbbbbbbbbb,ccccccccccccccc,ddddddddddddddd,e",
            ],
            "too many names",
        ),
    ] {
        let output = Command::new(&env.tracer).args(args).output().context("run tracer")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2), "{args:?}: {}: {stderr}", output.status);
        ensure!(
            stderr.contains(says) && stderr.lines().count() == 1,
            "{args:?}: {stderr}"
        );
    }
    let output = Command::new(&env.tracer)
        .args(["--reason", "compaction"])
        .output()
        .context("run tracer")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2) && stderr.contains("whose pages?"),
        "a reason alone says nobody's pages: {stderr}"
    );
    Ok(Outcome::Passed)
}
