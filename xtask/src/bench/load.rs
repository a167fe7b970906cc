//! The load: a process that lets the kernel move 250,000 pages and more, and knows what that cost it.
//! Input: lines on stdin; the pools of huge pages under /sys; `pgmigrate_success` of /proc/vmstat.
//!
//! A page of a gigabyte can be had only where the kernel moves away what lies there (`alloc_contig_pages`). So that
//! something lies there, all other free memory is taken for a moment while the process fills its own, by huge pages
//! that nobody touches. Where the moved pages go there was memory in use a moment before: what the machine's host has
//! yet to provide would cost more than the move.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::child::{nanos, own_cpu};
use crate::host::memory::{Pages, meminfo};

const GIB: usize = 1 << 30;
const SMALL: usize = 2 << 20;
/// Gigabytes that are emptied.
const GIGANTIC: usize = 2;
/// What is filled: what fits, and what else is free in pieces below a huge page comes first.
const FILLED: usize = 1600 << 20;
/// Is left to everybody else.
const LEFT: usize = 900 << 20;
/// A run that moved less is made again: somebody else's memory came into the way.
pub const LEAST: u64 = 100_000;

/// What moved and what that cost the process.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    pub pages: u64,
    /// Nanoseconds of CPU time.
    pub cpu: u64,
}

/// The load, seen from the benchmark: filled and about to move.
pub struct Load {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Load {
    pub fn start() -> Result<Self> {
        // It is not killed with us: it has to give back the huge pages first.
        let mut child = Command::new(std::env::current_exe().context("find this program")?)
            .args(["bench", "--load"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the load")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("a piped stdout")?);
        let mut load = Self { child, orders, answers };
        let answer = load.answer()?;
        ensure!(answer == "ready", "the load said {answer:?} instead of ready");
        Ok(load)
    }

    /// Lets the kernel move its pages.
    pub fn go(mut self) -> Result<Moved> {
        writeln!(self.orders.as_mut().context("its stdin")?, "go").context("tell the load to go")?;
        let answer = self.answer()?;
        let mut numbers = answer.split(' ').map(str::parse);
        let (Some(Ok(pages)), Some(Ok(cpu))) = (numbers.next(), numbers.next()) else {
            bail!("the load said {answer:?} instead of its numbers")
        };
        Ok(Moved { pages, cpu })
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("hear from the load")?;
        ensure!(!line.is_empty(), "the load ended early; above it says why");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// Why this machine cannot serve the load, if it cannot.
pub fn refused() -> Result<Option<String>> {
    for size in [GIB, SMALL] {
        if !Pool::path(size).exists() {
            return Ok(Some(format!("the kernel has no huge pages of {} MiB", size >> 20)));
        }
    }
    let (needed, available) = ((GIGANTIC + 1) * GIB + 2 * FILLED + LEFT, meminfo("MemAvailable")?);
    Ok((available < needed).then(|| {
        let mib = |bytes| bytes >> 20;
        format!(
            "it takes {} MiB of memory, and {} are available",
            mib(needed),
            mib(available)
        )
    }))
}

/// What the process does, on a line each: it says `ready`, then `PAGES NANOSECONDS`.
pub fn serve() -> Result<()> {
    // SAFETY: no handler is installed. Ctrl-C is for the benchmark, whose end is ours once the huge pages are back.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
    let memory = fill()?;
    say("ready")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("read stdin")?;
    if line.is_empty() {
        return Ok(());
    }
    let gigantic = Pool::find(GIB)?;
    let (before, began) = (moved()?, own_cpu());
    gigantic.resize(GIGANTIC)?;
    let cpu = nanos(own_cpu().saturating_sub(began));
    let pages = moved()? - before;
    // The recorder's turn to read what is left.
    drop((gigantic, memory));
    say(&format!("{pages} {cpu}"))
}

/// Fills memory that lies where the next gigantic pages come from.
fn fill() -> Result<Pages> {
    let warm = Pages::filled(FILLED)?;
    let gigantic = Pool::find(GIB)?;
    gigantic.resize(GIGANTIC)?;
    let rest = Pool::find(SMALL)?;
    rest.resize(meminfo("MemFree")?.saturating_sub(LEFT) / SMALL)?;
    drop(gigantic);
    let memory = Pages::filled(FILLED)?;
    drop(rest);
    drop(warm);
    // What was given back has settled by then.
    thread::sleep(Duration::from_millis(50));
    Ok(memory)
}

/// The huge pages of one size; as many as before on drop.
struct Pool {
    path: PathBuf,
    before: usize,
}

impl Pool {
    fn path(size: usize) -> PathBuf {
        format!("/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", size >> 10).into()
    }

    fn find(size: usize) -> Result<Self> {
        let path = Self::path(size);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let before = text.trim().parse().context("a number of huge pages")?;
        Ok(Self { path, before })
    }

    /// So many more, or as many as there can be.
    fn resize(&self, more: usize) -> Result<()> {
        let number = (self.before + more).to_string();
        fs::write(&self.path, number).with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Nobody could do anything about it.
        let _ = self.resize(0);
    }
}

/// Pages that the kernel has moved since it booted.
fn moved() -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat").context("read /proc/vmstat")?;
    let count = vmstat.lines().find_map(|line| line.strip_prefix("pgmigrate_success "));
    let count = count.context("/proc/vmstat has no pgmigrate_success (CONFIG_MIGRATION)")?;
    count.parse().context("a count of pages")
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("write to stdout")
}
