//! Memory of a workload's own: mapped apart from the heap, so that its addresses are known and stay.
//! Input: its size and whether huge pages may back it.

use std::ops::Range;
use std::ptr;

use anyhow::{Context, Result, ensure};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A private anonymous mapping, unmapped on drop.
pub struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    /// Maps `len` bytes of base pages, not populated yet.
    pub fn base_pages(len: usize) -> Result<Self> {
        Self::map(len, Advice::LinuxNoHugepage)
    }

    /// Maps `len` bytes for which the kernel may use huge pages, not populated yet.
    #[allow(dead_code, reason = "the workloads decide which pages are in use")]
    pub fn huge_pages(len: usize) -> Result<Self> {
        Self::map(len, Advice::LinuxHugepage)
    }

    fn map(len: usize, advice: Advice) -> Result<Self> {
        ensure!(len > 0, "a mapping needs a size");
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .with_context(|| format!("map {len} bytes"))?;
        let memory = Self {
            start: start.cast(),
            len,
        };
        // SAFETY: the advice is about exactly the mapping above and changes no content.
        match unsafe { madvise(start, len, advice) } {
            // A kernel without huge pages knows no such advice, and has base pages only.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(memory),
            Err(error) => Err(error).context("advise the kernel on huge pages"),
        }
    }

    /// Writes to every page, which gives each a frame of its own (a read would map the shared zero page).
    pub fn fill(&mut self) {
        for (page, chunk) in self.bytes_mut().chunks_mut(rustix::param::page_size()).enumerate() {
            chunk.fill(page.to_le_bytes()[0] | 1);
        }
    }

    /// Reads one byte of every page; returned so that the compiler keeps the reads.
    #[allow(dead_code, reason = "the workloads decide how memory is used")]
    pub fn read(&self) -> u64 {
        self.bytes()
            .iter()
            .step_by(rustix::param::page_size())
            .map(|byte| u64::from(*byte))
            .sum()
    }

    /// Addresses, as /proc/PID/maps shows them.
    pub fn addresses(&self) -> Range<u64> {
        let start = self.start.expose_provenance() as u64;
        start..start + self.len as u64
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `len` readable bytes, zeroed by the kernel, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; writable, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        // It can only fail for a range that is no mapping, which this one is.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}
