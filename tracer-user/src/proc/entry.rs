//! Every bit of a pagemap entry: the flags beside the frame, and the meaning of an entry without a page.
//! Input: words of /proc/PID/pagemap; the kernel's release and /proc/kallsyms, from which its swap types are derived.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::OnceLock;

use crate::kernel::release::{self, Version};
use crate::proc::pagemap::{self, Entry, SwapSlot};
use crate::units::Pfn;

/// One field of a pagemap entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its bits as the kernel's documentation gives them.
    pub bits: &'static str,
    /// The name by which a filter selects it; empty for the frame and the swap slot.
    pub name: &'static str,
    /// The bit alone; 0 for the frame and the swap slot.
    pub mask: u64,
    /// Its meaning, in one sentence.
    pub what: &'static str,
}

const fn bit(bits: &'static str, name: &'static str, bit: u32, what: &'static str) -> Field {
    Field {
        bits,
        name,
        mask: 1 << bit,
        what,
    }
}

const fn number(bits: &'static str, what: &'static str) -> Field {
    Field {
        bits,
        name: "",
        mask: 0,
        what,
    }
}

/// Every field, 6.1 to 7.3 (fs/proc/task_mmu.c, `pagemap_read`; Documentation/admin-guide/mm/pagemap.rst). Bits 59 and
/// 60 are zero.
pub const FIELDS: [Field; 10] = [
    number(
        "0-54",
        "The frame of a present page; 0 where the reader may not know it.",
    ),
    number(
        "0-4",
        "The swap type of an entry without a page: a swap area, or a special entry of the kernel's.",
    ),
    number(
        "5-54",
        "The swap offset: a slot of the area, or the frame of a special entry.",
    ),
    bit(
        "55",
        "soft_dirty",
        pagemap::SOFT_DIRTY,
        "The page was written to since clear_refs was told to forget; set on new mappings.",
    ),
    bit(
        "56",
        "exclusive",
        pagemap::EXCLUSIVE,
        "No other page table maps the page.",
    ),
    bit(
        "57",
        "uffd_wp",
        pagemap::UFFD_WP,
        "Userfaultfd protects the page against writing.",
    ),
    bit(
        "58",
        "guard",
        pagemap::GUARD,
        "A guard region: any access is a SIGSEGV (6.15 and later).",
    ),
    bit(
        "61",
        "file",
        pagemap::FILE_OR_SHMEM,
        "The page belongs to a file or to shared memory.",
    ),
    bit(
        "62",
        "swap",
        pagemap::SWAP,
        "No page is there, but the entry holds something: swap, or a special entry.",
    ),
    bit("63", "present", pagemap::PRESENT, "A page is there."),
];

/// The meaning of an entry. Entries that look like swap but are not have variants of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// Nothing is there: never touched, given back, or not mapped.
    None,
    /// The page is in this frame.
    Frame(Pfn),
    /// The page is in a frame that the kernel hides from the reader.
    HiddenFrame,
    /// The page is in swap.
    Swap(SwapSlot),
    /// The entry holds something other than a page, which the kernel hides from the reader: swap, or any of the kinds
    /// below.
    HiddenEntry,
    /// The page is being copied away from this frame.
    Migrating(Pfn),
    /// The page is in the private memory of a device.
    DevicePrivate(Pfn),
    /// A device has exclusive access to the page.
    DeviceExclusive(Pfn),
    /// The frame is broken: an access raises SIGBUS.
    HwPoison(Pfn),
    /// A guard region: an access raises SIGSEGV.
    Guard,
    /// A marker of userfaultfd: there is no page, but the range is protected against writing.
    UffdWpMarker,
    /// A marker of lost content, which could not be read back from swap, or was poisoned: an access raises SIGBUS.
    PoisonMarker,
    /// A marker without any flag that kernels up to 7.3 have.
    Marker(u64),
    /// A special entry whose type is not known for this build of the kernel.
    Special {
        /// The swap type.
        ty: u8,
        /// The swap offset.
        offset: u64,
    },
}

