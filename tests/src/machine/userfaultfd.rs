//! Memory that gets its content page by page, so that a system call that reads it stops in the middle.
//! Input: userfaultfd(2); its numbers from include/uapi/linux/userfaultfd.h, 6.1 to 7.3.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _};

use anyhow::{Context, Result, ensure};

use super::memory::Memory;

/// Words of 64 bits that are missing until they are provided, a page of them at a time.
pub struct Withheld {
    memory: Memory,
    faults: File,
}

impl Withheld {
    /// Words in a page.
    pub fn per_page() -> usize {
        rustix::param::page_size() / size_of::<u64>()
    }

    pub fn new(pages: usize) -> Result<Self> {
        const UFFD_API: u64 = 0xaa;
        const UFFDIO_API: u64 = 0xc018_aa3f;
        const UFFDIO_REGISTER: u64 = 0xc020_aa00;
        /// `UFFDIO_REGISTER_MODE_MISSING`.
        const MISSING: u64 = 1;
        let memory = Memory::base_pages(pages * rustix::param::page_size())?;
        // UFFD_USER_MODE_ONLY is not set, because the kernel has to wait for these pages.
        // SAFETY: no memory is touched.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        ensure!(fd >= 0, "userfaultfd: {}", io::Error::last_os_error());
        // SAFETY: a new file descriptor that nobody else has.
        let faults = unsafe { File::from_raw_fd(i32::try_from(fd)?) };
        // struct uffdio_api: api, features, ioctls.
        ioctl(&faults, UFFDIO_API, &mut [UFFD_API, 0, 0]).context("UFFDIO_API")?;
        let range = memory.addresses();
        // struct uffdio_register: start, len, mode, ioctls.
        let mut register = [range.start, range.end - range.start, MISSING, 0];
        ioctl(&faults, UFFDIO_REGISTER, &mut register).context("UFFDIO_REGISTER")?;
        Ok(Self { memory, faults })
    }

    /// The first `count` words, for the kernel to read.
    pub fn words(&self, count: usize) -> &[u64] {
        let words = self.memory.bytes().as_ptr().cast();
        assert!(count * size_of::<u64>() <= self.memory.bytes().len());
        // SAFETY: aligned words within a live mapping. They are written only once, before anybody can read them.
        unsafe { std::slice::from_raw_parts(words, count) }
    }

    /// Waits until a thread waits for words, and returns the page of these words.
    pub fn wanted(&self) -> Result<usize> {
        /// `UFFD_EVENT_PAGEFAULT`.
        const PAGEFAULT: u8 = 0x12;
        // struct uffd_msg: the event, and at 16 the address.
        let mut message = [0; 32];
        (&self.faults).read_exact(&mut message).context("wait for a fault")?;
        ensure!(message[0] == PAGEFAULT, "event {:#x}", message[0]);
        let address = message[16..].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
        let offset = address - self.memory.addresses().start;
        Ok(offset as usize / rustix::param::page_size())
    }

    /// Provides a page of words, also to threads that wait for it. The rest of the page is zeros.
    pub fn give(&self, page: usize, words: &[u64]) -> Result<()> {
        const UFFDIO_COPY: u64 = 0xc028_aa03;
        let mut content = vec![0; Self::per_page()];
        content[..words.len()].copy_from_slice(words);
        let len = rustix::param::page_size() as u64;
        let to = self.memory.addresses().start + page as u64 * len;
        // struct uffdio_copy: dst, src, len, mode, copy.
        let mut copy = [to, content.as_ptr().expose_provenance() as u64, len, 0, 0];
        ioctl(&self.faults, UFFDIO_COPY, &mut copy).context("UFFDIO_COPY")
    }
}

fn ioctl<const WORDS: usize>(faults: &File, request: u64, argument: &mut [u64; WORDS]) -> Result<()> {
    // SAFETY: each request contains its size, which is that of its argument; the copy's addresses are of live memory.
    let result = unsafe { libc::ioctl(faults.as_raw_fd(), request, argument.as_mut_ptr()) };
    ensure!(result == 0, "{}", io::Error::last_os_error());
    Ok(())
}
