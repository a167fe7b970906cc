//! The page table entries of a mapping, chunk by chunk; parts that were never populated are skipped.
//! Input: /proc/PID/pagemap, by PAGEMAP_SCAN if the kernel has it, and by plain reads.

use std::io;
use std::ops::Range;

use crate::proc::pagemap::{self, Pagemap};
use crate::proc::scan::{self, Categories, Region, Request};
use crate::units::VirtAddr;

/// Entries of the first read after a hole: a lonely page costs little, and each later read is twice as large.
const FIRST: usize = 64;
/// The most entries of a chunk, 128 KiB: larger reads are no faster, and the joined data still fits into the cache.
pub const MOST: usize = 16_384;
/// The most regions that one walk for huge entries returns; for more regions another walk follows.
const REGIONS: usize = 64;

/// The result of reading a mapping's page tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Pages whose entries could not be read: they are beyond the end of the address space, or the process has ended.
    pub unread: u64,
}

/// Reads entries and changes nothing: reads of pagemap and PAGEMAP_SCAN neither map a page nor change an entry.
#[derive(Debug)]
pub struct Chunks<'a> {
    pagemap: &'a Pagemap,
    /// Whether the kernel has PAGEMAP_SCAN; true until it refuses.
    scans: bool,
    entries: Vec<u64>,
}

/// Neighbouring entries, beginning with that of `first`.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The address of the first page.
    pub first: VirtAddr,
    /// Words of pagemap; a hole among them is 0, except for its flag soft-dirty.
    pub entries: &'a [u64],
    /// Whether the mapping is `VM_PFNMAP`.
    pub pfnmap: bool,
}

impl<'a> Chunks<'a> {
    /// Makes a reader of this pagemap.
    pub fn new(pagemap: &'a Pagemap) -> Self {
        Self {
            pagemap,
            scans: true,
            entries: vec![0; MOST],
        }
    }

    /// Reads without PAGEMAP_SCAN, as on kernels before 6.7.
    #[must_use]
    pub fn by_reads_alone(mut self) -> Self {
        self.scans = false;
        self
    }