impl Entry {
    /// The meaning of the entry, given the kernel's swap types.
    ///
    /// Without CAP_SYS_ADMIN type and offset read 0, the header of the first swap area, where no page can be: that is
    /// [`Meaning::HiddenEntry`]. Migration entries of hugetlb have no bit of their own and read [`Meaning::None`]
    /// (fs/proc/task_mmu.c, `pagemap_hugetlb_range`, 6.1 to 7.3).
    pub fn meaning(self, types: &SwapTypes) -> Meaning {
        if self.0 & (1 << pagemap::GUARD) != 0 {
            return Meaning::Guard;
        }
        let number = self.0 & pagemap::PFN_MASK;
        if self.0 & (1 << pagemap::PRESENT) != 0 {
            return match number {
                0 => Meaning::HiddenFrame,
                pfn => Meaning::Frame(Pfn(pfn)),
            };
        }
        if self.0 & (1 << pagemap::SWAP) == 0 {
            return Meaning::None;
        }
        if number == 0 {
            return Meaning::HiddenEntry;
        }
        let [ty, ..] = (number & u64::from(LAST_TYPE)).to_le_bytes();
        let offset = number >> pagemap::SWAP_TYPE_BITS;
        match types.kind(ty) {
            SwapType::Area => Meaning::Swap(SwapSlot { ty, offset }),
            SwapType::Migration => Meaning::Migrating(Pfn(offset)),
            SwapType::DevicePrivate => Meaning::DevicePrivate(Pfn(offset)),
            SwapType::DeviceExclusive => Meaning::DeviceExclusive(Pfn(offset)),
            SwapType::HwPoison => Meaning::HwPoison(Pfn(offset)),
            SwapType::SwapinError => Meaning::PoisonMarker,
            SwapType::Marker => marker(offset),
            SwapType::Unknown => Meaning::Special { ty, offset },
        }
    }
}

/// `PTE_MARKER_*`, include/linux/swapops.h (7.2 and later: leafops.h): flags in the offset. UFFD_WP since 5.19,
/// POISONED since 6.2 (as SWAPIN_ERROR before 6.6), GUARD since 6.13.
fn marker(offset: u64) -> Meaning {
    const UFFD_WP: u64 = 1 << 0;
    const POISONED: u64 = 1 << 1;
    const GUARD: u64 = 1 << 2;
    match offset {
        flags if flags & GUARD != 0 => Meaning::Guard,
        flags if flags & POISONED != 0 => Meaning::PoisonMarker,
        flags if flags & UFFD_WP != 0 => Meaning::UffdWpMarker,
        flags => Meaning::Marker(flags),
    }
}

/// The highest swap type: the field has five bits.
const LAST_TYPE: u8 = 31;
/// Types below this are swap areas in every build (include/linux/swap.h, `MAX_SWAPFILES`; 23 up to 7.3).
const FEWEST_AREAS: u8 = 21;

/// The meaning of a swap type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SwapType {
    Area,
    HwPoison,
    Migration,
    DevicePrivate,
    DeviceExclusive,
    Marker,
    SwapinError,
    Unknown,
}

/// The numbering of a kernel's swap types (include/linux/swap.h, 6.1 to 7.3). Types below `MAX_SWAPFILES` are swap
/// areas. From there on the special ones follow, each only if it is built in: one for poisoned frames, three for
/// migration, those of device memory, one for markers, and on 6.1 one for pages that could not be read back. The
/// numbers are therefore counted down from the last type, by the kernel's build options.
#[derive(Debug)]
pub struct SwapTypes {
    version: Option<Version>,
    built: OnceLock<[SwapType; LAST_TYPE as usize + 1]>,
    symbols: fn() -> Option<BTreeSet<String>>,
}

/// `CONFIG_MEMORY_FAILURE`.
const MEMORY_FAILURE: &str = "memory_failure";
/// `CONFIG_DEVICE_PRIVATE`, up to 6.14: it adds four types.
const FOUR_DEVICE_TYPES: &str = "make_device_exclusive_range";
/// `CONFIG_DEVICE_PRIVATE` from 6.15 on: it adds three types, because exclusive access has only one.
const THREE_DEVICE_TYPES: &str = "make_device_exclusive";
/// Every kernel has this symbol: a list without it is not usable.
const EVERYWHERE: &str = "schedule";

impl SwapTypes {
    /// The types of the running kernel. Its symbols are read when the first entry needs them.
    pub fn running() -> Self {
        Self {
            version: Version::parse(&release::release()),
            built: OnceLock::new(),
            symbols: running_symbols,
        }
    }

    fn kind(&self, ty: u8) -> SwapType {
        match ty {
            0..FEWEST_AREAS => SwapType::Area,
            // It is the last type since 6.2 in every build: most entries need no symbols.
            LAST_TYPE if self.version.is_some_and(|version| version >= Version(6, 2, 0)) => SwapType::Marker,
            _ => {
                let built = self.built.get_or_init(|| {
                    (self.symbols)().map_or_else(unknown_build, |symbols| of_build(self.version, &symbols))
                });
                built.get(usize::from(ty)).copied().unwrap_or(SwapType::Unknown)
            }
        }
    }
}

fn unknown_build() -> [SwapType; LAST_TYPE as usize + 1] {
    let mut kinds = [SwapType::Unknown; LAST_TYPE as usize + 1];
    kinds[..usize::from(FEWEST_AREAS)].fill(SwapType::Area);
    kinds
}

