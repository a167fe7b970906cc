//! The kernel's flags and mapping counts of page frames.
//! Input: /proc/kpageflags and /proc/kpagecount, one 64-bit word per frame, readable by root only.

use std::fmt;
use std::fs::File;
use std::io;

use thiserror::Error;

use crate::kernel::release::Version;
use crate::proc::page_flags;
use crate::proc::pagemap::{Frame, Pagemap, gather, read_words};
use crate::units::{Pfn, VirtAddr};

/// The largest distance to the next wanted frame over which words are read and dropped. A word costs 30 to 45 ns,
/// because the kernel looks at the frame's `struct page`, and a system call costs 165 ns (6.18, one core).
const MAX_GAP: u64 = 4;

/// One of the two files failed; a program can continue without it.
#[derive(Debug, Error)]
#[error("cannot {operation} {path}: {source}")]
pub struct KpageError {
    /// "open" or "read".
    pub operation: &'static str,
    /// The file.
    pub path: &'static str,
    /// The kernel's error; `NotFound` on a kernel built without `CONFIG_PROC_PAGE_MONITOR`.
    pub source: io::Error,
}

/// An open file with one word per frame (fs/proc/page.c). It remains readable after privileges are dropped.
#[derive(Debug)]
pub struct FrameFile {
    file: File,
    path: &'static str,
    absent: u64,
}

impl FrameFile {
    /// `/proc/kpageflags`: its words are for [`PageFlags::new`]. A frame beyond the memory reads [`PageFlags::NOPAGE`].
    ///
    /// # Errors
    /// [`KpageError`] when it is missing or may not be opened.
    pub fn flags() -> Result<Self, KpageError> {
        Self::open("/proc/kpageflags", PageFlags::NOPAGE)
    }

    /// `/proc/kpagecount`: its words count the mappings of a frame in page tables. A frame beyond the memory reads 0.
    /// Kernels built without `CONFIG_PAGE_MAPCOUNT` (6.15 and later) show the average over the folio.
    ///
    /// # Errors
    /// [`KpageError`] when it is missing or may not be opened.
    pub fn counts() -> Result<Self, KpageError> {
        Self::open("/proc/kpagecount", 0)
    }

    fn open(path: &'static str, absent: u64) -> Result<Self, KpageError> {
        match File::open(path) {
            Ok(file) => Ok(Self { file, path, absent }),
            Err(source) => Err(KpageError {
                operation: "open",
                path,
                source,
            }),
        }
    }

    /// Fills `words` with those of neighbouring frames from `first` on; returns the number before the file's end.
    ///
    /// # Errors
    /// [`KpageError`] when reading fails.
    pub fn read_range(&self, first: Pfn, words: &mut [u64]) -> Result<usize, KpageError> {
        read_words(&self.file, first.0, words).map_err(|source| KpageError {
            operation: "read",
            path: self.path,
            source,
        })
    }

    /// Replaces the content of `out` with one word per frame, in their order.
    /// Frames that lie close together share a system call: unsorted frames are read correctly, but slowly.
    ///
    /// # Errors
    /// [`KpageError`] when reading fails; `out` is then not usable.
    pub fn lookup(&self, sorted: &[Pfn], out: &mut Vec<u64>) -> Result<(), KpageError> {
        match gather(&self.file, sorted, |pfn| pfn.0, MAX_GAP, self.absent, out) {
            Ok(_) => Ok(()),
            Err(source) => Err(KpageError {
                operation: "read",
                path: self.path,
                source,
            }),
        }
    }
}

/// Errors in a kernel's kpageflags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KpfQuirks {
    /// `KPF_KSM` is set for every anonymous page and has no meaning.
    pub ksm_on_every_anon: bool,
}

impl KpfQuirks {
    /// The known errors of a release ("6.12.117+deb12-cloud-amd64"); none for a text without a version.
    ///
    /// KSM: `stable_page_flags` (fs/proc/page.c) was rewritten in 6.10 and tested one bit of `FOLIO_MAPPING_KSM`, which
    /// has two. It was seen wrong on 6.12 and 6.18, right on 6.1, 6.18.44, 7.2 and 7.3; releases in between that were
    /// not tried count as wrong. Stable kernels get the fix: use [`probe`](Self::probe) where possible.
    pub fn of(release: &str) -> Self {
        let ksm_on_every_anon = Version::parse(release).is_some_and(|version| {
            let wrong = Version(6, 10, 0)..Version(7, 2, 0);
            let fixed = Version(6, 18, 44)..Version(6, 19, 0);
            wrong.contains(&version) && !fixed.contains(&version)
        });
        Self { ksm_on_every_anon }
    }

    /// Tests the running kernel: a private page that was written immediately before cannot have been merged yet.
    /// `None` if the page's frame or its flags cannot be read. `own` is the caller's own pagemap.
    pub fn probe(own: &Pagemap, flags: &FrameFile) -> Option<Self> {
        // Two pages contain one whole page that holds nothing else, wherever the allocation begins.
        let fresh = std::hint::black_box(vec![1u8; 8192]);
        let middle = VirtAddr((&raw const *fresh.get(4096)?).addr() as u64);
        let mut word = [0];
        own.read_range(middle, &mut word).ok()?;
        let Frame::Present(pfn) = Frame::decode(word[0]) else {
            return None;
        };
        let mut out = Vec::new();
        flags.lookup(&[pfn], &mut out).ok()?;
        drop(fresh);
        let seen = PageFlags::new(*out.first()?, Self::default());
        seen.has("anon").then(|| Self {
            ksm_on_every_anon: seen.has("ksm"),
        })
    }
}

