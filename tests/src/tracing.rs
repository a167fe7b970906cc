//! A running `tracer --json` as its case sees it: started, attached, ended by a signal, its lines read.
//! Input: tracer's stdout and stderr.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::child;
use crate::truth::{Move, Moves};

/// How long attaching may take: a verifier under software emulation is slow.
const ATTACH: Duration = Duration::from_secs(200);
/// How long a run may take to finish after it was asked to.
const FINISH: Duration = Duration::from_mins(1);

/// A line of `kind` "move", with the keys that the cases look at.
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct MoveLine {
    pub ts_ns: u64,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub vaddr: Hex,
    pub pages: u64,
    pub order: u8,
    pub old_pfn: Option<Hex>,
    pub new_pfn: Option<Hex>,
    pub old_node: Option<u32>,
    pub new_node: Option<u32>,
    pub reason: String,
    pub actor_pid: u32,
    pub actor_tid: u32,
    pub actor_comm: Option<String>,
    pub blackout_ns: Option<u64>,
    pub vma: Option<VmaObject>,
    pub verdict: String,
    pub owner_source: Option<String>,
    pub nth: Option<u8>,
    pub cpu: u16,
}

/// A line of `kind` "unmapped_move".
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct UnmappedLine {
    pub ts_ns: u64,
    pub pages: u64,
    pub order: u8,
    pub old_pfn: Option<Hex>,
    pub new_pfn: Option<Hex>,
    pub reason: String,
    pub file: Option<FileObject>,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct FileObject {
    pub dev: String,
    pub inode: u64,
    pub offset: u64,
    pub name: Option<String>,
}

/// A line of `kind` "failure".
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct FailureLine {
    pub ts_ns: u64,
    pub pages: u64,
    pub order: u8,
    pub pfn: Option<Hex>,
    pub node: Option<u32>,
    pub reason: String,
    pub mode: String,
    pub cause: String,
    pub inferred: bool,
    pub errno: Option<u32>,
    pub attempts: u32,
    pub refs: Option<u32>,
    pub expected_refs: Option<u32>,
    pub map_count: Option<u32>,
    pub flags: Vec<String>,
    pub owners: Vec<PlaceObject>,
    pub actor_pid: u32,
}

/// Where a folio that could not be moved is mapped.
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct PlaceObject {
    pub pid: u32,
    pub vaddr: Hex,
    pub vma: Option<VmaObject>,
    pub inferred: bool,
}

/// A line of `kind` "compaction".
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct CompactionLine {
    pub ts_ns: u64,
    pub duration_ns: u64,
    pub order: Option<u8>,
    pub node: Option<u32>,
    pub zone: String,
    pub direct: bool,
    pub sync: bool,
    pub proactive: bool,
    pub result: String,
    pub moved_pages: u64,
    pub failed_pages: u64,
    pub actor_pid: u32,
    pub actor_comm: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct VmaObject {
    pub start: Hex,
    pub end: Hex,
    pub perms: String,
    pub name: String,
}

/// "0x7f..." as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Hex(pub u64);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text
            .strip_prefix("0x")
            .ok_or_else(|| format!("{text:?} does not start with 0x"))?;
        u64::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|e| format!("{text:?}: {e}"))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct SummaryLine {
    pub backend: String,
    pub pages: u64,
    pub compaction: Compactions,
    pub lost: Lost,
    pub books: Books,
}

/// Sums of the runs of compaction.
#[derive(Clone, Debug, Deserialize)]
pub struct Compactions {
    pub deferred: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct Lost {
    pub events: u64,
    pub mapping_pages: u64,
    pub failures: u64,
    pub failure_pages: u64,
    pub cut_failures: u64,
    pub folios: u64,
    pub compactions: u64,
    pub process_events: u64,
    pub targets: u64,
    pub calls: u64,
    pub undecoded: u64,
    pub missed_runs: u64,
    pub missed_detail_runs: u64,
    pub stood_in_runs: u64,
    pub not_asked_pages: u64,
    pub unattributed_pages: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct Books {
    pub kernel_pages: Option<u64>,
    pub moved_pages: u64,
    pub unmapped_pages: u64,
    pub released_pages: u64,
    pub failed_seen_pages: u64,
    pub failed_reported_pages: u64,
    pub failed_filtered_pages: u64,
    pub unbalanced_calls: u64,
    pub settled: bool,
    pub reported_pages: u64,
    pub filtered_pages: u64,
    pub outside_filtered_pages: u64,
    pub imbalance: Option<i64>,
    pub checks: Vec<Check>,
    pub intervals: Intervals,
    pub balanced: bool,
    pub proven: bool,
}

/// A count of the kernel's, and the same as tracer saw it.
#[derive(Clone, Debug, Deserialize)]
pub struct Check {
    pub name: String,
    pub kernel: u64,
    pub seen: u64,
    pub difference: i64,
    pub exact: bool,
}

/// A line of `kind` "books": a second of the books.
#[derive(Clone, Debug, Deserialize)]
pub struct BooksLine {
    pub begin_ns: u64,
    pub end_ns: u64,
    pub kernel_pages: Option<u64>,
    pub imbalance: Option<i64>,
    pub settled: bool,
    pub lost_events: u64,
    pub checks: Vec<Check>,
    pub balanced: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct Intervals {
    pub closed: u64,
    pub unbalanced: u64,
}

impl SummaryLine {
    /// What the kernel counted is what was seen, to the page, call by call and second by second, whatever the run was for.
    /// The exact backend only can, and where the kernel skipped programs, which is told, it sees no more than there was, as
    /// the tracepoint backend does; a run during whose first or last look pages moved is allowed to differ by these.
    pub fn ensure_conservation(&self) -> Result<()> {
        let books = &self.books;
        let skipped = self.lost.missed_runs > 0;
        let fits = |difference: i64| difference == 0 || skipped && difference > 0;
        let balanced = if self.backend == "exact" {
            let checks = books.checks.iter().filter(|check| check.exact);
            let whole = books.imbalance.is_none_or(fits) && checks.map(|check| check.difference).all(fits);
            let parts = books.unbalanced_calls == 0 && books.intervals.unbalanced == 0;
            (parts || skipped) && (whole || !books.settled)
        } else {
            !books.settled || books.imbalance.is_none_or(|pages| pages >= 0)
        };
        ensure!(
            balanced,
            "the {} backend's books do not balance: {books:?}",
            self.backend
        );
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Move(MoveLine),
    UnmappedMove(UnmappedLine),
    Failure(FailureLine),
    Compaction(CompactionLine),
    Books(BooksLine),
    Summary(SummaryLine),
}

/// What a run printed.
#[derive(Debug)]
pub struct Trace {
    pub moves: Vec<MoveLine>,
    pub unmapped: Vec<UnmappedLine>,
    pub failures: Vec<FailureLine>,
    pub compactions: Vec<CompactionLine>,
    pub intervals: Vec<BooksLine>,
    pub summary: SummaryLine,
    pub status: ExitStatus,
    pub stderr: String,
}

/// A running tracer; killed on drop.
pub struct Tracing {
    child: Child,
    stdout: Option<JoinHandle<std::io::Result<String>>>,
    stderr: Receiver<String>,
    said: Vec<String>,
}

impl Tracing {
    /// Starts `tracer --json ARGS` and waits until its hooks are attached.
    pub fn start(tracer: &Path, args: &[&str]) -> Result<Self> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        Self::start_as(tracer, &["--json"], &args)
    }

    /// The same with `tracer HOW ARGS`.
    pub fn start_as(tracer: &Path, how: &[&str], args: &[String]) -> Result<Self> {
        let mut child = Command::new(tracer)
            .args(how)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", tracer.display()))?;
        let mut out = child.stdout.take().context("a piped stdout")?;
        let err = child.stderr.take().context("a piped stderr")?;
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        });
        let mut tracing = Self {
            child,
            stdout: Some(stdout),
            stderr: child::lines(err),
            said: Vec::new(),
        };
        tracing.wait_attached()?;
        Ok(tracing)
    }

    /// The greeting comes when every hook is attached.
    fn wait_attached(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.stderr.recv_timeout(ATTACH.saturating_sub(started.elapsed())) {
                Ok(line) => {
                    let greeting = line.contains(" · Linux ");
                    self.said.push(line);
                    if greeting {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("tracer did not attach within {ATTACH:?}: {:?}", self.said),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().context("wait for tracer")?;
                    bail!("tracer ended early, {status}: {}", self.said.join("\n"));
                }
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the run as Ctrl-C does, and reads what it printed.
    pub fn finish(self) -> Result<Trace> {
        self.signal(Signal::INT)?;
        self.join()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("a pid")?;
        kill_process(pid, signal).context("signal tracer")
    }

    /// The same of one that prints nothing but talk.
    pub fn finish_silently(mut self) -> Result<(ExitStatus, String)> {
        self.signal(Signal::INT)?;
        let status = child::wait(&mut self.child, FINISH).context("tracer")?;
        self.said.extend(self.stderr.iter());
        Ok((status, self.said.join("\n")))
    }

    /// Waits for the run's own end.
    pub fn join(mut self) -> Result<Trace> {
        let status = child::wait(&mut self.child, FINISH).context("tracer")?;
        let reader = self.stdout.take().context("stdout was read before")?;
        let text = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        self.said.extend(self.stderr.iter());
        Trace::read(&text, self.said.join("\n"), status)
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Trace {
    /// From the lines of `tracer --json`.
    pub fn read(text: &str, stderr: String, status: ExitStatus) -> Result<Self> {
        let mut moves = Vec::new();
        let mut unmapped = Vec::new();
        let mut failures = Vec::new();
        let mut compactions = Vec::new();
        let mut intervals = Vec::new();
        let mut summary = None;
        for line in text.lines() {
            ensure!(summary.is_none(), "a line after the summary: {line}");
            match serde_json::from_str(line).with_context(|| format!("not a line of tracer --json: {line}"))? {
                Line::Move(moved) => moves.push(moved),
                Line::UnmappedMove(moved) => unmapped.push(moved),
                Line::Failure(failure) => failures.push(failure),
                Line::Compaction(run) => compactions.push(run),
                Line::Books(interval) => intervals.push(interval),
                Line::Summary(line) => summary = Some(line),
            }
        }
        let summary = summary.with_context(|| format!("no summary; {status}; stderr: {stderr}"))?;
        summary.ensure_conservation()?;
        Ok(Self {
            moves,
            unmapped,
            failures,
            compactions,
            intervals,
            summary,
            status,
            stderr,
        })
    }

    /// The moves of one process within a range, page by page, each page's moves chained into one.
    ///
    /// Fails where a page's moves do not link up: one was missed, or invented.
    pub fn of(&self, pid: u32, range: std::ops::Range<u64>) -> Result<Moves> {
        let page = rustix::param::page_size() as u64;
        let mut moves: BTreeMap<u64, Move> = BTreeMap::new();
        let mut events: Vec<&MoveLine> = self.moves.iter().filter(|line| line.pid == Some(pid)).collect();
        events.sort_by_key(|line| line.ts_ns);
        for line in events {
            // A page on its way to swap goes nowhere yet.
            let (Some(old_pfn), Some(new_pfn)) = (line.old_pfn, line.new_pfn) else {
                continue;
            };
            for at in 0..line.pages {
                let vaddr = line.vaddr.0 + at * page;
                if !range.contains(&vaddr) {
                    continue;
                }
                let (old, new) = (old_pfn.0 + at, new_pfn.0 + at);
                match moves.get_mut(&vaddr) {
                    None => {
                        moves.insert(vaddr, Move { old, new });
                    }
                    Some(so_far) => {
                        ensure!(
                            so_far.new == old,
                            "page {vaddr:#x} moved to {:#x}, then from {old:#x}: {line:?}",
                            so_far.new
                        );
                        so_far.new = new;
                    }
                }
            }
        }
        // There and back again is no difference that the workload could see.
        moves.retain(|_, moved| moved.old != moved.new);
        Ok(Moves(moves))
    }

    /// Whose pages the lines are of: of nobody else than these.
    pub fn ensure_only(&self, traced: &[u32]) -> Result<()> {
        let other = |line: &&MoveLine| !line.pid.is_some_and(|pid| traced.contains(&pid));
        let others: Vec<&MoveLine> = self.moves.iter().filter(other).take(5).collect();
        ensure!(others.is_empty(), "not of {traced:?}, which were asked for: {others:?}");
        Ok(())
    }

    /// Nothing lost, nobody behind, and the kernel's count met.
    pub fn ensure_sound(&self) -> Result<()> {
        let lost = &self.summary.lost;
        ensure!(
            self.status.success(),
            "tracer: {}; lost: {lost:?}; stderr: {}",
            self.status,
            self.stderr
        );
        ensure!(lost.events == 0 && lost.not_asked_pages == 0, "lost: {lost:?}");
        let uneven: Vec<&BooksLine> = self.intervals.iter().filter(|second| !second.balanced).collect();
        ensure!(
            self.summary.books.balanced,
            "the books do not balance: {:?}; seconds: {uneven:?}",
            self.summary.books
        );
        Ok(())
    }

    /// As [`Trace::ensure_sound`], to the page: only the exact backend can.
    pub fn ensure_exact_books(&self) -> Result<()> {
        self.ensure_sound()?;
        let books = &self.summary.books;
        ensure!(books.imbalance == Some(0), "the books do not balance: {books:?}");
        let lost = self.summary.lost.failure_pages;
        ensure!(
            !books.settled
                || books.failed_seen_pages == books.failed_reported_pages + books.failed_filtered_pages + lost,
            "failures went missing: {books:?}, {lost} lost"
        );
        Ok(())
    }
}
