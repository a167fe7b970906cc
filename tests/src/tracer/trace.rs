//! A running `tracer --json` as a case uses it: started, attached, ended by a signal, its lines read.
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

use super::lines::{BooksLine, CompactionLine, FailureLine, Line, MoveLine, SummaryLine, Unattributed, UnmappedLine};
use crate::truth::{Move, Moves, Reports};
use crate::worker::{self, Worker};

/// The longest time for attaching: a verifier under software emulation is slow.
const ATTACH: Duration = Duration::from_secs(200);
/// The longest time for a run to finish after the request.
const FINISH: Duration = Duration::from_mins(1);

/// The output of a run.
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

    /// Starts `tracer HOW ARGS` in the same way.
    pub fn start_as(tracer: &Path, how: &[&str], args: &[String]) -> Result<Self> {
        let mut command = Command::new(tracer);
        command.args(how).args(args);
        Self::spawn(command)
    }

    /// Starts tracer by this command in the same way.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let mut out = child.stdout.take().context("a piped stdout")?;
        let err = child.stderr.take().context("a piped stderr")?;
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        });
        let mut tracing = Self {
            child,
            stdout: Some(stdout),
            stderr: worker::lines(err),
            said: Vec::new(),
        };
        tracing.wait_attached()?;
        Ok(tracing)
    }

    /// The greeting is printed when every hook is attached.
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

    /// Ends a run that prints only messages, and returns them.
    pub fn finish_silently(mut self) -> Result<(ExitStatus, String)> {
        self.signal(Signal::INT)?;
        let status = worker::wait(&mut self.child, FINISH).context("tracer")?;
        self.said.extend(self.stderr.iter());
        Ok((status, self.said.join("\n")))
    }

    /// Waits for the run's own end.
    pub fn join(mut self) -> Result<Trace> {
        let status = worker::wait(&mut self.child, FINISH).context("tracer")?;
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
    /// Runs `tracer --json ARGS` while a workload records its frames and carries out an order. Returns the workload's
    /// answer and the trace.
    pub fn during(
        tracer: &Path,
        args: &[&str],
        worker: &mut Worker,
        order: &str,
        timeout: Duration,
    ) -> Result<(Reports, Self)> {
        let tracing = Tracing::start(tracer, args)?;
        worker.mark(timeout)?;
        let truth = Reports::parse(&worker.request(order, timeout)?)?;
        Ok((truth, tracing.finish()?))
    }

    /// Reads the lines of `tracer --json`.
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
    /// Fails if a page's moves do not link up, because one was missed or invented.
    pub fn of(&self, pid: u32, range: std::ops::Range<u64>) -> Result<Moves> {
        let page = rustix::param::page_size() as u64;
        let mut moves: BTreeMap<u64, Move> = BTreeMap::new();
        let mut events: Vec<&MoveLine> = self.moves.iter().filter(|line| line.pid == Some(pid)).collect();
        events.sort_by_key(|line| line.ts_ns);
        for line in events {
            // A page on its way to swap has no new frame yet.
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
        // The workload cannot see a move there and back again.
        moves.retain(|_, moved| moved.old != moved.new);
        Ok(Moves(moves))
    }

    /// Checks that the lines are of pages of these processes only.
    pub fn ensure_only(&self, traced: &[u32]) -> Result<()> {
        let other = |line: &&MoveLine| !line.pid.is_some_and(|pid| traced.contains(&pid));
        let others: Vec<&MoveLine> = self.moves.iter().filter(other).take(5).collect();
        ensure!(others.is_empty(), "not of the requested {traced:?}: {others:?}");
        Ok(())
    }

    /// Checks that nothing is lost, that correlation did not fall behind, and that the kernel's count is met.
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

    /// Checks that the pages in lines are those of the summary, and of the books: reported, without a mapping, in calls
    /// that had not ended, or outside migrate_pages. Nothing may be lost, and pages must have moved. With the tracepoint
    /// backend every process must be traced.
    pub fn ensure_rows_in_books(&self) -> Result<()> {
        let books = &self.summary.books;
        let (outside, mapped): (Vec<_>, Vec<_>) = self.moves.iter().partition(|line| line.nth.is_none());
        // A folio's first line comes several times, with the same time, where pagemap's answers split it.
        let first = mapped.into_iter().filter(|line| line.nth == Some(1));
        let folios: BTreeMap<_, _> = first
            .map(|line| ((line.ts_ns, line.actor_tid), 1u64 << line.order))
            .collect();
        let mapped: u64 = folios.values().sum();
        let unmapped: u64 = self.unmapped.iter().map(|line| line.pages).sum();
        let outside: u64 = outside.iter().map(|line| line.pages).sum();
        println!("{mapped} pages in rows, {unmapped} without a mapping, {outside} outside migrate_pages; {books:?}");
        ensure!(mapped + outside > 0, "nothing moved: nothing is proven");
        ensure!(
            mapped + unmapped + outside == self.summary.pages,
            "{} pages",
            self.summary.pages
        );
        let shown = match self.summary.backend.as_str() {
            "exact" => books.reported_pages + books.unmapped_pages - books.unmapped_filtered_pages,
            _ => books.moved_pages - books.filtered_pages,
        };
        ensure!(
            (mapped + unmapped, outside) == (shown + books.unbooked_pages, books.outside_pages),
            "{mapped} pages, {unmapped} without a mapping and {outside} outside migrate_pages in rows; in the books \
             {shown}, and {} apart: {books:?}",
            books.unbooked_pages
        );
        Ok(())
    }

    /// Checks, for the tracepoint backend, that each page that moved is in one sum of the books, however many processes
    /// map it. With `everybody` all processes are traced, and pages without an owner are reported, too.
    pub fn ensure_each_page_once(&self, everybody: bool) -> Result<()> {
        let books = &self.summary.books;
        let Unattributed {
            unsearched_pages,
            not_found_pages,
        } = books.unattributed;
        let nobodys = if everybody {
            0
        } else {
            unsearched_pages + not_found_pages
        };
        let sums = books.reported_pages + books.filtered_pages + nobodys;
        ensure!(
            self.summary.lost.events > 0 || sums == books.moved_pages + books.unbooked_pages,
            "{sums} pages by what became of them: {books:?}"
        );
        Ok(())
    }

    /// Checks as [`Trace::ensure_sound`] does, to the page: only the exact backend can do that.
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