fn of_build(version: Option<Version>, symbols: &BTreeSet<String>) -> [SwapType; LAST_TYPE as usize + 1] {
    let has = |name: &str| symbols.contains(name);
    if !has(EVERYWHERE) {
        return unknown_build();
    }
    // Count down from the last type.
    let mut special = Vec::new();
    if version.is_some_and(|version| version < Version(6, 2, 0)) {
        special.push(SwapType::SwapinError);
    }
    special.push(SwapType::Marker);
    let exclusive = match (has(FOUR_DEVICE_TYPES), has(THREE_DEVICE_TYPES)) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    };
    special.extend([SwapType::DeviceExclusive; 2].iter().take(exclusive));
    if exclusive > 0 {
        special.extend([SwapType::DevicePrivate; 2]);
    }
    special.extend([SwapType::Migration; 3]);
    if has(MEMORY_FAILURE) {
        special.push(SwapType::HwPoison);
    }
    let mut kinds = [SwapType::Area; LAST_TYPE as usize + 1];
    for (kind, special) in kinds.iter_mut().rev().zip(special) {
        *kind = special;
    }
    kinds
}

/// The wanted symbols that the running kernel has; `None` if it does not list its symbols.
fn running_symbols() -> Option<BTreeSet<String>> {
    let file = File::open("/proc/kallsyms").ok()?;
    Some(wanted_symbols(BufReader::with_capacity(64 << 10, file)))
}

