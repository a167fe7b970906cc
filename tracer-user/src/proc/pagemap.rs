//! Reads the place of each page of a process: a frame, swap, on its way between two frames, or none.
//! Input: /proc/PID/pagemap, one 64-bit word per page of the address space.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;
use thiserror::Error;

use crate::units::{Pfn, Tgid, VirtAddr};

/// Words per `pread`, 64 KiB: larger reads are no faster, and this bounds the memory of a lookup beside its answers.
const MAX_RUN: usize = 8192;
/// The largest distance to the next wanted page over which words are read and dropped. A word costs 8 ns and a system
/// call 300 ns (6.18, one core).
const MAX_GAP: u64 = 32;
/// The first word whose offset no longer fits the kernel's signed file positions, with room for one run.
const MAX_INDEX: u64 = (1 << 60) - MAX_RUN as u64;

/// Swap types from here on belong to special entries unless this many swap areas are active, see [`Frame::decode`].
pub const FIRST_SPECIAL_SWAP_TYPE: u8 = 24;
/// `SWP_PTE_MARKER`: the last type on every kernel that has markers.
const MARKER_SWAP_TYPE: u8 = 31;
/// A marker's offset consists of flags; there are fewer than four.
const MARKER_OFFSETS: u64 = 16;
/// `PTE_MARKER_GUARD`, include/linux/swapops.h (6.13 and later).
const MARKER_GUARD: u64 = 1 << 2;

pub(crate) const PFN_MASK: u64 = (1 << 55) - 1;
pub(crate) const SWAP_TYPE_BITS: u32 = 5;
pub(crate) const SOFT_DIRTY: u32 = 55;
pub(crate) const EXCLUSIVE: u32 = 56;
pub(crate) const UFFD_WP: u32 = 57;
pub(crate) const GUARD: u32 = 58;
pub(crate) const FILE_OR_SHMEM: u32 = 61;
pub(crate) const SWAP: u32 = 62;
pub(crate) const PRESENT: u32 = 63;

/// A place in swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SwapSlot {
    /// The swap area, in the order of `swapon`; 0 to 31.
    pub ty: u8,
    /// Page within the area.
    pub offset: u64,
}

impl SwapSlot {
    /// Without CAP_SYS_ADMIN the kernel shows slot 0 of area 0 for any page that is in swap or migrating.
    /// No page is ever there: the area's first page is its header.
    pub fn hidden(self) -> bool {
        self.offset == 0 && self.ty == 0
    }
}

/// The place of one page. Without CAP_SYS_ADMIN the kernel shows frame 0: that is `Hidden`, never `Pfn(0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frame {
    /// The page is in this frame.
    Present(Pfn),
    /// The page is in a frame that the kernel hides from the reader.
    Hidden,
    /// The page is in swap.
    Swapped(SwapSlot),
    /// The page is being copied away from this frame, or the frame is poisoned or in a device: see [`Frame::decode`].
    Migrating(Pfn),
    /// A guard region (`MADV_GUARD_INSTALL`): any access raises SIGSEGV.
    Guard,
    /// Nothing is there: never touched, given back, or not mapped.
    None,
}

impl Frame {
    /// Decodes one entry (fs/proc/task_mmu.c, `pte_to_pagemap_entry`, `pagemap_pmd_range`;
    /// Documentation/admin-guide/mm/pagemap.rst).
    ///
    /// `Migrating` is an inference. A migration entry reads like a swapped page: its offset is the frame that the page
    /// leaves, and its type is one that no swap area can have, `MAX_SWAPFILES` (include/linux/swap.h) or above.
    /// `MAX_SWAPFILES` depends on the build: 32 - `SWP_DEVICE_NUM` (0 to 4) - `SWP_MIGRATION_NUM` (3) -
    /// `SWP_HWPOISON_NUM` (0 or 1) - `SWP_PTE_MARKER_NUM` (1). Types from [`FIRST_SPECIAL_SWAP_TYPE`] on count as
    /// migration, although poisoned frames and device-private memory have such types as well. With that many swap areas
    /// in use, call [`decode_with`](Self::decode_with).
    pub fn decode(entry: u64) -> Self {
        Self::decode_with(entry, FIRST_SPECIAL_SWAP_TYPE)
    }

