//! Memory that the demo and the benchmarks fill, and the amount that is available.
//! Input: sizes; /proc/meminfo.

use std::fs;

use anyhow::{Context, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// An entry of /proc/meminfo that is a size, in bytes.
pub fn meminfo(name: &str) -> Result<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let mut lines = meminfo.lines().filter_map(|line| line.split_once(':'));
    let kib = lines.find(|(key, _)| *key == name);
    let kib: usize = kib
        .and_then(|(_, value)| value.trim().strip_suffix(" kB")?.parse().ok())
        .with_context(|| format!("/proc/meminfo has no {name}"))?;
    Ok(kib << 10)
}

/// A private mapping of base pages, because a huge page cannot be returned in part.
pub struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// Maps the memory and writes every page.
    pub fn filled(len: usize) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }
            .with_context(|| format!("map {len} bytes"))?;
        let mut pages = Self {
            start: start.cast(),
            len,
        };
        // SAFETY: exactly the mapping above; the advice changes no content. A kernel without huge pages rejects the
        // advice and does not need it.
        let _ = unsafe { madvise(start, len, Advice::LinuxNoHugepage) };
        for page in pages.bytes().chunks_mut(rustix::param::page_size()) {
            page.fill(1);
        }
        Ok(pages)
    }

    /// Returns three of four pages to the kernel.
    pub fn punch(&mut self) -> Result<()> {
        let page = rustix::param::page_size();
        for four in self.bytes().chunks_exact_mut(4 * page) {
            // SAFETY: three whole pages of a private mapping, borrowed here; they read as zeros afterwards.
            unsafe { madvise(four[page..].as_mut_ptr().cast(), 3 * page, Advice::LinuxDontNeed) }
                .context("give pages back")?;
        }
        Ok(())
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` bytes, zeroed by the kernel, and lives as long as `self`, which is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`, and no reference into it outlives `self`. If this fails, it only stays
        // mapped.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}
