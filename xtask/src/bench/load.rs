//! The load: a process that makes the kernel move 250,000 pages and more, and measures its own cost.
//! Input: lines on stdin; the pools of huge pages under /sys; `pgmigrate_success` of /proc/vmstat.
//!
//! A page of a gigabyte is available only if the kernel moves the pages there away (`alloc_contig_pages`). To have
//! pages there, the process fills its own memory while huge pages that nobody touches take all other free memory. The
//! targets of the moves are memory that was in use a moment before: memory that the machine's host must first provide
//! would cost more than the move.

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
/// The number of gigabytes that are emptied.
const GIGANTIC: usize = 2;
/// The memory that is filled, bytes. Free pieces smaller than a huge page are filled first.
const FILLED: usize = 1600 << 20;
/// Memory that is left to other processes.
const LEFT: usize = 900 << 20;
/// A run that moved fewer pages is repeated, because other processes' memory was in the way.
pub const LEAST: u64 = 100_000;

/// The number of moved pages, and the cost for the process.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    pub pages: u64,
    /// Nanoseconds of CPU time.
    pub cpu: u64,
}

/// The load as the benchmark sees it: filled and about to move.
pub struct Load {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Load {
    pub fn start() -> Result<Self> {
        // It is not killed with this process, because it has to return the huge pages first.
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
        ensure!(answer == "ready", "the load answered {answer:?} instead of ready");
        Ok(load)
    }

    /// Makes the kernel move its pages.
    pub fn go(mut self) -> Result<Moved> {
        writeln!(self.orders.as_mut().context("its stdin")?, "go").context("start the moves of the load")?;
        let answer = self.answer()?;
        let mut numbers = answer.split(' ').map(str::parse);
        let (Some(Ok(pages)), Some(Ok(cpu))) = (numbers.next(), numbers.next()) else {
            bail!("the load answered {answer:?} instead of its numbers")
        };
        Ok(Moved { pages, cpu })
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .context("read the answer of the load")?;
        ensure!(
            !line.is_empty(),
            "the load ended early; its message above gives the reason"
        );
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// The reason why this machine cannot run the load, if there is one.
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

/// Runs the process. It writes one line each: `ready`, then `PAGES NANOSECONDS`.
pub fn serve() -> Result<()> {
    // SAFETY: no handler is installed. Ctrl-C ends the benchmark; this process ends when the huge pages are back.
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
    // The recorder now reads the remaining events.
    drop((gigantic, memory));
    say(&format!("{pages} {cpu}"))
}

/// Fills memory in the place of the next gigantic pages.
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
    // The returned memory has settled by then.
    thread::sleep(Duration::from_millis(50));
    Ok(memory)
}

/// The huge pages of one size. Drop restores their number.
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

    /// Adds this number of pages, or as many as possible.
    fn resize(&self, more: usize) -> Result<()> {
        let number = (self.before + more).to_string();
        fs::write(&self.path, number).with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A failure here cannot be handled.
        let _ = self.resize(0);
    }
}

/// The number of pages that the kernel has moved since boot.
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
