//! A hugetlb page that is moved while other pages of its VMA are faulted in. The faults hold the VMA's lock, without
//! which the page cannot be unmapped (`hugetlb_vma_trylock_write`, mm/rmap.c, 6.1 to 7.3).
//! Input: on stdin any order, answered by the page's owners, its address, the number of times that it stayed, and its frames.

use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::mover::Pages;
use super::protocol::{Workload, next_order, say};
use super::sharer::Sharer;
use crate::machine::numa;
use crate::truth::Snapshot;

pub const WORKLOAD: Workload = Workload {
    name: "contended",
    what: "contended alone|shared: hugetlb pages of a file; any order moves the first between nodes while the others are \
           faulted in; reports the PIDs of its owners (0: no child), its address, how often it stayed, and its frames",
    run,
};

const HUGE: usize = 2 << 20;
/// The page that moves, and the pages that are faulted in.
const PAGES: usize = 9;
/// The page is moved until it has stayed this often.
const STAYED: usize = 8;
const PATIENCE: Duration = Duration::from_secs(20);

fn run(args: &[String]) -> Result<()> {
    let shared = match args {
        [who] if who == "alone" => false,
        [who] if who == "shared" => true,
        _ => bail!("usage: contended alone|shared"),
    };
    numa::run_on(0)?;
    let mut memory = Pages::HugetlbShared.map(PAGES * HUGE, 0)?;
    let first = memory.addresses().start;
    let others = first + HUGE as u64..memory.addresses().end;
    let child = shared
        .then(|| Sharer::fork(first..others.start, || Ok(())))
        .transpose()?;
    let pids = [process::id(), child.as_ref().map_or(0, |child| child.pid)];
    say("ready")?;
    while next_order()?.is_some() {
        let over = AtomicBool::new(false);
        // Removing pages from a file locks all of its mappings, which is another reason why a page stays.
        let taking_out = Mutex::new(());
        let (stayed, frames) = thread::scope(|scope| {
            let moving = scope.spawn(|| {
                let moved = move_about(first, &taking_out);
                over.store(true, Ordering::Relaxed);
                moved
            });
            while !over.load(Ordering::Relaxed) {
                {
                    let _alone = taking_out.lock();
                    memory.take_out(&others)?;
                }
                memory.touch(&others);
            }
            moving.join().ok().context("the mover panicked")?
        })?;
        let frames: Vec<String> = frames.iter().map(u64::to_string).collect();
        let [pid, child] = pids;
        say(&format!("{pid} {child} {first} {stayed} {}", frames.join(" ")))?;
    }
    Ok(())
}

/// Moves the page at the address from node to node until it has stayed often enough, and has moved. Returns the number
/// of times that it stayed, and its frames one after the other.
fn move_about(first: u64, taking_out: &Mutex<()>) -> Result<(usize, Vec<u64>)> {
    numa::run_on(1)?;
    let page = first..first + rustix::param::page_size() as u64;
    let frame = || Snapshot::take(page.clone())?.frame_at(first).context("it is not there");
    let (started, mut stayed, mut frames) = (Instant::now(), 0, vec![frame()?]);
    while stayed < STAYED || frames.len() < 2 {
        ensure!(
            started.elapsed() < PATIENCE,
            "it stayed {stayed} times, and had {frames:x?}"
        );
        let there = numa::node_of(first)?;
        let alone = taking_out.lock();
        numa::move_pages(page.clone(), i32::from(there == 0), true)?;
        drop(alone);
        let now = frame()?;
        if frames.last() == Some(&now) {
            stayed += 1;
        } else {
            frames.push(now);
        }
    }
    Ok((stayed, frames))
}
