//! Page cache on its way to a slow disk.
//! Input: the module null_blk in the initramfs; on stdin any order, answered by the frames that DAMON could not move.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::protocol::{Workload, next_order, say};
use crate::machine::numa;
use crate::machine::provoke;

pub const WORKLOAD: Workload = Workload {
    name: "writeback",
    what: "writeback: page cache that goes to a slow disk, on node 0; any order makes DAMON try to move it, and reports its frames",
    run,
};

/// The module in the initramfs, if this kernel has one.
pub const MODULE: &str = "/lib/modules/null_blk.ko";
/// The module that it needs.
const CONFIGFS: &str = "/lib/modules/configfs.ko";
const DEVICE: &str = "/dev/nullb0";
const BYTES: usize = 128 << 10;
/// The time that the disk takes for each request, including the requests that look for its partitions.
const REQUEST: Duration = Duration::from_secs(6);
/// DAMON tries every 50 ms, so it has tried several times within this time.
const TRYING: Duration = Duration::from_secs(2);

fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "usage: writeback");
    numa::run_on(0)?;
    if !fs::exists(DEVICE)? {
        provoke::load_module(CONFIGFS, "")?;
        let options = format!("nr_devices=1 gb=1 irqmode=2 completion_nsec={}", REQUEST.as_nanos());
        provoke::load_module(MODULE, &options)?;
    }
    let disk = OpenOptions::new().read(true).write(true).open(DEVICE).context(DEVICE)?;
    say("ready")?;
    while next_order()?.is_some() {
        let before = under_writeback()?;
        disk.write_all_at(&vec![1; BYTES], 0).context("write to the disk")?;
        // SAFETY: no memory is touched.
        let result = unsafe { libc::sync_file_range(disk.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        ensure!(result == 0, "sync_file_range: {}", std::io::Error::last_os_error());
        let started = Instant::now();
        // DAMON takes pages on the LRU lists, but not those that are still being added: this waits for them.
        fs::write("/proc/sys/vm/drop_caches", "1").context("drop caches")?;
        let mine = || -> Result<BTreeSet<u64>> { Ok(under_writeback()?.difference(&before).copied().collect()) };
        let frames = mine()?;
        ensure!(
            frames.len() == BYTES / rustix::param::page_size(),
            "{} pages are on their way",
            frames.len()
        );
        let (first, last) = frames.first().zip(frames.last()).context("no page")?;
        provoke::damon_migrate_frames(*first..=*last, 1, || {
            thread::sleep(TRYING);
            Ok(())
        })?;
        ensure!(started.elapsed() < REQUEST && mine()? == frames, "the disk was faster");
        let numbers: Vec<String> = frames.iter().map(u64::to_string).collect();
        say(&numbers.join(" "))?;
        disk.sync_all().context("wait for the disk")?;
    }
    Ok(())
}

/// The frames with the flag WRITEBACK in /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst).
fn under_writeback() -> Result<BTreeSet<u64>> {
    provoke::frames_with(1 << 8)
}
