//! The mappings of a process: the VMA that covers an address, and the kernel's name for it.
//! Input: /proc/PID/maps.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;

use thiserror::Error;

use crate::units::{Tgid, VirtAddr};

/// Bytes of a bad line that an error quotes.
const QUOTED: usize = 80;

/// Why a line of /proc/PID/maps has no VMA.
#[derive(Debug, Error)]
pub enum MapsError {
    /// The line does not have the kernel's form; the following lines are still read.
    #[error("line {number} of maps is not a mapping: {text:?}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// The begin of the line.
        text: String,
    },
    /// The file could not be read any further.
    #[error("cannot read maps after line {number}: {source}")]
    Read {
        /// The last line that was read.
        number: usize,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The access rights of a VMA as four bytes, "rwxp" with `-` for what is missing and `s` for shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Perms([u8; 4]);

impl Perms {
    /// The four bytes of a maps line; `None` if they are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [
                r @ (b'r' | b'-'),
                w @ (b'w' | b'-'),
                x @ (b'x' | b'-'),
                s @ (b's' | b'p'),
            ] => Some(Self([r, w, x, s])),
            _ => None,
        }
    }

    /// The four bytes.
    pub fn bytes(self) -> [u8; 4] {
        self.0
    }

    /// Whether the process may read.
    pub fn readable(self) -> bool {
        self.0[0] == b'r'
    }

    /// Whether the process may write.
    pub fn writable(self) -> bool {
        self.0[1] == b'w'
    }

    /// Whether the process may execute.
    pub fn executable(self) -> bool {
        self.0[2] == b'x'
    }

    /// `VM_MAYSHARE`: other mappings of the file or segment see what is written.
    pub fn shared(self) -> bool {
        self.0[3] == b's'
    }
}

impl fmt::Display for Perms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|&byte| fmt::Write::write_char(f, char::from(byte)))
    }
}

/// One mapping: a line of /proc/PID/maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vma {
    /// First address.
    pub start: VirtAddr,
    /// First address after it.
    pub end: VirtAddr,
    /// The access that the process has there.
    pub perms: Perms,
    /// The offset of `start` in the file, bytes; 0 without a file.
    pub offset: u64,
    /// Major and minor number of the file's device; (0, 0) without a file.
    pub dev: (u32, u32),
    /// The file's inode; 0 without a file.
    pub inode: u64,
    /// The name as the kernel prints it: `[heap]`, `[anon:jemalloc]`, `/a path (deleted)`, empty for plain anonymous
    /// memory. A newline in a path reads "\012" (`seq_path`). That is not undone here, because backslashes are not
    /// escaped. Other control bytes are raw: escape before printing.
    pub name: Arc<str>,
}

impl Vma {
    /// Whether `address` lies in this mapping.
    pub fn contains(&self, address: VirtAddr) -> bool {
        self.start <= address && address < self.end
    }

    /// The name; plain anonymous memory, which has none, is "anon".
    pub fn label(&self) -> &str {
        if self.name.is_empty() { "anon" } else { &self.name }
    }

    /// Base pages it spans.
    pub fn pages(&self) -> u64 {
        self.end.page().saturating_sub(self.start.page())
    }

    /// Parses one line without its newline; `None` if it does not have the kernel's form.
    fn parse(line: &[u8]) -> Option<Self> {
        let (range, rest) = split_once(line, b' ')?;
        let (perms, rest) = split_once(rest, b' ')?;
        let (offset, rest) = split_once(rest, b' ')?;
        let (dev, rest) = split_once(rest, b' ')?;
        // The kernel prints a blank after the inode even if no name follows.
        let (inode, name) = split_once(rest, b' ').unwrap_or((rest, b""));
        let (start, end) = split_once(range, b'-')?;
        let (major, minor) = split_once(dev, b':')?;
        let vma = Self {
            start: VirtAddr(hex(start)?),
            end: VirtAddr(hex(end)?),
            perms: Perms::from_bytes(perms)?,
            offset: hex(offset)?,
            dev: (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?),
            inode: decimal(inode)?,
            name: name_of(name),
        };
        (vma.start < vma.end).then_some(vma)
    }
}

/// The name after its padding. The kernel pads with blanks, and names begin with `/`, `[` or a letter, never a blank.
fn name_of(padded: &[u8]) -> Arc<str> {
    let first = padded.iter().position(|&byte| byte != b' ');
    match first.and_then(|first| padded.get(first..)) {
        Some(name) => Arc::from(String::from_utf8_lossy(name)),
        None => Arc::default(),
    }
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|&byte| byte == at)?;
    Some((bytes.get(..index)?, bytes.get(index + 1..)?))
}

