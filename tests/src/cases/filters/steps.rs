//! A process that changes step by step, and the check of its reported moves. The cases of filters share this.
//! Input: the workload `changing`, against `tracer --json`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::case::{Env, Outcome};
use crate::machine::numa;
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::Report;
use crate::worker::Worker;

const SOON: Duration = Duration::from_mins(1);
/// The tracepoint backend looks for a page's owner a moment after the move. It does not find a page that moves on at
/// once to a frame where nobody looks.
const MOMENT: Duration = Duration::from_millis(300);

/// A move of all pages, and whether it must be reported.
pub struct Step {
    pub pid: u32,
    pub report: Report,
    pub wanted: bool,
}

/// A process that changes, and the moves of its pages.
pub struct Changing {
    pub worker: Worker,
    /// The pid. It changes when the process has forked.
    pub pid: u32,
}

impl Changing {
    pub fn start(name: &str) -> Result<Self> {
        Self::start_with(&[name])
    }

    pub fn start_with(args: &[&str]) -> Result<Self> {
        let mut worker = Worker::spawn("changing", args)?;
        worker.wait_ready(SOON)?;
        Ok(Self {
            pid: worker.pid(),
            worker,
        })
    }

    pub fn order(&mut self, order: &str) -> Result<String> {
        self.worker.request(order, SOON)
    }

    pub fn rename(&mut self, name: &str) -> Result<()> {
        self.order(&format!("rename {name}")).map(drop)
    }

    /// Continues as the child.
    pub fn fork(&mut self) -> Result<()> {
        self.pid = self.order("fork")?.parse().context("the child's number")?;
        Ok(())
    }

    pub fn range(&mut self) -> Result<Report> {
        Report::parse(&self.order("where")?)
    }

    pub fn step(&mut self, call: &str, node: u32, wanted: bool) -> Result<Step> {
        let report = Report::parse(&self.order(&format!("move {call} {node}"))?)?;
        self.stepped(report, wanted)
    }

    /// Moves its pages from node to node, from this process.
    pub fn moved_by_us(&mut self, from: u32, to: u32, wanted: bool) -> Result<Step> {
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

    pub fn enter(&self, cgroup: &str) -> Result<()> {
        let procs = format!("{CGROUPS}{cgroup}/cgroup.procs");
        fs::write(&procs, self.pid.to_string()).with_context(|| format!("write {procs}"))
    }

    pub fn exit(self) -> Result<()> {
        self.worker.exit(SOON)
    }
}

pub const CGROUPS: &str = "/sys/fs/cgroup";

pub fn start(env: &Env, backend: &str, args: &[&str]) -> Result<Tracing> {
    Tracing::start(&env.tracer, &[args, &["--backend", backend]].concat())
}

/// Checks that each move of the wanted steps is reported once, and no other, and checks the books.
pub fn check(tracing: Tracing, backend: &str, steps: &[Step]) -> Result<Outcome> {
    let trace = tracing.finish()?;
    ensure_steps(&trace, backend, steps)?;
    Ok(Outcome::Passed)
}

fn ensure_steps(trace: &Trace, backend: &str, steps: &[Step]) -> Result<()> {
    let page = rustix::param::page_size() as u64;
    // The number of times that each move is expected, minus the number of times that it was reported.
    let mut open: BTreeMap<(u32, u64, u64, u64), i64> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.wanted) {
        for (&vaddr, moved) in &step.report.moves.0 {
            *open.entry((step.pid, vaddr, moved.old, moved.new)).or_default() += 1;
        }
    }
    for line in &trace.moves {
        let pid = line.pid.with_context(|| format!("without owner: {line:?}"))?;
        for at in 0..line.pages {
            let (Some(old), Some(new)) = (line.old_pfn, line.new_pfn) else {
                bail!("a move without a frame: {line:?}")
            };
            let key = (pid, line.vaddr.0 + at * page, old.0 + at, new.0 + at);
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