    /// As [`decode`](Self::decode), with the first swap type that is not a swap area, from [`first_special_swap_type`].
    pub fn decode_with(entry: u64, first_special: u8) -> Self {
        let bits = Entry(entry);
        // A guard page sets the swap bit too.
        if bits.bit(GUARD) {
            return Self::Guard;
        }
        if bits.bit(PRESENT) {
            return match entry & PFN_MASK {
                0 => Self::Hidden,
                pfn => Self::Present(Pfn(pfn)),
            };
        }
        if !bits.bit(SWAP) {
            return Self::None;
        }
        let ty = (entry & ((1 << SWAP_TYPE_BITS) - 1)) as u8;
        let offset = (entry & PFN_MASK) >> SWAP_TYPE_BITS;
        if ty < first_special {
            return Self::Swapped(SwapSlot { ty, offset });
        }
        // No process has the first 64 KiB of memory: an offset this small is a marker's flags, not a frame.
        // 6.13 and 6.14 have guard regions and no bit for them.
        match offset {
            0..MARKER_OFFSETS if ty == MARKER_SWAP_TYPE && offset & MARKER_GUARD != 0 => Self::Guard,
            0..MARKER_OFFSETS if ty == MARKER_SWAP_TYPE => Self::None,
            _ => Self::Migrating(Pfn(offset)),
        }
    }
}

/// The first swap type that cannot be an area of `/proc/swaps` (mm/swapfile.c, `swap_show`):
/// [`FIRST_SPECIAL_SWAP_TYPE`], or more if there are more areas than that.
pub fn first_special_swap_type(swaps: &[u8]) -> u8 {
    let lines = swaps.split(|&byte| byte == b'\n');
    // The first line is the heading.
    let areas = lines.filter(|line| !line.is_empty()).skip(1).count();
    u8::try_from(areas).map_or(32, |areas| areas.clamp(FIRST_SPECIAL_SWAP_TYPE, 32))
}

/// One word of pagemap, for the flags beside the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry(pub u64);

impl Entry {
    fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }

    /// The place of the page.
    pub fn frame(self) -> Frame {
        Frame::decode(self.0)
    }

    /// Written since soft-dirty was last cleared through `/proc/PID/clear_refs`; always set on new mappings.
    pub fn soft_dirty(self) -> bool {
        self.bit(SOFT_DIRTY)
    }

    /// Mapped exactly once, by this process.
    pub fn exclusive(self) -> bool {
        self.bit(EXCLUSIVE)
    }

    /// Write-protected through userfaultfd.
    pub fn uffd_wp(self) -> bool {
        self.bit(UFFD_WP)
    }

    /// Page cache or shared memory, not anonymous.
    pub fn file_or_shmem(self) -> bool {
        self.bit(FILE_OR_SHMEM)
    }
}

/// Why pagemap has no answer.
#[derive(Debug, Error)]
pub enum LookupError {
    /// The address space is gone; a file opened for it stays empty for ever.
    #[error("the address space is gone: the process ended or ran another program")]
    ProcessGone,
    /// The file could not be opened.
    #[error("cannot open /proc/{tgid}/pagemap: {source}")]
    Open {
        /// The process.
        tgid: Tgid,
        /// The kernel's error.
        source: io::Error,
    },
    /// The file could not be read.
    #[error("cannot read pagemap: {0}")]
    Read(#[source] io::Error),
    /// The process did not answer in time ([`Questions`](crate::proc::questions::Questions)).
    #[error("{0} does not answer")]
    Silent(Tgid),
}

/// An open `/proc/PID/pagemap`. It shows the address space that the process had when the file was opened:
/// it must be opened again after an exec.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
}

impl Pagemap {
    /// Opens the pagemap of a process. It shows frames if the opener had CAP_SYS_ADMIN (fs/proc/task_mmu.c,
    /// `pagemap_read`: `file_ns_capable`), even if the reader has dropped it since.
    ///
    /// # Errors
    /// [`LookupError::ProcessGone`] if there is no such process, or it has no memory (`ESRCH`, newer kernels);
    /// [`LookupError::Open`] for the rest.
    pub fn open(tgid: Tgid) -> Result<Self, LookupError> {
        match File::open(format!("/proc/{tgid}/pagemap")) {
            Ok(file) => Ok(Self { file }),
            Err(source) if gone(&source) => Err(LookupError::ProcessGone),
            Err(source) => Err(LookupError::Open { tgid, source }),
        }
    }