    /// Visits the entries of a range of addresses that one mapping covers; `is_pfnmap` says whether the mapping is
    /// `VM_PFNMAP` on the kernels that have no walk, which knows better.
    ///
    /// # Errors
    /// The kernel's error from a read.
    pub fn visit(
        &mut self,
        range: Range<VirtAddr>,
        mut is_pfnmap: bool,
        visitor: &mut impl FnMut(Chunk<'_>, &Huge<'_>) -> io::Result<()>,
    ) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut at = range.start;
        let mut walks = self.scans;
        is_pfnmap &= !self.scans;
        if walks {
            match self.next_populated(at..range.end)? {
                Some(first) => at = first,
                // The range is empty, or the walk skipped the mapping.
                None if self.scans && self.walks_over(range.clone())? => return Ok(outcome),
                None => {
                    is_pfnmap |= self.scans;
                    walks = false;
                }
            }
        }
        let mut step = if walks { FIRST } else { MOST };
        while at < range.end {
            let left = usize::try_from(range.end.page() - at.page()).unwrap_or(usize::MAX);
            let wanted = left.min(step);
            let got = self.pagemap.read_range(at, &mut self.entries[..wanted])?;
            let entries = &self.entries[..got];
            let chunk = Chunk {
                first: at,
                entries,
                pfnmap: is_pfnmap,
            };
            if entries.iter().any(|&entry| !is_hole(entry)) {
                let huge = Huge {
                    pagemap: self.pagemap,
                    scans: self.scans && !is_pfnmap,
                };
                visitor(chunk, &huge)?;
            }
            at = at.plus_pages(got as u64);
            if got < wanted {
                outcome.unread = range.end.page() - at.page();
                break;
            }
            step = (step * 2).min(MOST);
            if walks && at < range.end && entries.last().copied().is_some_and(is_hole) {
                match self.next_populated(at..range.end)? {
                    Some(next) => {
                        if next.page() - at.page() > FIRST as u64 {
                            step = FIRST;
                        }
                        at = next;
                    }
                    None if self.scans => break,
                    None => walks = false,
                }
            }
        }
        Ok(outcome)
    }

    /// The first page of the range that has an entry; `None` if there is none, or if the kernel cannot walk.
    fn next_populated(&mut self, range: Range<VirtAddr>) -> io::Result<Option<VirtAddr>> {
        let request = Request {
            inverted: Categories::NONE,
            all: Categories::NONE,
            any: Categories::PRESENT | Categories::SWAPPED,
            reported: Categories::NONE,
            max_pages: 1,
        };
        self.first_of(range, &request)
    }

    /// Whether a walk finds the hole at the beginning of this range; it skips a mapping of `VM_PFNMAP`.
    fn walks_over(&mut self, range: Range<VirtAddr>) -> io::Result<bool> {
        let request = Request {
            inverted: Categories::PRESENT,
            all: Categories::PRESENT,
            any: Categories::NONE,
            reported: Categories::NONE,
            max_pages: 1,
        };
        Ok(self.first_of(range, &request)?.is_some())
    }

    fn first_of(&mut self, range: Range<VirtAddr>, request: &Request) -> io::Result<Option<VirtAddr>> {
        if !self.scans {
            return Ok(None);
        }
        let mut regions = [Region::default()];
        match scan::walk(self.pagemap, range, request, &mut regions) {
            Ok(found) => Ok((found.regions > 0).then(|| regions[0].range().start)),
            Err(error) if scan::is_missing(&error) => {
                self.scans = false;
                Ok(None)
            }
            // [vsyscall] is beyond the end of a process's address space; a read of it is empty.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::FAULT.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether an entry has no page and no special meaning; it may still say that its mapping is soft-dirty.
pub fn is_hole(entry: u64) -> bool {
    const PRESENT_SWAP_OR_GUARD: u64 = 1 << pagemap::PRESENT | 1 << pagemap::SWAP | 1 << pagemap::GUARD;
    entry & PRESENT_SWAP_OR_GUARD == 0
}

/// Finds the pages that one entry of a higher level maps, and the pages of zeros: pagemap shows neither.
#[derive(Debug)]
pub struct Huge<'a> {
    pagemap: &'a Pagemap,
    scans: bool,
}

impl Huge<'_> {
    /// The regions of the chunk that are in any of these categories; `None` if the kernel does not show them.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn regions(&self, chunk: Chunk<'_>, any: Categories) -> io::Result<Option<Vec<Region>>> {
        if !self.scans {
            return Ok(None);
        }
        let request = Request {
            inverted: Categories::NONE,
            all: Categories::PRESENT,
            any,
            reported: any,
            max_pages: 0,
        };
        let end = chunk.first.plus_pages(chunk.entries.len() as u64);
        let (mut at, mut all) = (chunk.first, Vec::new());
        while at < end {
            let mut regions = [Region::default(); REGIONS];
            let found = match scan::walk(self.pagemap, at..end, &request, &mut regions) {
                Ok(found) => found,
                Err(error) if scan::is_missing(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            all.extend_from_slice(&regions[..found.regions]);
            if found.walked_to <= at {
                break;
            }
            at = found.walked_to;
        }
        Ok(Some(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{PAGE_SHIFT, Tgid};

    #[test]
    fn a_hole_may_be_soft_dirty() {
        assert!(is_hole(0) && is_hole(1 << 55));
        assert!(!is_hole(1 << 63) && !is_hole(1 << 62) && !is_hole(1 << 58));
    }

    /// The pages of a range for which there is an entry.
    fn populated(chunks: &mut Chunks<'_>, range: Range<VirtAddr>) -> Vec<u64> {
        let mut pages = Vec::new();
        let outcome = chunks.visit(range, false, &mut |chunk, _| {
            let numbered = (chunk.first.page()..).zip(chunk.entries);
            pages.extend(numbered.filter(|&(_, &entry)| !is_hole(entry)).map(|(page, _)| page));
            Ok(())
        });
        assert_eq!(outcome.unwrap(), Outcome::default());
        pages
    }

    #[test]
    fn walks_and_reads_find_the_same_pages() {
        let len = 256 << 20;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::NORESERVE,
            )
        }
        .unwrap();
        // SAFETY: exactly the mapping above; the advice changes no content.
        unsafe { rustix::mm::madvise(memory, len, rustix::mm::Advice::LinuxNoHugepage) }.ok();
        let base = memory.addr() as u64;
        let touched = [0, 1, 2, 511, 700, 701, 9_000, 40_000, 65_535];
        for page in touched {
            // SAFETY: within the mapping, to which no reference exists.
            unsafe { memory.cast::<u8>().add(page << PAGE_SHIFT).write(1) };
        }
        let pagemap = Pagemap::open(Tgid(std::process::id())).unwrap();
        let range = VirtAddr(base)..VirtAddr(base + len as u64);
        let expected: Vec<u64> = touched.iter().map(|&page| range.start.page() + page as u64).collect();
        assert_eq!(populated(&mut Chunks::new(&pagemap), range.clone()), expected);
        assert_eq!(
            populated(&mut Chunks::new(&pagemap).by_reads_alone(), range.clone()),
            expected
        );
        // The ranges are a hole alone, and a part that begins and ends within a hole.
        let hole = range.start.plus_pages(10_000)..range.start.plus_pages(39_000);
        assert!(populated(&mut Chunks::new(&pagemap), hole).is_empty());
        let part = range.start.plus_pages(1)..range.start.plus_pages(701);
        assert_eq!(populated(&mut Chunks::new(&pagemap), part), expected[1..5]);
        // SAFETY: the mapping is ours, and nothing refers to it.
        unsafe { rustix::mm::munmap(memory, len) }.unwrap();
    }

    #[test]
    fn what_lies_behind_the_address_space_is_unread() {
        let pagemap = Pagemap::open(Tgid(std::process::id())).unwrap();
        let vsyscall = VirtAddr(0xffff_ffff_ff60_0000)..VirtAddr(0xffff_ffff_ff60_1000);
        let outcome = Chunks::new(&pagemap).visit(vsyscall, false, &mut |_, _| panic!("no entries are there"));
        assert_eq!(outcome.unwrap(), Outcome { unread: 1 });
    }
}
