//! Memory of a workload: mapped apart from the heap, so that its addresses are known and do not change.
//! Input: its size and its backing.

use std::fs::File;
use std::ops::Range;
use std::os::fd::FromRawFd as _;
use std::ptr;

use anyhow::{Context, Result, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap};

/// The size that a PMD maps, bytes.
pub const HUGE: usize = 2 << 20;

/// A file in tmpfs without a name, with `len` zeros that have no pages yet.
pub fn tmpfs(len: usize) -> Result<File> {
    let file = File::from(memfd_create("pages", MemfdFlags::CLOEXEC).context("make a file in tmpfs")?);
    file.set_len(len as u64).context("make a file in tmpfs")?;
    Ok(file)
}

/// A mapping of this process, unmapped on drop.
pub struct Memory {
    start: *mut u8,
    len: usize,
}

impl Memory {
    /// Maps `len` bytes of base pages, not populated yet.
    pub fn base_pages(len: usize) -> Result<Self> {
        Self::map(len, Advice::LinuxNoHugepage)
    }

    /// Maps `len` bytes with the system's settings, not populated yet.
    pub fn plain(len: usize) -> Result<Self> {
        Self::map(len, Advice::Normal)
    }

    /// Maps `len` bytes for which the kernel may use huge pages, not populated yet.
    pub fn huge_pages(len: usize) -> Result<Self> {
        Self::map(len, Advice::LinuxHugepage)
    }

    /// Maps `len` bytes of hugetlb pages of the default size, which must have been reserved.
    pub fn hugetlb(len: usize) -> Result<Self> {
        Self::raw(len, MapFlags::PRIVATE | MapFlags::HUGETLB)
    }

    /// Maps `len` bytes of a file in hugetlbfs without a name.
    pub fn hugetlb_shared(len: usize) -> Result<Self> {
        Self::raw(len, MapFlags::SHARED | MapFlags::HUGETLB)
    }

    /// Maps `len` bytes of tmpfs, which a forked child shares.
    pub fn shared(len: usize) -> Result<Self> {
        Self::raw(len, MapFlags::SHARED)
    }

    /// Maps the first `len` bytes of a file, shared, not populated yet.
    pub fn of_file(file: &File, len: usize) -> Result<Self> {
        Self::raw_of_file(file, len, MapFlags::SHARED)
    }

    /// Maps the first `len` bytes of a file, private, not populated yet: a page that is written to becomes anonymous.
    pub fn private_of_file(file: &File, len: usize) -> Result<Self> {
        Self::raw_of_file(file, len, MapFlags::PRIVATE)
    }

    /// Maps `len` bytes of tmpfs: the first half is the file, the second half maps the same file once more.
    pub fn twice(len: usize) -> Result<Self> {
        let half = len / 2;
        let file = tmpfs(half)?;
        let memory = Self::raw(len, MapFlags::SHARED)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        for start in [0, half] {
            // SAFETY: within this function's own fresh mapping, to which no reference exists.
            unsafe {
                let start = memory.start.add(start).cast();
                mmap(start, half, access, MapFlags::SHARED | MapFlags::FIXED, &file, 0)
            }
            .context("map a file twice")?;
        }
        Ok(memory)
    }

