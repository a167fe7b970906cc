//! Pages that are copied on write: of both sides of a fork, of a file that is mapped privately, and of the zero page.
//! Input: the kind of page; on stdin `mark`, then `write`, answered by the reports of all processes that map them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::mover::{Pages, read};
use super::protocol::{Workload, serve};
use super::sharer::Sharer;
use crate::machine::memory::{HUGE, Memory, tmpfs};
use crate::machine::provoke;
use crate::truth::{Moves, Report, Reports, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "copy",
    what: "copy fork|thp|hugetlb|file|zero: `mark`, then `write` writes to pages that this process shares",
    run,
};

pub const PAGES: usize = 128;
/// The number of hugetlb pages.
pub const HUGE_PAGES: usize = 4;
/// The number is odd, so that both processes write to the page in the middle.
pub const THPS: usize = 3;

fn run(args: &[String]) -> Result<()> {
    let mut memory = match args {
        [what] if what == "hugetlb" => {
            // Half of them are copied twice, and no page may be missing.
            fs::write("/proc/sys/vm/nr_hugepages", (2 * HUGE_PAGES).to_string()).context("reserve hugetlb pages")?;
            Memory::hugetlb(HUGE_PAGES * HUGE)?
        }
        [what] if what == "thp" => Pages::Thp.map(THPS * HUGE, 0)?,
        [what] if what == "file" => {
            provoke::write("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "never")?;
            let len = PAGES * rustix::param::page_size();
            Memory::private_of_file(&tmpfs(len)?, len)?
        }
        _ => Memory::base_pages(PAGES * rustix::param::page_size())?,
    };
    // khugepaged would collapse again the huge pages that a write has split.
    rustix::thread::disable_transparent_huge_pages(true).context("keep khugepaged away")?;
    let range = memory.addresses();
    let half = range.start + (range.end - range.start) / 2;
    let mut child = match args {
        [what] if ["fork", "thp", "hugetlb"].contains(&what.as_str()) => {
            memory.fill();
            // The parent has copied the first half by then, so its old pages belong to the child alone.
            let all = range.clone();
            Some(Sharer::fork(range.clone(), move || {
                write(&all);
                Ok(())
            })?)
        }
        [what] if what == "zero" => {
            std::hint::black_box(memory.read());
            None
        }
        [what] if what == "file" => {
            // A page that is written to without having been read had no frame before.
            read(&(range.start..half));
            None
        }
        _ => bail!("usage: copy fork|thp|hugetlb|file|zero"),
    };
    serve(&range, "write", |before| {
        let mut reports = Vec::new();
        let mut waits = BTreeMap::new();
        if let Some(child) = &mut child {
            waits = write_timed(&(range.start..half));
            reports.push((child.pid, child.report()?));
        }
        // If there was a child, the second half belongs to this process alone now.
        write(&range);
        let moves = Moves::between(before, &Snapshot::take(range.clone())?)?;
        let report = Report::new(range.clone(), moves);
        reports.push((std::process::id(), Report { waits, ..report }));
        Reports(reports).to_line()
    })
}

/// Writes a byte to each page.
pub fn write(range: &Range<u64>) {
    for address in range.clone().step_by(rustix::param::page_size()) {
        // SAFETY: within a live private mapping of this process, to which no reference exists now.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(address as usize).write_volatile(7) };
    }
}

/// The same, and how long each write took, in nanoseconds.
fn write_timed(range: &Range<u64>) -> BTreeMap<u64, u64> {
    let page = rustix::param::page_size();
    let timed = range.clone().step_by(page).map(|address| {
        let begun = Instant::now();
        write(&(address..address + page as u64));
        (address, begun.elapsed().as_nanos() as u64)
    });
    timed.collect()
}