    /// Fills `entries` with the words of neighbouring pages from that of `first` on, and returns the number of words
    /// read. A smaller number than requested means the end of the address space or of the process.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read_range(&self, first: VirtAddr, entries: &mut [u64]) -> io::Result<usize> {
        read_words(&self.file, first.page(), entries)
    }

    /// Whether the address space still exists: after the process's end, or an exec, every read is empty.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn is_alive(&self) -> io::Result<bool> {
        Ok(read_words(&self.file, 0, &mut [0])? == 1)
    }

    /// Replaces the content of `out` with one word per address, in their order.
    /// Addresses that lie close together share a system call: unsorted addresses are read correctly, but slowly.
    /// An address beyond the end of the address space gives 0, which reads [`Frame::None`].
    ///
    /// # Errors
    /// [`LookupError::ProcessGone`] if the address space is gone; `out` is then not usable.
    pub fn lookup(&self, sorted_pages: &[VirtAddr], out: &mut Vec<u64>) -> Result<(), LookupError> {
        let all = gather(&self.file, sorted_pages, VirtAddr::page, MAX_GAP, 0, out).map_err(read_error)?;
        // An empty read has two causes (`pagemap_read` returns 0 for both), but that of the first page has only one.
        if all || self.is_alive().map_err(read_error)? {
            Ok(())
        } else {
            Err(LookupError::ProcessGone)
        }
    }
}

impl AsFd for Pagemap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

fn read_error(source: io::Error) -> LookupError {
    if gone(&source) {
        LookupError::ProcessGone
    } else {
        LookupError::Read(source)
    }
}

/// Reads the words at `index(key)` of a file of 64-bit words, for all `keys`, into `out`.
/// Keys up to `max_gap` words apart share a read.
/// Words beyond the end of the file read `absent`; the result is false if there were any.
pub(super) fn gather<K: Copy>(
    file: &impl FileExt,
    keys: &[K],
    index: impl Fn(K) -> u64,
    max_gap: u64,
    absent: u64,
    out: &mut Vec<u64>,
) -> io::Result<bool> {
    // The rest of an earlier lookup needs no clearing: every word below is written, even beyond the end of the file.
    let total = keys.len();
    out.resize(total, absent);
    let mut all = true;
    let mut done = 0;
    while let Some(&key) = keys.get(done) {
        let first = index(key);
        let OneRead { count, span, dense } = one_read(&keys[done..], first, max_gap, &index);
        let answered = done..done + count;
        if dense {
            all &= read_or_fill(file, first, absent, &mut out[answered])?;
        } else {
            // The words are read into the space after the answers and are then picked from there.
            out.resize(out.len().max(total + span), absent);
            let (answers, landing) = out.split_at_mut(total);
            all &= read_or_fill(file, first, absent, &mut landing[..span])?;
            for (answer, &key) in answers[answered.clone()].iter_mut().zip(&keys[answered]) {
                *answer = landing[distance(first, index(key))];
            }
        }
        done += count;
    }
    out.truncate(total);
    Ok(all)
}

/// Fills `words`, and those beyond the end of the file with `absent`; returns false if there were any.
fn read_or_fill(file: &impl FileExt, first: u64, absent: u64, words: &mut [u64]) -> io::Result<bool> {
    let got = read_words(file, first, words)?;
    words[got..].fill(absent);
    Ok(got == words.len())
}

/// The keys that one read serves.
struct OneRead {
    /// The number of keys.
    count: usize,
    /// The number of words.
    span: usize,
    /// Whether every word belongs to one key, in order.
    dense: bool,
}

/// The read for the beginning of `keys`, which are not empty; `first` is the index of the first key.
fn one_read<K: Copy>(keys: &[K], first: u64, max_gap: u64, index: &impl Fn(K) -> u64) -> OneRead {
    // The usual case has a loop of its own, because it takes most of the time.
    let neighbours = (first..=u64::MAX)
        .zip(keys.iter().take(MAX_RUN))
        .take_while(|&(at, &key)| index(key) == at)
        .count();
    let mut last = first + (neighbours as u64 - 1);
    let mut count = neighbours;
    for &key in &keys[neighbours..] {
        let next = index(key);
        if next < last || next - last > max_gap || distance(first, next) >= MAX_RUN {
            break;
        }
        last = next;
        count += 1;
    }
    OneRead {
        count,
        span: distance(first, last) + 1,
        dense: count == neighbours,
    }
}

/// The number of words from `first` to `next`, which is not before it.
fn distance(first: u64, next: u64) -> usize {
    usize::try_from(next - first).unwrap_or(usize::MAX)
}

/// Fills `words` from word number `first` on; returns the number before the end of the file.
pub(super) fn read_words(file: &impl FileExt, first: u64, words: &mut [u64]) -> io::Result<usize> {
    if first >= MAX_INDEX {
        return Ok(0);
    }
    let mut done = 0;
    for chunk in words.chunks_mut(MAX_RUN) {
        let wanted = chunk.len();
        let got = read_chunk(file, (first + done as u64) * 8, bytes_of(chunk))? / 8;
        done += got;
        if got < wanted {
            break;
        }
    }
    Ok(done)
}

