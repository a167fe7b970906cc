//! The system calls that move pages, and when and where a thread runs.
//! Input: ranges of this process's own memory; numbers from include/uapi/linux/mempolicy.h.

use std::io;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};

/// `MPOL_MF_MOVE`: pages that only this process maps.
const MOVE: u64 = 1 << 1;
/// `MPOL_MF_MOVE_ALL`: shared pages too; needs CAP_SYS_NICE.
const MOVE_ALL: u64 = 1 << 2;
/// `MPOL_PREFERRED`.
const PREFERRED: u64 = 1;
/// `MPOL_BIND`.
const BIND: u64 = 2;
/// `MADV_SOFT_OFFLINE`, include/uapi/asm-generic/mman-common.h.
const SOFT_OFFLINE: i32 = 101;

fn flags(everybodys: bool) -> u64 {
    if everybodys { MOVE_ALL } else { MOVE }
}

fn check(result: i64, what: &str) -> Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error()).context(what.to_owned())
    } else {
        Ok(())
    }
}

/// Makes this thread run on that CPU, which gets its memory from its own node.
pub fn run_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("run on CPU {cpu}"))
}

/// Makes the first thread of a process (0: this thread) run whenever it can, ahead of all threads with less real-time
/// priority or none, and not be interrupted by its equals.
pub fn run_first(pid: u32, priority: i32) -> Result<()> {
    // SAFETY: all zeros are a valid parameter, whose fields are integers.
    let mut first: libc::sched_param = unsafe { std::mem::zeroed() };
    first.sched_priority = priority;
    // SAFETY: the parameter lives until the call returns.
    let result = unsafe { libc::sched_setscheduler(i32::try_from(pid)?, libc::SCHED_FIFO, &raw const first) };
    check(result.into(), "sched_setscheduler")
}

/// Calls move_pages(2) for every page of the range. The truth shows each page that fails.
pub fn move_pages(range: Range<u64>, node: i32, everybodys: bool) -> Result<()> {
    move_pages_of(0, range, node, everybodys)
}

/// Moves the pages of another process.
pub fn move_pages_of(pid: u32, range: Range<u64>, node: i32, everybodys: bool) -> Result<()> {
    let pages: Vec<u64> = range.step_by(rustix::param::page_size()).collect();
    move_listed(pid, &pages, node, everybodys)
}

/// Moves the pages at these addresses.
pub fn move_listed(pid: u32, pages: &[u64], node: i32, everybodys: bool) -> Result<()> {
    let nodes = vec![node; pages.len()];
    let mut status = vec![0i32; pages.len()];
    // SAFETY: three arrays with the number of elements in the second argument.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            pid,
            pages.len(),
            pages.as_ptr(),
            nodes.as_ptr(),
            status.as_mut_ptr(),
            flags(everybodys),
        )
    };
    check(result, "move_pages")
}

/// Calls mbind(2) to bind the range to a node, with its pages.
pub fn mbind(range: Range<u64>, node: u32, everybodys: bool) -> Result<()> {
    set_policy(range, BIND, node, flags(everybodys))
}

/// Calls mbind(2), so that new memory of the range is from that node if it has any.
pub fn prefer(range: Range<u64>, node: u32) -> Result<()> {
    set_policy(range, PREFERRED, node, 0)
}

fn set_policy(range: Range<u64>, policy: u64, node: u32, flags: u64) -> Result<()> {
    let mask = 1u64 << node;
    // SAFETY: the mask is one word, of which 64 bits are declared valid.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            range.start,
            range.end - range.start,
            policy,
            &raw const mask,
            65u64,
            flags,
        )
    };
    check(result, "mbind")
}

/// The node of the page at an address, by move_pages(2) without targets.
pub fn node_of(address: u64) -> Result<u32> {
    let mut status = -1i32;
    // SAFETY: one address and room for one answer; null targets move nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            1,
            &raw const address,
            std::ptr::null::<i32>(),
            &raw mut status,
            0,
        )
    };
    check(result, "move_pages")?;
    u32::try_from(status).with_context(|| format!("the page at {address:#x} has no node: {status}"))
}

/// Calls migrate_pages(2), which moves all pages of a process from one node to another.
pub fn migrate_pages(pid: u32, from: u32, to: u32) -> Result<()> {
    let (from, to) = (1u64 << from, 1u64 << to);
    // SAFETY: each mask is one word, of which 64 bits are declared valid.
    let result = unsafe { libc::syscall(libc::SYS_migrate_pages, pid, 65u64, &raw const from, &raw const to) };
    check(result, "migrate_pages")
}

/// Uses MADV_SOFT_OFFLINE on the range, page by page: each page's frame is retired, and its content moves.
pub fn soft_offline(range: Range<u64>) -> Result<()> {
    let page = rustix::param::page_size();
    for address in range.step_by(page) {
        // SAFETY: the content of the page does not change.
        let result = unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(address as usize),
                page,
                SOFT_OFFLINE,
            )
        };
        check(i64::from(result), "madvise MADV_SOFT_OFFLINE")?;
    }
    Ok(())
}

/// Pages that a pipe holds references to (vmsplice), so that they cannot be moved.
pub struct Pinned {
    _pipe: (std::os::fd::OwnedFd, std::os::fd::OwnedFd),
}

impl Pinned {
    /// At most 16 pages, as many as a pipe holds.
    pub fn new(range: Range<u64>) -> Result<Self> {
        let len = (range.end - range.start) as usize;
        Self::pieces(&[range.start], len)
    }

    /// Only the first page of each `of` bytes.
    pub fn firsts(range: Range<u64>, of: usize) -> Result<Self> {
        let addresses: Vec<u64> = range.step_by(of).collect();
        Self::pieces(&addresses, rustix::param::page_size())
    }

    fn pieces(addresses: &[u64], each: usize) -> Result<Self> {
        let (reader, writer) = rustix::pipe::pipe().context("make a pipe")?;
        let len = addresses.len() * each;
        let vectors: Vec<libc::iovec> = addresses
            .iter()
            .map(|&address| libc::iovec {
                iov_base: std::ptr::with_exposed_provenance_mut(address as usize),
                iov_len: each,
            })
            .collect();
        // SAFETY: vectors over a live mapping, which outlives the pipe.
        let taken = unsafe {
            libc::vmsplice(
                std::os::fd::AsRawFd::as_raw_fd(&writer),
                vectors.as_ptr(),
                vectors.len(),
                libc::SPLICE_F_NONBLOCK,
            )
        };
        check(taken as i64, "vmsplice")?;
        ensure!(
            usize::try_from(taken) == Ok(len),
            "the pipe took {taken} of {len} bytes"
        );
        Ok(Self {
            _pipe: (reader, writer),
        })
    }
}
