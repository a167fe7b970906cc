//! Page cache that is locked while it waits for its content, among memory with holes.
//! Input: the module `fuse`, for the file; on stdin any order, answered by the frames that compaction could not move,
//! with the begin and the end of that time.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::protocol::{Workload, next_order, say};
use crate::churn_log::now;
use crate::machine::fuse::Unanswered;
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::machine::provoke::{self, Knob};

pub const WORKLOAD: Workload = Workload {
    name: "locked",
    what: "locked: page cache of a file that is never read, among memory with holes; any order compacts memory, and \
           reports begin and end (CLOCK_MONOTONIC, ns), and the frames that were locked all that time",
    run,
};

/// The size of the memory with holes, of which three quarters are returned.
const PUNCHED: usize = 256 << 20;
/// The size of the file. The kernel fills the smallest holes first, and there is one for each page that was kept. With
/// all of them filled, compaction meets pages of the file in every block.
const BYTES: usize = PUNCHED / 4;
/// The most that one call of readahead reads (`VM_READAHEAD_PAGES`, include/linux/pagemap.h, 6.1 to 7.3).
const READAHEAD: usize = 128 << 10;
/// kcompactd has met them within this time.
const COMPACTING: Duration = Duration::from_secs(3);
const PATH: &str = "/tmp/unread";

fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "usage: locked");
    let page = rustix::param::page_size();
    numa::run_on(0)?;
    say("ready")?;
    while next_order()?.is_some() {
        // Compaction moves pages up: ballast takes the top of the zone first, and leaves it free.
        let mut ballast = Memory::base_pages(PUNCHED)?;
        ballast.fill();
        let mut punched = Memory::base_pages(PUNCHED)?;
        punched.fill();
        drop(ballast);
        punched.thin_out(4 * page, page)?;
        let before = locked()?;
        let mounted = Unanswered::mount(Path::new(PATH), BYTES as u64)?;
        let file = File::open(PATH).context("open the file")?;
        // Readahead needs the size first.
        ensure!(
            file.metadata().context("ask for the size")?.len() == BYTES as u64,
            "its size"
        );
        for at in (0..BYTES).step_by(READAHEAD) {
            let (at, len) = (i64::try_from(at)?, i64::try_from(READAHEAD)?);
            // SAFETY: no memory is touched.
            let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), at, len, libc::POSIX_FADV_WILLNEED) };
            ensure!(
                result == 0,
                "posix_fadvise: {}",
                std::io::Error::from_raw_os_error(result)
            );
        }
        // Compaction takes pages on the LRU lists, but not those that are still being added: this waits for them.
        provoke::write("/proc/sys/vm/drop_caches", "1")?;
        let mine = || -> Result<BTreeSet<u64>> { Ok(locked()?.difference(&before).copied().collect()) };
        let (from, first) = (now(), mine()?);
        compact()?;
        let (last, until) = (mine()?, now());
        drop(file);
        mounted.unmount()?;
        // Other processes lock pages for a moment.
        let frames: Vec<String> = first.intersection(&last).map(u64::to_string).collect();
        ensure!(frames.len() >= BYTES / page, "{} pages are locked", frames.len());
        say(&format!("{from} {until} {}", frames.join(" ")))?;
    }
    Ok(())
}

/// The frames with the flag LOCKED in /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst).
fn locked() -> Result<BTreeSet<u64>> {
    provoke::frames_with(1 << 0)
}

/// Takes the free huge pages, and those that direct compaction makes, which waits for no lock. The free memory that is
/// left is holes, enough for kcompactd to compact on its own. kcompactd does not wait for the lock of a page without
/// content (6.12 to 7.3, mm/migrate.c, `migrate_folio_unmap`).
fn compact() -> Result<()> {
    const HUGE_PAGES: &str = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages";
    const PROACTIVENESS: &str = "/proc/sys/vm/compaction_proactiveness";
    provoke::write(HUGE_PAGES, "1024")?;
    let proactiveness = Knob::set(PROACTIVENESS, "100")?;
    thread::sleep(COMPACTING);
    drop(proactiveness);
    provoke::write(HUGE_PAGES, "0")
}
