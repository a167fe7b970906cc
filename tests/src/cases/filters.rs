//! Each filter lets through what it says and nothing else, from both sides, also while processes change.
//! Input: workloads that move their own pages step by step and say which, against `tracer --json`.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, id};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::child::Worker;
use crate::numa;
use crate::tracing::{Trace, Tracing};
use crate::truth::Report;

const SOON: Duration = Duration::from_mins(1);
const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };
/// The tracepoint backend looks for a page's owner a moment after the move: what moves on at once to where nobody
/// looks is not found.
const MOMENT: Duration = Duration::from_millis(300);

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
                what: "what is unknown here is refused in one line that says what there is",
                needs: Needs { root: true, ..Needs::NOTHING },
                run: refused,
            },
            Case {
                name: "filters/cost",
                what: "what a mapping costs in the kernel that is filtered out, against one that is reported",
                needs: NEEDS,
                run: cost,
            },
        ];
    };
}

filters! {
    comm: "--comm follows renames and forks";
    cgroup: "--cgroup follows processes from cgroup to cgroup, and forks";
    conjunction: "-p and --comm: both must hold";
    children: "--no-children and --comm: children are not followed, however they are named";
    reason: "--reason tells mbind from move_pages";
    nodes: "--nodes tells there from back";
    address: "--address cuts a run in two";
    min_order: "--min-order tells huge pages from base pages";
    actor: "--actor by number and by name, also after a rename";
}

/// A move of all pages, and whether it must be reported.
struct Step {
    pid: u32,
    report: Report,
    wanted: bool,
}

/// A process that changes, and what its pages went through.
struct Changing {
    worker: Worker,
    /// Another one's, once it has forked.
    pid: u32,
}

impl Changing {
    fn start(name: &str) -> Result<Self> {
        Self::start_with(&[name])
    }

    fn start_with(args: &[&str]) -> Result<Self> {
        let mut worker = Worker::spawn("changing", args)?;
        worker.wait_ready(SOON)?;
        Ok(Self {
            pid: worker.pid(),
            worker,
        })
    }

    fn order(&mut self, order: &str) -> Result<String> {
        self.worker.send(order)?;
        self.worker.read_line(SOON)
    }

    fn rename(&mut self, name: &str) -> Result<()> {
        self.order(&format!("rename {name}")).map(drop)
    }

    /// From now on it is the child.
    fn fork(&mut self) -> Result<()> {
        self.pid = self.order("fork")?.parse().context("the child's number")?;
        Ok(())
    }

    fn range(&mut self) -> Result<Report> {
        Report::parse(&self.order("where")?)
    }

    fn step(&mut self, call: &str, node: u32, wanted: bool) -> Result<Step> {
        let report = Report::parse(&self.order(&format!("move {call} {node}"))?)?;
        self.stepped(report, wanted)
    }

    /// Its pages are moved from node to node by this process.
    fn moved_by_us(&mut self, from: u32, to: u32, wanted: bool) -> Result<Step> {
        ensure!(self.order(&format!("move wait {to}"))? == "waiting", "does not wait");
        numa::migrate_pages(self.pid, from, to)?;
        let report = Report::parse(&self.order("moved")?)?;
        self.stepped(report, wanted)
    }

    fn stepped(&self, report: Report, wanted: bool) -> Result<Step> {
        let pages = ((report.end - report.start) as usize) / rustix::param::page_size();
        ensure!(
            report.moves.len() == pages,
            "{} of {pages} pages moved: nothing is proven",
            report.moves.len()
        );
        std::thread::sleep(MOMENT);
        Ok(Step {
            pid: self.pid,
            report,
            wanted,
        })
    }

    fn enter(&self, cgroup: &str) -> Result<()> {
        let procs = format!("{CGROUPS}{cgroup}/cgroup.procs");
        fs::write(&procs, self.pid.to_string()).with_context(|| format!("write {procs}"))
    }

    fn exit(self) -> Result<()> {
        self.worker.exit(SOON)
    }
}

const CGROUPS: &str = "/sys/fs/cgroup";

fn start(env: &Env, backend: &str, args: &[&str]) -> Result<Tracing> {
    Tracing::start(&env.tracer, &[args, &["--backend", backend]].concat())
}

/// The moves of the wanted steps, each once, and no other; and the books.
fn check(tracing: Tracing, backend: &str, steps: &[Step]) -> Result<Outcome> {
    let trace = tracing.finish()?;
    ensure_steps(&trace, backend, steps)?;
    Ok(Outcome::Passed)
}