/// Parses digits only: `from_str_radix` alone would accept a sign.
fn hex(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let text = str::from_utf8(digits).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Parses `/proc/PID/maps` (fs/proc/task_mmu.c, `show_map_vma`), line by line.
///
/// # Errors
/// [`MapsError::Line`] for a line that does not have the kernel's form; the iteration continues after it.
/// [`MapsError::Read`] when reading fails; the iteration ends.
pub fn parse(reader: impl BufRead) -> impl Iterator<Item = Result<Vma, MapsError>> {
    Lines {
        reader,
        line: Vec::new(),
        number: 0,
        failed: false,
    }
}

struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: usize,
    failed: bool,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Vma, MapsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        self.line.clear();
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(0) => return None,
            Ok(_) => self.number += 1,
            Err(source) => {
                self.failed = true;
                return Some(Err(MapsError::Read {
                    number: self.number,
                    source,
                }));
            }
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Some(Vma::parse(line).ok_or_else(|| MapsError::Line {
            number: self.number,
            text: String::from_utf8_lossy(line.get(..QUOTED).unwrap_or(line)).into_owned(),
        }))
    }
}

/// The VMAs of one process at one moment, by address.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    vmas: Vec<Arc<Vma>>,
    skipped: usize,
}

impl AddressSpace {
    /// Reads `/proc/TGID/maps`. Zombies and kernel threads have no mappings: their address space is empty, or newer
    /// kernels return `ESRCH`.
    ///
    /// # Errors
    /// The kernel's error: `NotFound` or `ESRCH` if the process is gone, `PermissionDenied` without ptrace access to
    /// it.
    pub fn read(tgid: Tgid) -> io::Result<Self> {
        let file = File::open(format!("/proc/{tgid}/maps"))?;
        Self::from_reader(BufReader::with_capacity(64 << 10, file))
    }

    /// Collects the results of [`parse`]; lines that it cannot read are counted in [`skipped`](Self::skipped).
    ///
    /// # Errors
    /// Only the reader's errors.
    pub fn from_reader(reader: impl BufRead) -> io::Result<Self> {
        let mut space = Self::default();
        for vma in parse(reader) {
            match vma {
                Ok(vma) => space.vmas.push(Arc::new(vma)),
                Err(MapsError::Line { .. }) => space.skipped += 1,
                Err(MapsError::Read { source, .. }) => return Err(source),
            }
        }
        // The kernel prints mappings in order, but one that moves between two reads of the file may come out of order.
        space.vmas.sort_by_key(|vma| vma.start);
        Ok(space)
    }

    /// The mapping that covers `address`.
    pub fn find(&self, address: VirtAddr) -> Option<&Arc<Vma>> {
        let behind = self.vmas.partition_point(|vma| vma.start <= address);
        let vma = self.vmas.get(behind.checked_sub(1)?)?;
        vma.contains(address).then_some(vma)
    }