/// Reads `/proc/kallsyms` (kernel/kallsyms.c, `s_show`): address, type, name, and for a module's symbol its module.
fn wanted_symbols(reader: impl BufRead) -> BTreeSet<String> {
    let wanted = [MEMORY_FAILURE, FOUR_DEVICE_TYPES, THREE_DEVICE_TYPES, EVERYWHERE];
    reader
        .split(b'\n')
        .map_while(Result::ok)
        .filter_map(|line| {
            let name = line.split(|&byte| byte == b' ').nth(2)?;
            let wanted = wanted.into_iter().find(|wanted| wanted.as_bytes() == name)?;
            Some(wanted.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: u64 = 1 << 63;
    const SWAP: u64 = 1 << 62;

    fn types(version: Version, symbols: fn() -> Option<BTreeSet<String>>) -> SwapTypes {
        SwapTypes {
            version: Some(version),
            built: OnceLock::new(),
            symbols,
        }
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    type Symbols = Option<BTreeSet<String>>;

    #[expect(clippy::unnecessary_wraps, reason = "as a kernel answers")]
    fn bare() -> Symbols {
        Some(set(&[EVERYWHERE]))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as a kernel answers")]
    fn debian() -> Symbols {
        Some(set(&[EVERYWHERE, MEMORY_FAILURE, FOUR_DEVICE_TYPES]))
    }

    #[expect(clippy::unnecessary_wraps, reason = "as a kernel answers")]
    fn newest() -> Symbols {
        Some(set(&[EVERYWHERE, MEMORY_FAILURE, THREE_DEVICE_TYPES]))
    }

    fn swap(ty: u64, offset: u64) -> Entry {
        Entry(SWAP | offset << 5 | ty)
    }

    #[test]
    fn each_field_is_at_its_bit() {
        let named = |name: &str| FIELDS.iter().find(|field| field.name == name).unwrap().mask;
        assert_eq!(named("soft_dirty"), 1 << 55);
        assert_eq!(named("exclusive"), 1 << 56);
        assert_eq!(named("uffd_wp"), 1 << 57);
        assert_eq!(named("guard"), 1 << 58);
        assert_eq!(named("file"), 1 << 61);
        assert_eq!(named("swap"), 1 << 62);
        assert_eq!(named("present"), 1 << 63);
        assert!(FIELDS.iter().all(|field| field.what.ends_with('.')));
    }

    #[test]
    fn a_page_is_in_a_frame_or_hidden_or_nowhere() {
        let types = types(Version(6, 12, 0), bare);
        assert_eq!(Entry(PRESENT | 0x1234).meaning(&types), Meaning::Frame(Pfn(0x1234)));
        assert_eq!(
            Entry(PRESENT | 1 << 56 | 0x1234).meaning(&types),
            Meaning::Frame(Pfn(0x1234))
        );
        assert_eq!(
            Entry(PRESENT | ((1 << 55) - 1)).meaning(&types),
            Meaning::Frame(Pfn((1 << 55) - 1))
        );
        assert_eq!(Entry(PRESENT | 1 << 61).meaning(&types), Meaning::HiddenFrame);
        assert_eq!(Entry(SWAP).meaning(&types), Meaning::HiddenEntry);
        assert_eq!(Entry(0).meaning(&types), Meaning::None);
        assert_eq!(Entry(1 << 55).meaning(&types), Meaning::None);
    }

    #[test]
    fn swap_areas_are_below_the_special_types() {
        let few = types(Version(6, 12, 0), debian);
        assert_eq!(swap(0, 7).meaning(&few), Meaning::Swap(SwapSlot { ty: 0, offset: 7 }));
        assert_eq!(swap(22, 7).meaning(&few), Meaning::Swap(SwapSlot { ty: 22, offset: 7 }));
        let many = types(Version(6, 12, 0), bare);
        assert_eq!(
            swap(27, 7).meaning(&many),
            Meaning::Swap(SwapSlot { ty: 27, offset: 7 })
        );
    }

    #[test]
    fn special_entries_have_the_names_of_their_build() {
        // A build without poisoned frames and devices, such as 6.12 cloud: 28 to 30 migrate.
        let cloud = types(Version(6, 12, 0), bare);
        for ty in 28..=30 {
            assert_eq!(swap(ty, 0x77).meaning(&cloud), Meaning::Migrating(Pfn(0x77)));
        }
        // A build with both, up to 6.14.
        let full = types(Version(6, 12, 0), debian);
        assert_eq!(swap(23, 0x77).meaning(&full), Meaning::HwPoison(Pfn(0x77)));
        for ty in 24..=26 {
            assert_eq!(swap(ty, 0x77).meaning(&full), Meaning::Migrating(Pfn(0x77)));
        }
        for ty in 27..=28 {
            assert_eq!(swap(ty, 0x77).meaning(&full), Meaning::DevicePrivate(Pfn(0x77)));
        }
        for ty in 29..=30 {
            assert_eq!(swap(ty, 0x77).meaning(&full), Meaning::DeviceExclusive(Pfn(0x77)));
        }
        // A build with both, from 6.15 on: writable pages migrate as 27.
        let new = types(Version(7, 3, 0), newest);
        assert_eq!(swap(24, 0x77).meaning(&new), Meaning::HwPoison(Pfn(0x77)));
        assert_eq!(swap(27, 0x77).meaning(&new), Meaning::Migrating(Pfn(0x77)));
        assert_eq!(swap(28, 0x77).meaning(&new), Meaning::DevicePrivate(Pfn(0x77)));
        assert_eq!(swap(29, 0x77).meaning(&new), Meaning::DevicePrivate(Pfn(0x77)));
        assert_eq!(swap(30, 0x77).meaning(&new), Meaning::DeviceExclusive(Pfn(0x77)));
        // 6.1 has one more type at the end.
        let old = types(Version(6, 1, 0), bare);
        assert_eq!(swap(29, 0x77).meaning(&old), Meaning::Migrating(Pfn(0x77)));
        assert_eq!(swap(30, 1).meaning(&old), Meaning::UffdWpMarker);
        assert_eq!(swap(31, 1).meaning(&old), Meaning::PoisonMarker);
    }

    #[test]
    fn markers_are_no_pages() {
        // Markers are recognized without the kernel's symbols.
        let types = types(Version(6, 18, 0), || panic!("no need of them"));
        // A guard region as 6.18 shows it, and without the bit that 6.13 does not have.
        assert_eq!(Entry(0x4480_0000_0000_009f).meaning(&types), Meaning::Guard);
        assert_eq!(swap(31, 4).meaning(&types), Meaning::Guard);
        assert_eq!(swap(31, 1).meaning(&types), Meaning::UffdWpMarker);
        assert_eq!(swap(31, 2).meaning(&types), Meaning::PoisonMarker);
        assert_eq!(swap(31, 3).meaning(&types), Meaning::PoisonMarker);
        assert_eq!(swap(31, 64).meaning(&types), Meaning::Marker(64));
    }

    #[test]
    fn what_the_build_does_not_explain_is_shown_by_number() {
        let unknown = types(Version(6, 12, 0), || None);
        assert_eq!(swap(25, 9).meaning(&unknown), Meaning::Special { ty: 25, offset: 9 });
        assert_eq!(
            swap(3, 9).meaning(&unknown),
            Meaning::Swap(SwapSlot { ty: 3, offset: 9 })
        );
        let silent = types(Version(6, 12, 0), || Some(BTreeSet::new()));
        assert_eq!(swap(25, 9).meaning(&silent), Meaning::Special { ty: 25, offset: 9 });
    }

    #[test]
    fn symbols_are_found_by_their_whole_name() {
        let text = b"0000000000000000 T memory_failure_queue\n0000000000000000 T schedule\n\
            0000000000000000 t make_device_exclusive\t[x]\nffffffffff t\n\n0 T memory_failure\n";
        assert_eq!(wanted_symbols(&text[..]), set(&[EVERYWHERE, MEMORY_FAILURE]));
    }
}
