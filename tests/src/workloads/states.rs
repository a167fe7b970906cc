//! Memory in every state that this kernel and machine have, at addresses that are reported.
//! Input: none; on stdin any order is answered by its ranges once more.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::protocol::{Workload, next_order, say};
use super::swap;
use crate::machine::memory::{HUGE, Memory};

pub const WORKLOAD: Workload = Workload {
    name: "states",
    what: "states: memory that is present, untouched, read only, guarded, marked, swapped, huge; reports the ranges in JSON",
    run,
};

/// Pages of each range of base pages.
const PAGES: usize = 32;

/// A range of addresses whose pages are all alike.
#[derive(Debug, Serialize, Deserialize)]
pub struct Made {
    /// The workload's name for it.
    pub name: String,
    pub start: u64,
    pub end: u64,
    /// The state, by tracer's name. None: nothing is there.
    pub state: Option<String>,
    /// The order of the folios, if it is certain.
    pub order: Option<u8>,
    /// Flags of the frame or the entry that are set on all pages.
    pub flags: Vec<String>,
}

fn made(name: &str, memory: &Memory, state: Option<&str>, order: Option<u8>, flags: &[&str]) -> Made {
    let range = memory.addresses();
    Made {
        name: name.to_owned(),
        start: range.start,
        end: range.end,
        state: state.map(str::to_owned),
        order,
        flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
    }
}

fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "usage: states");
    let bytes = PAGES * rustix::param::page_size();
    let mut all = Vec::new();
    let mut kept = Vec::new();

    let mut present = Memory::base_pages(bytes)?;
    present.fill();
    all.push(made(
        "present",
        &present,
        Some("present"),
        Some(0),
        &["anon", "exclusive"],
    ));
    kept.push(present);

    let hole = Memory::base_pages(bytes)?;
    all.push(made("hole", &hole, None, None, &[]));
    kept.push(hole);

    let zero = Memory::base_pages(bytes)?;
    std::hint::black_box(zero.read());
    all.push(made("zero", &zero, Some("zero"), None, &[]));
    kept.push(zero);

    let mut shared = Memory::shared(bytes)?;
    shared.fill();
    all.push(made("shmem", &shared, Some("present"), None, &["swapbacked", "file"]));
    kept.push(shared);

    let guard = Memory::base_pages(bytes)?;
    // `MADV_GUARD_INSTALL`, include/uapi/asm-generic/mman-common.h (6.13 and later).
    if guard.advise(102).is_ok() {
        all.push(made("guard", &guard, Some("guard"), None, &[]));
    }
    kept.push(guard);

    let marked = Memory::shared(bytes)?;
    let _faults = protect(&marked).context("protect by userfaultfd")?;
    all.push(made("uffd_wp", &marked, Some("uffd_wp"), None, &["uffd_wp"]));
    kept.push(marked);

    if fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").is_ok_and(|text| !text.contains("[never]")) {
        let mut huge = Memory::huge_pages(2 * HUGE)?;
        huge.fill();
        // The kernel may have had no huge page: smaps shows that to the case.
        all.push(made("thp", &huge, Some("present"), None, &["anon"]));
        kept.push(huge);
    }

    if Path::new(swap::MODULE).exists() {
        swap::swap_on()?;
        let mut swapped = Memory::base_pages(bytes)?;
        swapped.fill();
        swap::swap_out(&swapped)?;
        all.push(made("swapped", &swapped, Some("swapped"), None, &[]));
        kept.push(swapped);
    }

    // This needs a reserved page; a VM has some.
    if let Ok(mut hugetlb) = Memory::hugetlb(HUGE).and_then(|memory| {
        ensure!(reserved()? > 0, "none reserved");
        Ok(memory)
    }) {
        hugetlb.fill();
        all.push(made("hugetlb", &hugetlb, Some("present"), Some(9), &["huge"]));
        kept.push(hugetlb);
    }

    let line = serde_json::to_string(&all)?;
    say("ready")?;
    say(&line)?;
    while next_order()?.is_some() {
        say(&line)?;
    }
    drop(kept);
    Ok(())
}

/// The number of hugetlb pages that are reserved or free.
fn reserved() -> Result<u64> {
    let text = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")?;
    Ok(text.trim().parse()?)
}

/// Write-protects memory that has no pages yet: the kernel sets a marker for each page.
fn protect(memory: &Memory) -> Result<File> {
    const UFFD_API: u64 = 0xaa;
    const UFFDIO_API: u64 = 0xc018_aa3f;
    const UFFDIO_REGISTER: u64 = 0xc020_aa00;
    const UFFDIO_WRITEPROTECT: u64 = 0xc018_aa06;
    /// `UFFD_FEATURE_WP_HUGETLBFS_SHMEM`.
    const OF_SHMEM: u64 = 1 << 12;
    /// `UFFDIO_REGISTER_MODE_WP`.
    const REGISTER_WP: u64 = 1 << 1;
    /// `UFFDIO_WRITEPROTECT_MODE_WP`.
    const WP: u64 = 1;
    // SAFETY: no memory is touched.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    ensure!(fd >= 0, "userfaultfd: {}", io::Error::last_os_error());
    // SAFETY: a new file descriptor that nobody else has.
    let faults = unsafe { File::from_raw_fd(i32::try_from(fd)?) };
    let range = memory.addresses();
    let (start, len) = (range.start, range.end - range.start);
    // struct uffdio_api: api, features, ioctls.
    ioctl(&faults, UFFDIO_API, &mut [UFFD_API, OF_SHMEM, 0]).context("UFFDIO_API")?;
    // struct uffdio_register: start, len, mode, ioctls.
    ioctl(&faults, UFFDIO_REGISTER, &mut [start, len, REGISTER_WP, 0]).context("UFFDIO_REGISTER")?;
    // struct uffdio_writeprotect: start, len, mode.
    ioctl(&faults, UFFDIO_WRITEPROTECT, &mut [start, len, WP]).context("UFFDIO_WRITEPROTECT")?;
    Ok(faults)
}

fn ioctl<const WORDS: usize>(faults: &File, request: u64, argument: &mut [u64; WORDS]) -> Result<()> {
    // SAFETY: each request contains its size, which is that of its argument.
    let result = unsafe { libc::ioctl(faults.as_raw_fd(), request, argument.as_mut_ptr()) };
    ensure!(result == 0, "{}", io::Error::last_os_error());
    Ok(())
}
