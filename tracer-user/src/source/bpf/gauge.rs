//! How full the ring is, without taking anything from it.
//! Input: the ring's two positions, mapped read-only.

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The positions of a ring's reader and of its writers, bytes since the ring was created: each is the first word of a
/// page (`struct bpf_ringbuf`, kernel/bpf/ringbuf.c, 6.1 to 7.3).
pub struct Gauge {
    pages: NonNull<u8>,
    page: usize,
    size: u64,
}

impl Gauge {
    /// Maps the positions of a ring of `size` bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(ring: impl AsFd, size: u64) -> io::Result<Self> {
        let page = rustix::param::page_size();
        // SAFETY: a new mapping at an address that the kernel chooses. `ringbuf_map_mmap_kern` allows to read both pages.
        let pages = unsafe { mmap(ptr::null_mut(), 2 * page, ProtFlags::READ, MapFlags::SHARED, ring, 0) }?;
        let pages = NonNull::new(pages.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { pages, page, size })
    }

    /// Whether at least half of the ring waits to be read.
    #[must_use]
    pub fn is_half_full(&self) -> bool {
        // The reader's position never overtakes the writers', so the older of the two is read first.
        let read = self.position(0);
        self.position(1).saturating_sub(read) >= self.size / 2
    }

    fn position(&self, page: usize) -> u64 {
        // SAFETY: the first word of one of the two mapped pages, aligned, which the kernel and the reader write as a whole.
        let word = unsafe { AtomicU64::from_ptr(self.pages.add(page * self.page).cast().as_ptr()) };
        word.load(Ordering::Acquire)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it is left.
        let _ = unsafe { munmap(self.pages.as_ptr().cast(), 2 * self.page) };
    }
}
