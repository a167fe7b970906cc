//! The catalogue of page flags: the name and the meaning of each bit of /proc/kpageflags.
//! Input: kernel-page-flags.h (include/linux, include/uapi/linux), Documentation/admin-guide/mm/pagemap.rst, 6.1 to 7.3.

/// One flag of `/proc/kpageflags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFlag {
    /// `KPF_*`: its bit in the word.
    pub bit: u32,
    /// Its name as the kernel's documentation spells it, in lower case.
    pub name: &'static str,
    /// The meaning of the flag, in one sentence.
    pub what: &'static str,
}

const fn flag(bit: u32, name: &'static str, what: &'static str) -> PageFlag {
    PageFlag { bit, name, what }
}

/// Flags below this bit are a stable interface of the kernel; flags from here on serve its developers and may change.
pub const FIRST_INTERNAL: u32 = 32;

/// The number of flags that the kernel documents: bits 0 to 26.
const DOCUMENTED: usize = 27;

/// Every flag that kernels 6.1 to 7.3 show, by bit.
pub const ALL: [PageFlag; 38] = [
    flag(
        0,
        "locked",
        "Somebody holds the page for himself alone, for example while it is read or written.",
    ),
    flag(
        1,
        "error",
        "An I/O error happened on the page; newer kernels never set it.",
    ),
    flag(
        2,
        "referenced",
        "The page was used since it came to its place in the LRU list.",
    ),
    flag(
        3,
        "uptodate",
        "The content is valid: at least as new as that on the disk.",
    ),
    flag(4, "dirty", "The content was written to: newer than that on the disk."),
    flag(
        5,
        "lru",
        "The page stands in one of the lists that reclaim works through.",
    ),
    flag(
        6,
        "active",
        "The page stands in the list of the active ones, which reclaim takes last.",
    ),
    flag(7, "slab", "The kernel's allocator for small objects has it."),
    flag(8, "writeback", "The content is being written to the disk."),
    flag(
        9,
        "reclaim",
        "The page is to be reclaimed as soon as its write is done.",
    ),
    flag(10, "buddy", "The page is free: part of a block of the page allocator."),
    flag(11, "mmap", "At least one page table maps the page."),
    flag(12, "anon", "The page belongs to no file: heap, stack, private memory."),
    flag(
        13,
        "swapcache",
        "The page has a slot in swap, which may hold the same content.",
    ),
    flag(
        14,
        "swapbacked",
        "The page goes to swap when it is reclaimed: anonymous memory and shmem.",
    ),
    flag(15, "compound_head", "The first frame of several that are one unit."),
    flag(16, "compound_tail", "A later frame of several that are one unit."),
    flag(17, "huge", "Part of a page of hugetlb."),
    flag(
        18,
        "unevictable",
        "Reclaim leaves the page alone: mlock, SHM_LOCK, ramfs.",
    ),
    flag(
        19,
        "hwpoison",
        "The hardware reported the memory as broken: nobody may use it.",
    ),
    flag(20, "nopage", "No memory is behind this frame number."),
    flag(21, "ksm", "One frame for identical pages, merged by KSM."),
    flag(
        22,
        "thp",
        "Part of a transparent large folio; before 6.12 only of one of PMD size.",
    ),
    flag(
        23,
        "offline",
        "The page is logically offline, for example given back by a balloon.",
    ),
    flag(
        24,
        "zero_page",
        "The kernel's page of zeros, small or huge, which stands for memory that was only read.",
    ),
    flag(25, "idle", "Nobody used the page since idle tracking marked it."),
    flag(26, "pgtable", "The page holds a page table."),
    flag(32, "reserved", "The kernel keeps the page out of its allocator."),
    flag(33, "mlocked", "A process has locked the page in memory."),
    flag(
        34,
        "owner_2",
        "For the owner's use, a second bit; before 6.16 mappedtodisk.",
    ),
    flag(35, "private", "The file system keeps data of its own with the page."),
    flag(
        36,
        "private_2",
        "The file system keeps more data of its own with the page.",
    ),
    flag(37, "owner_private", "For the use of whoever owns the page."),
    flag(38, "arch", "For the architecture's use."),
    flag(39, "uncached", "The page is mapped without the CPU's caches."),
    flag(
        40,
        "softdirty",
        "Soft-dirty, where the kernel keeps that with the page.",
    ),
    flag(41, "arch_2", "For the architecture's use, a second bit."),
    flag(42, "arch_3", "For the architecture's use, a third bit."),
];

/// The flags that the kernel documents for user space, by bit.
pub fn documented() -> impl Iterator<Item = &'static PageFlag> {
    ALL.iter().take(DOCUMENTED)
}

/// The flag of this bit; `None` for a bit that no kernel up to 7.3 uses.
pub fn by_bit(bit: u32) -> Option<&'static PageFlag> {
    ALL.binary_search_by_key(&bit, |flag| flag.bit)
        .ok()
        .and_then(|at| ALL.get(at))
}

/// The flag of this name.
pub fn by_name(name: &str) -> Option<&'static PageFlag> {
    ALL.iter().find(|flag| flag.name == name)
}

/// The names of the set bits, in the order of bits; a bit that is not in the catalogue is named by its number,
/// `bit_27`.
pub fn names_of(word: u64) -> impl Iterator<Item = String> {
    (0..u64::BITS)
        .filter(move |bit| word >> bit & 1 != 0)
        .map(|bit| match by_bit(bit) {
            Some(flag) => flag.name.to_owned(),
            None => format!("bit_{bit}"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_has_the_kernels_name() {
        let names = [
            "locked",
            "error",
            "referenced",
            "uptodate",
            "dirty",
            "lru",
            "active",
            "slab",
            "writeback",
            "reclaim",
            "buddy",
            "mmap",
            "anon",
            "swapcache",
            "swapbacked",
            "compound_head",
            "compound_tail",
            "huge",
            "unevictable",
            "hwpoison",
            "nopage",
            "ksm",
            "thp",
            "offline",
            "zero_page",
            "idle",
            "pgtable",
        ];
        for (bit, name) in (0..).zip(names) {
            assert_eq!(by_bit(bit).unwrap().name, name);
            assert_eq!(by_name(name).unwrap().bit, bit);
        }
        let internal = [
            "reserved",
            "mlocked",
            "owner_2",
            "private",
            "private_2",
            "owner_private",
            "arch",
            "uncached",
            "softdirty",
            "arch_2",
            "arch_3",
        ];
        for (bit, name) in (FIRST_INTERNAL..).zip(internal) {
            assert_eq!(by_bit(bit).unwrap().name, name);
        }
        assert_eq!(ALL.len(), names.len() + internal.len());
        assert_eq!(documented().count(), names.len());
        assert!(documented().all(|flag| flag.bit < FIRST_INTERNAL));
        for bit in (27..32).chain(43..64) {
            assert_eq!(by_bit(bit), None);
        }
        assert!(by_name("nonsense").is_none());
    }

    #[test]
    fn every_flag_is_explained_in_a_sentence() {
        assert!(ALL.iter().all(|flag| flag.what.ends_with('.') && flag.what.len() > 20));
        assert!(ALL.is_sorted_by_key(|flag| flag.bit));
    }

    #[test]
    fn unknown_bits_are_shown_by_number() {
        let names: Vec<String> = names_of(1 << 0 | 1 << 27 | 1 << 33 | 1 << 63).collect();
        assert_eq!(names, ["locked", "bit_27", "mlocked", "bit_63"]);
        assert_eq!(names_of(0).count(), 0);
        assert_eq!(names_of(u64::MAX).count(), 64);
    }
}