fn ensure_steps(trace: &Trace, backend: &str, steps: &[Step]) -> Result<()> {
    let page = rustix::param::page_size() as u64;
    // How often each move is expected, minus how often it was reported.
    let mut open: BTreeMap<(u32, u64, u64, u64), i64> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.wanted) {
        for (&vaddr, moved) in &step.report.moves.0 {
            *open.entry((step.pid, vaddr, moved.old, moved.new)).or_default() += 1;
        }
    }
    for line in &trace.moves {
        let pid = line.pid.with_context(|| format!("without owner: {line:?}"))?;
        for at in 0..line.pages {
            let key = (pid, line.vaddr.0 + at * page, line.old_pfn.0 + at, line.new_pfn.0 + at);
            *open.entry(key).or_default() -= 1;
        }
    }
    let (mut missed, mut invented) = (open.clone(), open);
    missed.retain(|_, times| *times > 0);
    invented.retain(|_, times| *times < 0);
    let pages = |wanted| {
        let steps = steps.iter().filter(|step| step.wanted == wanted);
        steps.map(|step| step.report.moves.len() as u64).sum::<u64>()
    };
    let books = &trace.summary.books;
    println!("{} pages wanted, {} not; {books:?}", pages(true), pages(false));
    ensure!(
        missed.is_empty() && invented.is_empty(),
        "missed {} ({:x?}), invented {} ({:x?}); {:?}; {}",
        missed.len(),
        missed.iter().next(),
        invented.len(),
        invented.iter().next(),
        trace.summary,
        trace.stderr
    );
    if backend == "exact" {
        trace.ensure_exact_books()?;
        ensure!(books.reported_pages == pages(true), "reported: {books:?}");
        ensure!(books.filtered_pages >= pages(false), "filtered: {books:?}");
    } else {
        trace.ensure_sound()?;
    }
    Ok(())
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
    // One that begins while tracer runs.
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
    // Of the lineage, though its name is not wanted; and so is its child.
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
    for (pairs, there, back) in [("0:1", true, false), ("any:0", false, true), ("1->0,0:any", true, true)] {
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
    // From within a page to within another: both are wanted.
    let page = rustix::param::page_size() as u64;
    let (from, to) = (all.start + 16 * page, all.start + 48 * page);
    let range = format!("{:x}-0x{:x}", from + 1, to - 1);
    let tracing = start(env, backend, &["-p", &a.pid.to_string(), "--address", &range])?;
    let step = a.step("move_pages", 1, true)?;
    let outcome = check(tracing, backend, &split(&step, |vaddr| (from..to).contains(&vaddr)))?;
    a.exit()?;
    Ok(outcome)
}

/// The step as two: what is wanted of it, and what is not.
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
    // By its number: the one that moves, not the one whose pages they are.
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
    // migrate_pages(2) moves all that the process has, so only who did it is sure.
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

/// Nanoseconds that all of tracer's programs ran (`run_time_ns` of /proc/PID/fdinfo, kernel/bpf/syscall.c
/// `bpf_prog_show_fdinfo`; counted while kernel.bpf_stats_enabled is 1).
fn program_time(tracer: u32) -> Result<u64> {
    let mut nanos = 0;
    for entry in fs::read_dir(format!("/proc/{tracer}/fdinfo")).context("list tracer's files")? {
        // A file may be closed meanwhile.
        let Ok(info) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let value = info.lines().find_map(|line| line.strip_prefix("run_time_ns:"));
        nanos += value.map_or(Ok(0), |value| value.trim().parse::<u64>())?;
    }
    Ok(nanos)
}

fn cost(env: &Env) -> Result<Outcome> {
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "1").context("switch BPF statistics on")?;
    let mut a = Changing::start("a")?;
    let nobody = id().to_string();
    let own = a.pid.to_string();
    let filters: [(&str, &[&str]); 7] = [
        ("reported", &["-p", &own]),
        ("owner", &["-p", &nobody, "--no-children"]),
        ("reason", &["-a", "--reason", "compaction"]),
        ("actor", &["--actor", "nobody"]),
        ("order", &["-a", "--min-order", "2M"]),
        ("address", &["-a", "--address", "1000-2000"]),
        ("nodes", &["-a", "--nodes", "0:0"]),
    ];
    let mut reported = 0;
    for (name, args) in filters {
        let tracing = start(env, "exact", args)?;
        let before = program_time(tracing.pid())?;
        let mut pages = 0;
        for _ in 0..4 {
            for node in [1, 0] {
                pages += Report::parse(&a.order(&format!("move move_pages {node}"))?)?
                    .moves
                    .len() as u64;
            }
        }
        let each = (program_time(tracing.pid())? - before) / pages;
        let trace = tracing.finish()?;
        trace.ensure_exact_books()?;
        ensure!(
            trace.moves.is_empty() == (name != "reported"),
            "{name}: {:?}",
            trace.summary
        );
        if name == "reported" {
            reported = each;
        }
        println!(
            "{name}: {each} ns a mapping, {} % of one that is reported",
            100 * each / reported
        );
        ensure!(
            name == "reported" || each < reported,
            "{name}: {each} ns, reported: {reported} ns"
        );
    }
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "0").context("switch BPF statistics off")?;
    a.exit()?;
    Ok(Outcome::Passed)
}