    /// Maps all present pages of a file. They stay unchanged: nothing here may write to them.
    pub fn of_all_pages(file: &File) -> Result<Self> {
        let len = usize::try_from(file.metadata().context("read the size")?.len()).context("too large a file")?;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, flags, file, 0) }.context("map a file")?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// Maps `len` bytes that the kernel itself cannot access (memfd_secret(2)): pages of a file that refuses to move
    /// them.
    pub fn secret(len: usize) -> Result<Self> {
        // SAFETY: no memory is touched.
        let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
        ensure!(fd >= 0, "memfd_secret: {}", std::io::Error::last_os_error());
        // SAFETY: a new file descriptor that nobody else has.
        let file = unsafe { File::from_raw_fd(i32::try_from(fd)?) };
        file.set_len(len as u64).context("memfd_secret")?;
        Self::of_file(&file, len)
    }

    /// Maps `len` bytes of base pages at an unused address, not populated yet.
    pub fn at(address: u64, len: usize) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let address = ptr::with_exposed_provenance_mut(address as usize);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: a new mapping where there is none.
        let start = unsafe { mmap_anonymous(address, len, access, flags) }.context("map at an address")?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// Maps at a multiple of the huge page size, so that huge pages fit.
    fn map(len: usize, advice: Advice) -> Result<Self> {
        let mut slack = Self::raw(len + HUGE, MapFlags::PRIVATE)?;
        let head = slack.start.align_offset(HUGE);
        let tail = slack.len - head - len;
        // SAFETY: two parts of this function's own fresh mapping, to which no reference exists.
        unsafe {
            if head > 0 {
                munmap(slack.start.cast(), head).context("unmap the head")?;
            }
            if tail > 0 {
                munmap(slack.start.add(head + len).cast(), tail).context("unmap the tail")?;
            }
            slack.start = slack.start.add(head);
        }
        slack.len = len;
        // SAFETY: the advice is about exactly the mapping above and changes no content.
        match unsafe { madvise(slack.start.cast(), len, advice) } {
            // A kernel without huge pages does not know this advice, and has only base pages.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(slack),
            Err(error) => Err(error).context("advise the kernel on huge pages"),
        }
    }

    fn raw_of_file(file: &File, len: usize, flags: MapFlags) -> Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe { mmap(ptr::null_mut(), len, access, flags, file, 0) }.context("map a file")?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    fn raw(len: usize, flags: MapFlags) -> Result<Self> {
        ensure!(len > 0, "a mapping needs a size");
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, access, flags) }
            .with_context(|| format!("map {len} bytes"))?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// Allows huge pages from now on.
    pub fn allow_huge_pages(&self) -> Result<()> {
        self.advise(libc::MADV_HUGEPAGE).context("allow huge pages")
    }

    /// Turns the memory into huge pages now (since 6.1).
    pub fn collapse(&self) -> Result<()> {
        /// include/uapi/asm-generic/mman-common.h
        const MADV_COLLAPSE: i32 = 25;
        self.advise(MADV_COLLAPSE).context("MADV_COLLAPSE")
    }

    /// Gives advice that changes no content.
    pub fn advise(&self, advice: i32) -> Result<()> {
        // SAFETY: the advice is about exactly the mapping of `self`.
        let result = unsafe { libc::madvise(self.start.cast(), self.len, advice) };
        ensure!(result == 0, "{}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Makes a page in the middle of each `chunk` read-only. The page is a VMA of its own, so no PMD can map the chunk.
    pub fn split_permissions(&self, chunk: usize) -> Result<()> {
        let page = rustix::param::page_size();
        for middle in (0..self.len).step_by(chunk).map(|start| start + chunk / 2) {
            // SAFETY: within the mapping; nothing writes to that page from now on.
            unsafe { mprotect(self.start.add(middle).cast(), page, MprotectFlags::READ) }
                .context("make a page read-only")?;
        }
        Ok(())
    }

    /// Takes all access away (PROT_NONE): nothing here may read or write it from now on.
    pub fn forbid(&mut self) -> Result<()> {
        // SAFETY: exactly the mapping of `self`, to which no reference exists; nothing reads or writes it from now on.
        unsafe { mprotect(self.start.cast(), self.len, MprotectFlags::empty()) }.context("take all access away")
    }

    /// Writes to every page, which gives each a frame of its own (a read would map the shared zero page).
    pub fn fill(&mut self) {
        for (page, chunk) in self.bytes_mut().chunks_mut(rustix::param::page_size()).enumerate() {
            chunk.fill(page.to_le_bytes()[0] | 1);
        }
    }

    /// Writes one byte to every page of a part.
    pub fn touch(&mut self, part: &Range<u64>) {
        self.part_mut(part)
            .iter_mut()
            .step_by(rustix::param::page_size())
            .for_each(|byte| *byte = 1);
    }

    /// Keeps the first `kept` bytes of every `chunk` and returns the rest to the kernel.
    pub fn thin_out(&mut self, chunk: usize, kept: usize) -> Result<()> {
        for piece in self.bytes_mut().chunks_mut(chunk).filter(|piece| piece.len() > kept) {
            let rest = &mut piece[kept..];
            // SAFETY: whole pages of a private mapping that is borrowed here; they read as zeros afterwards.
            unsafe { madvise(rest.as_mut_ptr().cast(), rest.len(), Advice::LinuxDontNeed) }
                .context("give pages back")?;
        }
        Ok(())
    }

    /// Removes a part of a shared mapping from its file, too; there it reads as zeros afterwards.
    pub fn take_out(&mut self, part: &Range<u64>) -> Result<()> {
        let part = self.part_mut(part);
        // SAFETY: whole pages of a mapping that is borrowed here; any content is valid bytes.
        unsafe { madvise(part.as_mut_ptr().cast(), part.len(), Advice::LinuxRemove) }.context("take pages out")
    }

    /// Reads one byte of every page. The sum is returned so that the compiler keeps the reads.
    pub fn read(&self) -> u64 {
        self.bytes()
            .iter()
            .step_by(rustix::param::page_size())
            .map(|byte| u64::from(*byte))
            .sum()
    }

    /// The addresses, as /proc/PID/maps shows them.
    pub fn addresses(&self) -> Range<u64> {
        let start = self.start.expose_provenance() as u64;
        start..start + self.len as u64
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is `len` readable bytes, zeroed by the kernel, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// The bytes at these addresses.
    fn part_mut(&mut self, part: &Range<u64>) -> &mut [u8] {
        let start = self.addresses().start;
        &mut self.bytes_mut()[(part.start - start) as usize..(part.end - start) as usize]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; writable, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to `self`, and no reference into it outlives `self`.
        // It can only fail for a range that is no mapping, which this one is.
        let _ = unsafe { munmap(self.start.cast(), self.len) };
    }
}