/// The flags of one frame that can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageFlags(u64);

impl PageFlags {
    /// `KPF_NOPAGE`: this frame number has no memory.
    pub const NOPAGE: u64 = 1 << 20;
    /// `KPF_KSM`: the frame holds identical pages of several mappings.
    pub const KSM: u64 = 1 << 21;

    /// Takes a word of kpageflags and clears the flags that this kernel gets wrong.
    pub fn new(word: u64, quirks: KpfQuirks) -> Self {
        if quirks.ksm_on_every_anon {
            Self(word & !Self::KSM)
        } else {
            Self(word)
        }
    }

    /// The word, `1 << KPF_*`, without the cleared flags.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether the flag of this name is set; false for a name the kernel does not have.
    pub fn has(self, name: &str) -> bool {
        self.names().any(|set| set == name)
    }

    /// The names of the set flags in the order of their bits, in lower case as in the kernel's documentation, without
    /// the flags that serve the kernel's developers. "thp" is any transparent large folio on 6.12 and later, not only
    /// one of PMD size.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        page_flags::documented().filter_map(move |flag| (self.0 >> flag.bit & 1 != 0).then_some(flag.name))
    }
}

impl fmt::Display for PageFlags {
    /// The names with commas between them; "-" if there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.names();
        f.write_str(names.next().unwrap_or("-"))?;
        names.try_for_each(|name| write!(f, ",{name}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::Tgid;

    const NONE: KpfQuirks = KpfQuirks {
        ksm_on_every_anon: false,
    };

    #[test]
    fn names_stand_at_their_bits() {
        let only = |bit: u32| PageFlags::new(1 << bit, NONE).to_string();
        assert_eq!(only(0), "locked");
        assert_eq!(only(5), "lru");
        assert_eq!(only(11), "mmap");
        assert_eq!(only(14), "swapbacked");
        assert_eq!(only(17), "huge");
        assert_eq!(only(20), "nopage");
        assert_eq!(only(21), "ksm");
        assert_eq!(only(22), "thp");
        assert_eq!(only(26), "pgtable");
        assert_eq!(only(27), "-");
        assert_eq!(only(63), "-");
        // A page of an anonymous huge page on 6.18.
        let page = PageFlags::new(0x0061_5868 | 1 << 37, KpfQuirks::of("6.18.5"));
        assert_eq!(
            page.to_string(),
            "uptodate,lru,active,mmap,anon,swapbacked,compound_tail,thp"
        );
        assert!(page.has("thp") && !page.has("ksm") && !page.has("nonsense"));
    }

    #[test]
    fn ksm_is_believed_where_it_is_right() {
        for (release, wrong) in [
            ("6.1.0-44-cloud-amd64", false),
            ("6.9.12", false),
            ("6.10.0", true),
            ("6.12.117+deb12-cloud-amd64", true),
            ("6.18.5", true),
            ("6.18.44-cloud", false),
            ("6.19.0", true),
            ("7.2.0-rc1", false),
            ("7.3.0", false),
            ("", false),
            ("unknown", false),
        ] {
            assert_eq!(KpfQuirks::of(release).ksm_on_every_anon, wrong, "{release}");
        }
    }

    #[test]
    fn an_error_names_the_file() {
        let error = FrameFile::open("/proc/no such file", 0).unwrap_err();
        assert!(error.to_string().starts_with("cannot open /proc/no such file: "));
    }

    #[test]
    #[ignore = "needs root: frame numbers, kpageflags and kpagecount"]
    fn own_page_is_anonymous_and_mapped() {
        let flags = FrameFile::flags().unwrap();
        let counts = FrameFile::counts().unwrap();
        let pagemap = Pagemap::open(Tgid(std::process::id())).unwrap();
        let page = vec![1u8; 8192];
        let mut entry = [0];
        let address = VirtAddr((&raw const page[4096]).addr() as u64);
        pagemap.read_range(address, &mut entry).unwrap();
        let Frame::Present(pfn) = Frame::decode(entry[0]) else {
            panic!("frame numbers are hidden");
        };
        let mut out = Vec::new();
        flags.lookup(&[pfn, Pfn(1 << 40), Pfn(u64::MAX)], &mut out).unwrap();
        assert_eq!(out[1..], [PageFlags::NOPAGE; 2]);
        let quirks = KpfQuirks::probe(&pagemap, &flags).unwrap();
        let seen = PageFlags::new(out[0], quirks);
        assert!(seen.has("anon") && seen.has("mmap") && !seen.has("ksm"), "{seen}");
        counts.lookup(&[pfn, Pfn(u64::MAX)], &mut out).unwrap();
        assert_eq!(out, [1, 0]);
    }

    proptest! {
        #[test]
        fn names_never_panic(word: u64, wrong: bool) {
            let flags = PageFlags::new(word, KpfQuirks { ksm_on_every_anon: wrong });
            prop_assert_eq!(flags.names().count(), (flags.bits() & 0x07ff_ffff).count_ones() as usize);
            prop_assert!(!(wrong && flags.has("ksm")));
        }
    }
}
