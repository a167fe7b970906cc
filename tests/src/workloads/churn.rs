//! Processes that come and go faster than process numbers last, while another process moves their pages.
//! Input: a file for the truth and the number of lives; on stdin any order starts it. [`crate::churn_log`] describes
//! the file.

use std::ffi::CString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::set_name;

use super::protocol::{Workload, next_order, say};
use crate::churn_log::{self, Log, PAGES, Phase, REBORN_NAME, TREES};
use crate::machine::memory::Memory;
use crate::machine::numa;

pub const WORKLOAD: Workload = Workload {
    name: "churn",
    what: "churn LOG LIVES MILLISECONDS: two families of LIVES short processes each, whose pages are moved all the time",
    run,
};

pub const REBORN: Workload = Workload {
    name: "reborn",
    what: "reborn LOG LIFE MILLISECONDS: the program that some of churn's processes become",
    run: reborn,
};

/// The number of process numbers: the kernel hands out those below 300 only once (kernel/pid.c, `alloc_pid`).
const PID_MAX: &str = "350";
/// The number of processes of one family at the same time.
const AT_ONCE: usize = 4;
/// The longest time that a life waits for its pages to be moved.
const PATIENCE: Duration = Duration::from_secs(2);
/// The interval at which all memory is compacted.
const COMPACT: Duration = Duration::from_millis(500);

/// The number of lives in a family, and the duration of those that do not end at once.
type Lives = (u32, Duration);

/// The lives at this moment: each place has the process's number and its life's, or 0. The families share it.
struct Living(Memory);

impl Living {
    fn places(&self) -> &[AtomicU64] {
        &self.words()[1..]
    }

    /// The number of times that all processes' pages have been moved.
    fn rounds(&self) -> &AtomicU64 {
        &self.words()[0]
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: zeroed memory of a page, aligned; all processes that map it use it only as atomic integers.
        unsafe { std::slice::from_raw_parts(self.0.bytes().as_ptr().cast(), 1 + AT_ONCE * TREES.len()) }
    }

    /// Waits for a while, or longer until its pages have been moved.
    fn stay(&self, stay: Duration) {
        let (started, first) = (Instant::now(), self.rounds().load(Ordering::Relaxed));
        let moved = || self.rounds().load(Ordering::Relaxed) >= first + 2 || started.elapsed() > PATIENCE;
        while started.elapsed() < stay || !moved() {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let [log, count, stay] = args else {
        bail!("usage: churn LOG LIVES MILLISECONDS")
    };
    let path = Path::new(log);
    let count: u32 = count.parse().context("parse LIVES")?;
    let stay = Duration::from_millis(stay.parse().context("parse MILLISECONDS")?);
    let exe = std::env::current_exe().context("find this program")?;
    // The new name distinguishes the program from the one before.
    std::os::unix::fs::symlink(exe, path.with_file_name(REBORN_NAME)).context("link this program")?;
    let log = Log::open(path)?;
    let living = Living(Memory::shared(rustix::param::page_size())?);
    say("ready")?;
    while next_order()?.is_some() {
        let knob = "/proc/sys/kernel/pid_max";
        let numbers = fs::read_to_string(knob).context("read pid_max")?;
        fs::write(knob, PID_MAX).context("make process numbers scarce")?;
        let done = churn(path, &log, &living, (count, stay));
        fs::write(knob, numbers.trim()).context("restore pid_max")?;
        let families: Vec<String> = done?.iter().map(ToString::to_string).collect();
        say(&families.join(" "))?;
    }
    Ok(())
}

/// Runs the families, moves the pages of living processes, and returns the families' numbers.
fn churn(path: &Path, log: &Log, living: &Living, lives: Lives) -> Result<Vec<Pid>> {
    let mut families = Vec::new();
    for tree in 0..TREES.len() {
        families.push(fork(|| family(path, log, living, tree, lives))?);
    }
    let all = families.clone();
    let mut compacted = Instant::now();
    for round in 0u32.. {
        for place in living.places() {
            let living = place.load(Ordering::Relaxed);
            let (pid, life) = ((living >> 32) as u32, living as u32);
            if pid == 0 {
                continue;
            }
            for phase in [Phase::Born, Phase::Reborn] {
                let node = i32::from(round.is_multiple_of(2));
                // The process may have ended, or be another one, which has no pages there.
                let _ = numa::move_pages_of(pid, churn_log::range(life, phase), node, false);
            }
        }
        living.rounds().fetch_add(1, Ordering::Relaxed);
        // The pause gives new processes time to start.
        thread::sleep(Duration::from_millis(1));
        if compacted.elapsed() > COMPACT {
            fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
            compacted = Instant::now();
        }
        families.retain(|pid| matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None)));
        if families.is_empty() {
            break;
        }
    }
    Ok(all)
}