    /// All mappings in the order of their addresses.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Vma>> {
        self.vmas.iter()
    }

    /// The number of lines that did not have the kernel's form: the address space lacks their mappings.
    pub fn skipped(&self) -> usize {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    const KERNEL: &[u8] = b"\
55d0c8a00000-55d0c8a21000 rw-p 00000000 00:00 0                          [heap]\n\
7f2a40000000-7f2a40200000 rw-p 00000000 00:00 0 \n\
7f2a40200000-7f2a40201000 rw-p 00000000 00:00 0                          [anon:two words]\n\
7f2a5c000000-7f2a5c026000 r--p 00001000 fe:00 1835056                    /usr/lib/x86_64-linux-gnu/libc.so.6\n\
7f2a5c026000-7f2a5c027000 rw-s 00000000 00:01 1034                       /memfd:a b (deleted) (deleted)\n\
7f2a5c027000-7f2a5c028000 r-xp 00000000 103:00a0 18446744073709551615    /tmp/line\\012break\n\
7ffd3f9e4000-7ffd3fa05000 rw-p 00000000 00:00 0                          [stack]\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

    fn space(text: &[u8]) -> AddressSpace {
        AddressSpace::from_reader(text).unwrap()
    }

    #[test]
    fn reads_what_the_kernel_prints() {
        let vmas: Vec<Vma> = parse(KERNEL).map(Result::unwrap).collect();
        let names: Vec<&str> = vmas.iter().map(|vma| &*vma.name).collect();
        assert_eq!(
            names,
            [
                "[heap]",
                "",
                "[anon:two words]",
                "/usr/lib/x86_64-linux-gnu/libc.so.6",
                "/memfd:a b (deleted) (deleted)",
                "/tmp/line\\012break",
                "[stack]",
                "[vsyscall]"
            ]
        );
        assert_eq!(vmas[3].offset, 0x1000);
        assert_eq!(vmas[3].dev, (0xfe, 0));
        assert_eq!(vmas[3].inode, 1_835_056);
        assert_eq!(vmas[4].perms.to_string(), "rw-s");
        assert!(vmas[4].perms.shared() && !vmas[4].perms.executable());
        assert_eq!(vmas[5].dev, (0x103, 0xa0));
        assert_eq!(vmas[5].inode, u64::MAX);
        assert_eq!(vmas[6].pages(), 0x21);
    }

    #[test]
    fn finds_by_address() {
        let space = space(KERNEL);
        let name = |address| space.find(VirtAddr(address)).map(|vma| vma.name.to_string());
        assert_eq!(name(0), None);
        assert_eq!(name(0x55d0_c89f_ffff), None);
        assert_eq!(name(0x55d0_c8a0_0000).as_deref(), Some("[heap]"));
        assert_eq!(name(0x55d0_c8a2_0fff).as_deref(), Some("[heap]"));
        assert_eq!(name(0x55d0_c8a2_1000), None);
        assert_eq!(name(0x7f2a_4000_0000).as_deref(), Some(""));
        assert_eq!(name(u64::MAX), None);
        assert_eq!((space.iter().len(), space.skipped()), (8, 0));
    }

    #[test]
    fn a_bad_line_does_not_hide_the_others() {
        let text = b"junk\n1000-2000 r--p 0 0:0 0\n\n2000-1000 r--p 0 0:0 0 \n+1000-2000 r--p 0 0:0 0 \n\
            3000-4000 r?-p 0 0:0 0 \n5000-6000 r--p 0 0:0 -1 \n11112222333344445-2 r--p 0 0:0 0 \n6000-7000 r--p 0 0:0 7   \xff\x1b[2J";
        let read: Vec<_> = parse(&text[..]).collect();
        let bad: Vec<usize> = read
            .iter()
            .filter_map(|line| match line {
                Err(MapsError::Line { number, .. }) => Some(*number),
                _ => None,
            })
            .collect();
        assert_eq!(bad, [1, 3, 4, 5, 6, 7, 8]);
        assert_eq!(&*read[8].as_ref().unwrap().name, "\u{fffd}\u{1b}[2J");
        let space = space(text);
        assert_eq!((space.iter().len(), space.skipped()), (2, 7));
    }

    #[test]
    fn an_error_quotes_only_the_beginning() {
        let long = vec![b'x'; 1 << 20];
        let error = parse(&long[..]).next().unwrap().unwrap_err();
        assert!(error.to_string().len() < 200);
    }

    #[test]
    fn own_memory_is_mapped() {
        let space = AddressSpace::read(Tgid(std::process::id())).unwrap();
        let own = Box::new(0u8);
        let vma = space.find(VirtAddr((&raw const *own).addr() as u64));
        assert!(vma.unwrap().perms.writable());
        assert_eq!(space.skipped(), 0);
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = space(&text);
        }

        #[test]
        fn any_name_survives(
            start in 0..u64::MAX,
            offset: u64,
            dev: (u32, u32),
            inode: u64,
            name in "([/\\[a-z][^\n\0]{0,40})?",
        ) {
            let end = start + 1;
            let (major, minor) = dev;
            let header = format!("{start:08x}-{end:08x} rw-p {offset:08x} {major:02x}:{minor:02x} {inode} ");
            let line = format!("{header:<72} {name}\n");
            let vma = parse(line.as_bytes()).next().unwrap().unwrap();
            prop_assert_eq!((vma.start.0, vma.end.0, vma.offset), (start, end, offset));
            prop_assert_eq!((vma.dev, vma.inode, &*vma.name), (dev, inode, &*name));
        }

        #[test]
        fn find_agrees_with_a_scan(gaps in prop::collection::vec((0u64..3, 1u64..4), 0..20), address in 0u64..100) {
            let (mut at, mut text) = (0, String::new());
            for (gap, len) in gaps {
                let start = at + gap;
                at = start + len;
                writeln!(text, "{start:x}-{at:x} rw-p 0 0:0 0 ").unwrap();
            }
            let space = space(text.as_bytes());
            let scanned = space.iter().find(|vma| vma.contains(VirtAddr(address)));
            prop_assert_eq!(space.find(VirtAddr(address)), scanned);
        }
    }
}
