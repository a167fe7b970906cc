//! Finds the parts of an address space that hold pages; the kernel walks the page tables, so that holes cost nothing.
//! Input: the ioctl PAGEMAP_SCAN of /proc/PID/pagemap (6.7 and later).

use std::ffi::c_void;
use std::io;
use std::ops::{BitOr, Range};

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

use crate::proc::pagemap::Pagemap;
use crate::units::VirtAddr;

/// A set of categories of pages (`PAGE_IS_*`, include/uapi/linux/fs.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Categories(pub u64);

impl Categories {
    /// No category.
    pub const NONE: Self = Self(0);
    /// A page is there.
    pub const PRESENT: Self = Self(1 << 3);
    /// The entry holds something other than a page: swap, a migration, a marker.
    pub const SWAPPED: Self = Self(1 << 4);
    /// The page of zeros, small or huge.
    pub const PFNZERO: Self = Self(1 << 5);
    /// One entry of a higher level maps the page: a PMD, or hugetlb.
    pub const HUGE: Self = Self(1 << 6);

    /// Whether all of `other` are among these.
    pub fn contain(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Categories {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The pages to look for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Inverted categories: for these a page matches if it is not in them.
    pub inverted: Categories,
    /// A matching page is in all of these.
    pub all: Categories,
    /// A matching page is in any of these, unless there are none here.
    pub any: Categories,
    /// Categories that divide regions and are reported; others are not.
    pub reported: Categories,
    /// The walk ends after this many matching pages; 0 for no limit.
    pub max_pages: u64,
}

/// Neighbouring pages of the same categories.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// `PAGE_IS_*`, of the categories that were to be reported.
    pub categories: u64,
}

impl Region {
    /// The addresses.
    pub fn range(&self) -> Range<VirtAddr> {
        VirtAddr(self.start)..VirtAddr(self.end)
    }

    /// The categories.
    pub fn categories(&self) -> Categories {
        Categories(self.categories)
    }
}

/// The result of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The number of regions that were filled.
    pub regions: usize,
    /// The end of the walk: the end of the range, or the point at which the regions or `max_pages` were used up.
    pub walked_to: VirtAddr,
}

/// `struct pm_scan_arg`, include/uapi/linux/fs.h, 6.7 to 7.3.
#[repr(C)]
#[derive(Debug)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}
const _: () = assert!(size_of::<PmScanArg>() == 96);
const _: () = assert!(size_of::<Region>() == 24);

struct Scan<'a>(&'a mut PmScanArg);

// SAFETY: the opcode is PAGEMAP_SCAN, `_IOWR('f', 16, struct pm_scan_arg)`; the kernel reads and writes that struct,
// and the regions at `vec`, which `walk` borrows for the call. It answers with their number.
unsafe impl Ioctl for Scan<'_> {
    type Output = usize;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<PmScanArg>(b'f', 16)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut *self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<usize> {
        usize::try_from(out).map_err(|_| Errno::INVAL)
    }
}

/// Walks the pages of a range and fills `regions` with those that match. It changes nothing and touches no page.
/// Mappings of `VM_PFNMAP` are skipped for every request (fs/proc/task_mmu.c, `pagemap_scan_test_walk`).
///
/// # Errors
/// The kernel's error; see [`is_missing`].
pub fn walk(pagemap: &Pagemap, range: Range<VirtAddr>, request: &Request, regions: &mut [Region]) -> io::Result<Found> {
    let mut arg = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        flags: 0,
        start: range.start.0,
        end: range.end.0,
        walk_end: 0,
        vec: regions.as_mut_ptr().expose_provenance() as u64,
        vec_len: regions.len() as u64,
        max_pages: request.max_pages,
        category_inverted: request.inverted.0,
        category_mask: request.all.0,
        category_anyof_mask: request.any.0,
        return_mask: request.reported.0,
    };
    // SAFETY: `Scan` describes the call truly, and `regions` is borrowed until it has returned.
    let filled = unsafe { ioctl(pagemap, Scan(&mut arg)) }?;
    Ok(Found {
        regions: filled.min(regions.len()),
        walked_to: VirtAddr(arg.walk_end),
    })
}

/// Whether the kernel has no PAGEMAP_SCAN, or one without a requested category: the caller then reads plain words.
pub fn is_missing(error: &io::Error) -> bool {
    let missing = [Errno::NOTTY, Errno::INVAL, Errno::OPNOTSUPP];
    missing
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{PAGE_SIZE, Tgid};

    #[test]
    fn the_request_has_the_kernels_number() {
        let mut arg = PmScanArg {
            size: 0,
            flags: 0,
            start: 0,
            end: 0,
            walk_end: 0,
            vec: 0,
            vec_len: 0,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: 0,
            return_mask: 0,
        };
        assert_eq!(Scan(&mut arg).opcode(), 0xc060_6610);
    }

    #[test]
    fn categories_are_sets() {
        let both = Categories::PRESENT | Categories::HUGE;
        assert!(both.contain(Categories::HUGE) && !both.contain(Categories::SWAPPED));
        assert!(both.contain(Categories::NONE));
        assert_eq!(both.0, 0b100_1000);
    }

    #[test]
    fn own_pages_are_found_where_the_kernel_can() {
        let pagemap = Pagemap::open(Tgid(std::process::id())).unwrap();
        let fresh = std::hint::black_box(vec![1u8; 8 * 4096]);
        let first = (fresh.as_ptr().addr() as u64).next_multiple_of(PAGE_SIZE);
        let range = VirtAddr(first)..VirtAddr(first + 4 * PAGE_SIZE);
        let mut request = Request {
            inverted: Categories::NONE,
            all: Categories::NONE,
            any: Categories::PRESENT | Categories::SWAPPED,
            reported: Categories::PRESENT,
            max_pages: 0,
        };
        let mut regions = [Region::default(); 2];
        let found = match walk(&pagemap, range.clone(), &request, &mut regions) {
            Err(error) if is_missing(&error) => return,
            found => found.unwrap(),
        };
        assert_eq!((found.regions, found.walked_to), (1, range.end));
        assert_eq!(regions[0].range(), range);
        assert!(regions[0].categories().contain(Categories::PRESENT));
        request.max_pages = 1;
        let found = walk(&pagemap, range.clone(), &request, &mut regions).unwrap();
        assert_eq!((found.regions, found.walked_to), (1, range.start.plus_pages(1)));
        drop(fresh);
    }
}
