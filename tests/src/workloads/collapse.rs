//! Base pages with gaps among them, made into huge pages or smaller large folios by the kernel.
//! Input: the kernel's way to collapse; on stdin `mark`, then `collapse`, answered by the report.

use std::fs;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::mover::MTHP;
use super::protocol::{Workload, serve};
use crate::machine::memory::{HUGE, Memory};
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "collapse",
    what: "collapse madvise|khugepaged ORDER: `mark`, then `collapse` waits until base pages with gaps are large folios",
    run,
};

const HUGE_PAGES: usize = 3;
/// In each huge page, these base pages are missing, and the others were only read.
const ABSENT: Range<usize> = 100..117;
const ONLY_READ: Range<usize> = 200..203;
/// The number of pages in each huge page that have a frame of their own.
pub const WITH_FRAME: usize = 512 - 17 - 3;
/// khugepaged collapses within this time, or never.
const PATIENCE: Duration = Duration::from_mins(1);

fn run(args: &[String]) -> Result<()> {
    let [by, order] = args else {
        bail!("usage: collapse madvise|khugepaged ORDER")
    };
    let order: u8 = order.parse().context("parse ORDER")?;
    let by_madvise = match by.as_str() {
        "madvise" => true,
        "khugepaged" => false,
        other => bail!("nobody is named {other}"),
    };
    let page = rustix::param::page_size();
    let knobs = "/sys/kernel/mm/transparent_hugepage";
    let set = |knob: &str, value: &str| {
        fs::write(format!("{knobs}/{knob}"), value).with_context(|| format!("write {value} to {knob}"))
    };
    // Since 6.8, each size has a knob of its own, which other cases may have set.
    for each in MTHP.into_iter().chain([9]) {
        let knob = format!("hugepages-{}kB/enabled", 4 << each);
        if fs::exists(format!("{knobs}/{knob}"))? {
            set(&knob, if each == order { "inherit" } else { "never" })?;
        }
    }
    // khugepaged checks whether huge pages are enabled; MADV_COLLAPSE does not.
    set("enabled", if by_madvise { "never" } else { "madvise" })?;
    set(
        "khugepaged/scan_sleep_millisecs",
        if by_madvise { "1000000" } else { "10" },
    )?;
    set("khugepaged/pages_to_scan", "65536")?;
    let mut memory = Memory::plain(HUGE_PAGES * HUGE)?;
    let range = memory.addresses();
    for (index, bytes) in memory.bytes_mut().chunks_mut(page).enumerate() {
        match index % 512 {
            at if ABSENT.contains(&at) => {}
            at if ONLY_READ.contains(&at) => {
                std::hint::black_box(bytes[0]);
            }
            at => bytes.fill(at.to_le_bytes()[0]),
        }
    }
    serve(&range, "collapse", |before| {
        if by_madvise {
            memory.collapse()?;
        } else {
            memory.allow_huge_pages()?;
        }
        let started = Instant::now();
        let after = loop {
            let now = Snapshot::take(range.clone())?;
            if now.in_runs_of(1 << order) {
                break now;
            }
            ensure!(started.elapsed() < PATIENCE, "not all collapsed after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(20));
        };
        let mut moves = Moves::between(before, &after)?;
        // The zero page is the frame of many pages, and belongs to none of them.
        let zero = before.frame_at(range.start + (ONLY_READ.start * page) as u64);
        moves.0.retain(|_, moved| Some(moved.old) != zero);
        Report::new(range.clone(), moves).to_line()
    })
}