fn read_chunk(file: &impl FileExt, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(free) = bytes.get_mut(done..).filter(|free| !free.is_empty()) {
        match file.read_at(free, offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The memory of `words`. The files of /proc are in the machine's byte order.
fn bytes_of(words: &mut [u64]) -> &mut [u8] {
    let len = size_of_val(words);
    // SAFETY: same memory and lifetime, borrowed mutably; u8 needs no alignment; every byte pattern is a u64 and a u8.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decodes_each_kind() {
        let present = 1 << 63;
        let swap = 1 << 62;
        assert_eq!(Frame::decode(0), Frame::None);
        // Never touched, in a mapping made since soft-dirty was cleared.
        assert_eq!(Frame::decode(1 << 55), Frame::None);
        assert_eq!(Frame::decode(present | 0x1234), Frame::Present(Pfn(0x1234)));
        assert_eq!(
            Frame::decode(present | 0x0180_0000_0000_1234),
            Frame::Present(Pfn(0x1234))
        );
        assert_eq!(Frame::decode(present), Frame::Hidden);
        assert_eq!(Frame::decode(present | 1 << 61), Frame::Hidden);
        assert_eq!(
            Frame::decode(swap | 0x77 << 5 | 2),
            Frame::Swapped(SwapSlot { ty: 2, offset: 0x77 })
        );
        assert_eq!(
            Frame::decode(swap | 0x12_3456 << 5 | 0x1d),
            Frame::Migrating(Pfn(0x12_3456))
        );
        assert_eq!(
            Frame::decode(swap | 0x12_3456 << 5 | 0x1f),
            Frame::Migrating(Pfn(0x12_3456))
        );
    }

    #[test]
    fn a_guard_page_is_no_swap_entry() {
        // A guard region as 6.18 shows it, and without the bit that 6.13 does not have.
        assert_eq!(Frame::decode(0x4480_0000_0000_009f), Frame::Guard);
        assert_eq!(Frame::decode(0x4080_0000_0000_009f), Frame::Guard);
        // A userfaultfd marker holds no page.
        assert_eq!(Frame::decode(1 << 62 | 1 << 5 | 0x1f), Frame::None);
    }

    #[test]
    fn a_hidden_slot_is_known_as_such() {
        let Frame::Swapped(slot) = Frame::decode(1 << 62) else {
            panic!("not swapped");
        };
        assert!(slot.hidden());
        assert!(!SwapSlot { ty: 0, offset: 1 }.hidden());
    }

    #[test]
    fn many_swap_areas_raise_the_bound() {
        let heading = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert_eq!(first_special_swap_type(b""), 24);
        assert_eq!(first_special_swap_type(heading), 24);
        let mut swaps = heading.to_vec();
        for area in 0..26 {
            swaps.extend(format!("/dev/zram{area} partition\t1048572\t\t0\t\t-2\n").bytes());
        }
        assert_eq!(first_special_swap_type(&swaps), 26);
        let entry = 1 << 62 | 9 << 5 | 0x19;
        assert_eq!(
            Frame::decode_with(entry, 26),
            Frame::Swapped(SwapSlot { ty: 25, offset: 9 })
        );
        swaps.extend(b"/x\n".repeat(1000));
        assert_eq!(first_special_swap_type(&swaps), 32);
    }

    /// A file of words that returns at most `most` bytes at once and counts its reads.
    struct Words {
        content: Vec<u64>,
        most: usize,
        reads: Cell<usize>,
    }

    impl Words {
        fn new(len: u64, most: usize) -> Self {
            Self {
                content: (0..len).map(|at| at * 3 + 1).collect(),
                most,
                reads: Cell::new(0),
            }
        }
    }

    impl FileExt for Words {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.reads.set(self.reads.get() + 1);
            let bytes: Vec<u8> = self.content.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let from = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
            let count = buf.len().min(bytes.len() - from).min(self.most);
            buf[..count].copy_from_slice(&bytes[from..from + count]);
            Ok(count)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn neighbours_share_a_read() {
        let file = Words::new(20_000, usize::MAX);
        let mut out = vec![9; 3];
        let reads = |keys: &[u64], out: &mut Vec<u64>| {
            file.reads.set(0);
            assert!(gather(&file, keys, |key| key, 64, 0, out).unwrap());
            file.reads.get()
        };
        assert_eq!(reads(&[], &mut out), 0);
        assert!(out.is_empty());
        assert_eq!(reads(&[5, 69, 133], &mut out), 1);
        assert_eq!(out, [16, 208, 400]);
        assert_eq!(reads(&[5, 70], &mut out), 2);
        assert_eq!(reads(&[5, 5, 6], &mut out), 1);
        assert_eq!(out, [16, 16, 19]);
        let dense: Vec<u64> = (0..16_384).collect();
        assert_eq!(reads(&dense, &mut out), 2);
    }

    #[test]
    fn the_ends_of_the_number_range_are_silent() {
        let file = Words::new(4, usize::MAX);
        let mut out = Vec::new();
        let keys = [3, 4, MAX_INDEX - 1, MAX_INDEX, u64::MAX];
        assert!(!gather(&file, &keys, |key| key, 64, 7, &mut out).unwrap());
        assert_eq!(out, [10, 7, 7, 7, 7]);
        assert_eq!(read_words(&file, u64::MAX, &mut [0; 4]).unwrap(), 0);
    }

    proptest! {
        #[test]
        fn decode_never_takes_nothing_for_a_frame(entry: u64) {
            match Frame::decode(entry) {
                Frame::Present(pfn) | Frame::Migrating(pfn) => prop_assert!(pfn.0 <= PFN_MASK),
                Frame::Swapped(slot) => prop_assert!(slot.ty < FIRST_SPECIAL_SWAP_TYPE),
                Frame::Hidden | Frame::Guard | Frame::None => {}
            }
        }

        #[test]
        fn gather_agrees_with_single_reads(
            mut keys in prop::collection::vec(0u64..1500, 0..200),
            sorted: bool,
            most in 1usize..400,
        ) {
            if sorted {
                keys.sort_unstable();
            }
            let file = Words::new(1200, most);
            let mut out = vec![9; 77];
            let all = gather(&file, &keys, |key| key, 64, 0, &mut out).unwrap();
            let expected: Vec<u64> = keys.iter().map(|&key| if key < 1200 { key * 3 + 1 } else { 0 }).collect();
            prop_assert_eq!(out, expected);
            prop_assert_eq!(all, keys.iter().all(|&key| key < 1200));
        }
    }

    #[test]
    fn own_touched_page_is_in_memory() {
        let page = Box::new([1u8; 8192]);
        let pagemap = Pagemap::open(Tgid(std::process::id())).unwrap();
        let address = VirtAddr((&raw const page[4096]).addr() as u64);
        let mut out = Vec::new();
        let pages = [VirtAddr(0), address, address, VirtAddr(u64::MAX)];
        pagemap.lookup(&pages, &mut out).unwrap();
        assert_eq!(out.len(), 4);
        assert_eq!((out[0], out[3]), (0, 0));
        assert_eq!(out[1], out[2]);
        assert!(matches!(Frame::decode(out[1]), Frame::Present(_) | Frame::Hidden));
        assert!(!Entry(out[1]).file_or_shmem());
        let mut entries = [0];
        assert_eq!(pagemap.read_range(address, &mut entries).unwrap(), 1);
        assert_eq!(entries[0], out[1]);
    }

    #[test]
    fn an_ended_process_is_gone_also_before_it_is_reaped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pagemap = Pagemap::open(Tgid(child.id())).unwrap();
        let mut out = Vec::new();
        let pages = [VirtAddr(0x40_0000)];
        pagemap.lookup(&pages, &mut out).unwrap();
        drop(child.stdin.take());
        // After it has closed its output all of its memory is given back: wait without reaping.
        let stat = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z") {
            std::thread::yield_now();
        }
        let zombie = pagemap.lookup(&pages, &mut out);
        child.wait().unwrap();
        assert!(matches!(zombie, Err(LookupError::ProcessGone)));
        let reaped = pagemap.lookup(&pages, &mut out);
        assert!(matches!(reaped, Err(LookupError::ProcessGone)));
        let reopened = Pagemap::open(Tgid(child.id()));
        assert!(matches!(reopened, Err(LookupError::ProcessGone)));
    }

    #[test]
    fn an_exec_ends_the_address_space() {
        let mut child = Command::new("sh")
            .args(["-c", "read line; exec cat"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        while std::fs::read_to_string(&comm).unwrap() != "sh\n" {
            std::thread::yield_now();
        }
        let pagemap = Pagemap::open(Tgid(child.id())).unwrap();
        let mut stdin = child.stdin.take().unwrap();
        io::Write::write_all(&mut stdin, b"go\n").unwrap();
        while std::fs::read_to_string(&comm).unwrap() != "cat\n" {
            std::thread::yield_now();
        }
        let before = pagemap.lookup(&[VirtAddr(0)], &mut Vec::new());
        assert!(matches!(before, Err(LookupError::ProcessGone)));
        drop(stdin);
        child.wait().unwrap();
    }
}
