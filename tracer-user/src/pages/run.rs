//! A run: neighbouring pages that have everything in common, in neighbouring frames. A snapshot of a process is a stream of runs.
//! Input: made by `join`, by address; what no entry stands for is no run.

use crate::proc::entry::Place;
use crate::proc::kpage::PageFlags;
use crate::proc::pagemap::{Entry, SwapSlot};
use crate::units::{NodeId, Order, PAGE_SIZE, Pfn, VirtAddr};

/// What the pages of a run are. Only [`Swapped`](Self::Swapped) is swap: entries that look like it have names of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// In a frame.
    Present,
    /// Mapped to the kernel's page of zeros: read, but never written to; it takes no memory.
    Zero,
    /// Mapped to memory of a device, or of the kernel itself (`VM_PFNMAP`): no memory of the process's.
    Pfnmap,
    /// In swap.
    Swapped,
    /// Swap or any of the kinds below: what, the reader may not know.
    Hidden,
    /// On the way to another frame.
    Migrating,
    /// In the private memory of a device.
    DevicePrivate,
    /// Kept by a device for itself.
    DeviceExclusive,
    /// In a frame that is broken.
    HwPoison,
    /// A guard region.
    Guard,
    /// A marker of userfaultfd's write protection.
    UffdWp,
    /// A marker of lost content.
    Poisoned,
    /// A special entry that this build does not explain, or a marker without a known flag.
    Special,
}

impl State {
    /// All of them, in the order of their tables.
    pub const ALL: [Self; 13] = [
        Self::Present,
        Self::Zero,
        Self::Pfnmap,
        Self::Swapped,
        Self::Hidden,
        Self::Migrating,
        Self::DevicePrivate,
        Self::DeviceExclusive,
        Self::HwPoison,
        Self::Guard,
        Self::UffdWp,
        Self::Poisoned,
        Self::Special,
    ];

    /// Its name in filters and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Zero => "zero",
            Self::Pfnmap => "pfnmap",
            Self::Swapped => "swapped",
            Self::Hidden => "hidden",
            Self::Migrating => "migrating",
            Self::DevicePrivate => "device_private",
            Self::DeviceExclusive => "device_exclusive",
            Self::HwPoison => "hwpoison",
            Self::Guard => "guard",
            Self::UffdWp => "uffd_wp",
            Self::Poisoned => "poisoned",
            Self::Special => "special",
        }
    }

    /// What it means, in one sentence.
    pub fn what(self) -> &'static str {
        match self {
            Self::Present => "The page is in a frame.",
            Self::Zero => "The page was read and never written to: it shares the kernel's page of zeros.",
            Self::Pfnmap => "The mapping shows memory of a device or of the kernel (VM_PFNMAP).",
            Self::Swapped => "The page is in swap.",
            Self::Hidden => "The page is in swap, or one of the kinds below; only root may know which.",
            Self::Migrating => "The page is on the way to another frame at this moment.",
            Self::DevicePrivate => "The page is in the private memory of a device.",
            Self::DeviceExclusive => "A device keeps the page for itself for now.",
            Self::HwPoison => "The page was in memory that is broken; an access is a SIGBUS.",
            Self::Guard => "A guard region (MADV_GUARD_INSTALL); an access is a SIGSEGV.",
            Self::UffdWp => "No page, but userfaultfd protects the address against writing.",
            Self::Poisoned => "The content is lost; an access is a SIGBUS.",
            Self::Special => "A special entry that this kernel's build does not explain.",
        }
    }

    /// The state of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Which kind it is, the reader may not know.
    pub fn hides(self) -> bool {
        self == Self::Hidden
    }

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

/// How a large folio is mapped in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mapping {
    /// Whole, by one entry of a higher level: a PMD, or hugetlb.
    Entry,
    /// Whole, and aligned to its size, by entries of base pages.
    Pages,
    /// Whole, and aligned to its size; by one entry or by many, this kernel does not show.
    Whole,
    /// Whole, but not at an address that is a multiple of its size: no larger entry could map it.
    Unaligned,
    /// Only a part of it.
    Part,
}

impl Mapping {
    /// All of them, in the order of their tables.
    pub const ALL: [Self; 5] = [Self::Entry, Self::Pages, Self::Whole, Self::Unaligned, Self::Part];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Pages => "pages",
            Self::Whole => "whole",
            Self::Unaligned => "unaligned",
            Self::Part => "part",
        }
    }

    /// As text shows it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Entry => "whole by one entry",
            Self::Pages => "whole by base pages",
            Self::Whole => "whole",
            Self::Unaligned => "whole but unaligned",
            Self::Part => "in part",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Neighbouring pages that have everything in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where the first page is mapped.
    pub address: VirtAddr,
    /// Base pages.
    pub pages: u64,
    /// What they are.
    pub state: State,
    /// The word of pagemap of the first page; the flags in it are those of all.
    pub entry: Entry,
    /// What the word of the first page stands for.
    pub place: Place,
    /// The node of the frames; `None` without frames, where they are hidden, and where it cannot be decided.
    pub node: Option<NodeId>,
    /// The flags of the frames, without those that say which page of its folio one is; `None` where they cannot be read.
    pub flags: Option<PageFlags>,
    /// How many page tables map each of the frames; `None` where that cannot be read.
    pub mapped: Option<u64>,
    /// The size of the folios; `None` where it cannot be known.
    pub order: Option<Order>,
    /// How the folios are mapped, if they are larger than a page.
    pub mapping: Option<Mapping>,
}

impl Run {
    /// First address behind it.
    pub fn end(&self) -> VirtAddr {
        self.address.plus_pages(self.pages)
    }

    /// Bytes of address space.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    /// The frame of the first page; the frames of the others follow it, but for zero pages, which are all in one.
    pub fn pfn(&self) -> Option<Pfn> {
        match self.place {
            Place::Frame(pfn) => Some(pfn),
            _ => None,
        }
    }

    /// The slot of the first page in swap.
    pub fn slot(&self) -> Option<SwapSlot> {
        match self.place {
            Place::Swap(slot) => Some(slot),
            _ => None,
        }
    }

    /// The pages are there, and their frames are hidden from the reader.
    pub fn hides_frames(&self) -> bool {
        self.place == Place::HiddenFrame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for (at, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state.index(), at);
            assert_eq!(State::by_name(state.name()), Some(state));
            assert!(state.what().ends_with('.'));
        }
        for (at, mapping) in Mapping::ALL.into_iter().enumerate() {
            assert_eq!(mapping.index(), at);
        }
        assert_eq!(State::by_name("absent"), None);
    }
}