/// Runs a family: a parent of many processes.
fn family(path: &Path, log: &Log, living: &Living, tree: usize, (count, stay): Lives) -> Result<()> {
    set_name(&CString::new(TREES[tree])?).context("take a name")?;
    let places = &living.places()[tree * AT_ONCE..][..AT_ONCE];
    let mut children: Vec<(Pid, u32)> = Vec::new();
    for number in 0..count {
        if children.len() == AT_ONCE {
            bury(log, places, &mut children)?;
        }
        let life = number * TREES.len() as u32 + tree as u32;
        let before = churn_log::now();
        let pid = fork(|| live(path, log, living, (life, stay)))?;
        log.born(life, pid.as_raw_pid().cast_unsigned(), before)?;
        let entry = u64::from(pid.as_raw_pid().cast_unsigned()) << 32 | u64::from(life);
        if let Some(free) = places.iter().find(|place| place.load(Ordering::Relaxed) == 0) {
            free.store(entry, Ordering::Relaxed);
        }
        children.push((pid, life));
    }
    while !children.is_empty() {
        bury(log, places, &mut children)?;
    }
    Ok(())
}

/// Waits for the end of one child, which frees its number.
fn bury(log: &Log, places: &[AtomicU64], children: &mut Vec<(Pid, u32)>) -> Result<()> {
    let Some((pid, status)) = rustix::process::wait(WaitOptions::empty()).context("wait for a child")? else {
        return Ok(());
    };
    let at = children
        .iter()
        .position(|(child, _)| *child == pid)
        .context("somebody else's child")?;
    let (_, life) = children.swap_remove(at);
    log.died(life)?;
    ensure!(status.exit_status() == Some(0), "life {life} ended badly: {status:?}");
    let of_it = |place: &&AtomicU64| place.load(Ordering::Relaxed) as u32 == life && place.load(Ordering::Relaxed) != 0;
    if let Some(place) = places.iter().find(of_it) {
        place.store(0, Ordering::Relaxed);
    }
    Ok(())
}

/// Runs one of three lives: it ends at once, stays for a moment, or becomes another program after a moment.
fn live(path: &Path, log: &Log, living: &Living, (life, stay): (u32, Duration)) -> Result<()> {
    let memory = settle_down(log, life, Phase::Born)?;
    match life / TREES.len() as u32 % 3 {
        0 => {}
        1 => living.stay(stay),
        _ => {
            living.stay(stay);
            log.leaves(life)?;
            let become_other = Command::new(path.with_file_name(REBORN_NAME))
                .args(["work", "reborn"])
                .arg(path)
                .args([life.to_string(), stay.as_millis().to_string()])
                .exec();
            return Err(become_other).context("become another program");
        }
    }
    // Its pages may still be moving while it exits.
    std::mem::forget(memory);
    Ok(())
}

fn reborn(args: &[String]) -> Result<()> {
    let [log, life, stay] = args else {
        bail!("usage: reborn LOG LIFE MILLISECONDS")
    };
    let memory = settle_down(
        &Log::open(Path::new(log))?,
        life.parse().context("parse LIFE")?,
        Phase::Reborn,
    )?;
    thread::sleep(Duration::from_millis(stay.parse().context("parse MILLISECONDS")?));
    std::mem::forget(memory);
    Ok(())
}

/// Maps and fills pages at addresses that no other life has.
fn settle_down(log: &Log, life: u32, phase: Phase) -> Result<Memory> {
    log.there(life, phase)?;
    let range = churn_log::range(life, phase);
    let mut memory = Memory::at(range.start, PAGES as usize * rustix::param::page_size())?;
    memory.fill();
    Ok(memory)
}

/// Forks a child that runs `child` and ends.
fn fork(child: impl FnOnce() -> Result<()>) -> Result<Pid> {
    loop {
        // SAFETY: this process has one thread, so the child may do anything that the parent may.
        match unsafe { libc::fork() } {
            // No number is free at the moment.
            -1 if std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN) => thread::yield_now(),
            -1 => return Err(std::io::Error::last_os_error()).context("fork"),
            0 => {
                let done = child();
                if let Err(error) = &done {
                    eprintln!("{error:?}");
                }
                std::process::exit(i32::from(done.is_err()));
            }
            pid => return Pid::from_raw(pid).context("a pid"),
        }
    }
}
