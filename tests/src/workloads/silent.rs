//! A process that answers no question about its memory: one thread holds its mmap_lock, and another waits to write it.
//! Input: the path of a file whose reads are never answered; on stdin `hold`, then any order, which ends it.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::protocol::{Workload, next_order, say};
use super::punched;

pub const WORKLOAD: Workload = Workload {
    name: "silent",
    what: "silent PATH MIB: MIB of memory with holes; after `hold`, its mmap_lock is held while the file at PATH does not answer",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let [path, mib] = args else {
        bail!("usage: silent PATH MIB")
    };
    // Pages that move, so that somebody asks for them.
    let _memory = punched::memory(mib.parse().context("parse MIB")?)?;
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    // A fault beyond the end of the file would be refused at once.
    ensure!(file.metadata().context("its size")?.len() > 0, "{path} is empty");
    let own = File::open("/proc/self/mem").context("open /proc/self/mem")?;
    let mapped = map(Some(&file))?;
    // All is there before the lock is held: a new thread, or more memory, would wait for it.
    let start = Arc::new(Barrier::new(3));
    let [reader, writer] = [Arc::clone(&start), Arc::clone(&start)];
    // `access_remote_vm` keeps the lock for reading while the page is read.
    thread::spawn(move || {
        reader.wait();
        own.read_exact_at(&mut [0], mapped)
    });
    // Readers wait behind a writer that waits.
    thread::spawn(move || {
        writer.wait();
        while map(None).is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    say("ready")?;
    next_order()?;
    start.wait();
    next_order()?;
    Ok(())
}

/// Maps a page of the file, or of nothing. Returns its address.
fn map(file: Option<&File>) -> Result<u64> {
    let (flags, fd) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: a new mapping at an address that the kernel chooses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, fd, 0) };
    ensure!(at != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    Ok(at.cast::<c_void>() as u64)
}
