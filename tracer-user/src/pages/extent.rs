//! An extent: neighbouring pages with equal properties in neighbouring frames. A snapshot of a process is a stream of extents.
//! Input: made by `join`, by address; pages without an entry are in no extent.

use crate::proc::entry::Meaning;
use crate::proc::kpage::PageFlags;
use crate::proc::pagemap::{Entry, SwapSlot};
use crate::units::{NodeId, Order, PAGE_SIZE, Pfn, VirtAddr};

/// The state of the pages of an extent. Only [`Swapped`](Self::Swapped) is swap: entries that look like it have other
/// states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// The page is in a frame.
    Present,
    /// The page is mapped to the kernel's page of zeros: it was read but never written to, and takes no memory.
    Zero,
    /// The page is mapped to memory of a device, or of the kernel itself (`VM_PFNMAP`), not of the process.
    Pfnmap,
    /// The page is in swap.
    Swapped,
    /// The page is in swap or in any of the states below; the kernel hides from the reader which.
    Hidden,
    /// The page is on the way to another frame.
    Migrating,
    /// The page is in the private memory of a device.
    DevicePrivate,
    /// A device has exclusive access to the page.
    DeviceExclusive,
    /// The page is in a frame that is broken.
    HwPoison,
    /// A guard region.
    Guard,
    /// A marker of userfaultfd's write protection.
    UffdWp,
    /// A marker of lost content.
    Poisoned,
    /// A special entry that is not known for this build of the kernel, or a marker without a known flag.
    Special,
}

impl State {
    /// All states, in the order of their tables.
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

    /// The name in filters and in JSON.
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

    /// The meaning, in one sentence.
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

    /// Whether the kernel hides the kind of entry from the reader.
    pub fn hides(self) -> bool {
        self == Self::Hidden
    }

    /// Its index in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

/// How a large folio is mapped in an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mapping {
    /// As a whole, by one entry of a higher level: a PMD, or hugetlb.
    Entry,
    /// As a whole, and aligned to its size, by entries of base pages.
    Pages,
    /// As a whole, and aligned to its size; this kernel does not show whether by one entry or by many.
    Whole,
    /// As a whole, but not at a multiple of its size: no larger entry could map it.
    Unaligned,
    /// In part.
    Part,
}

impl Mapping {
    /// All ways, in the order of their tables.
    pub const ALL: [Self; 5] = [Self::Entry, Self::Pages, Self::Whole, Self::Unaligned, Self::Part];

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Pages => "pages",
            Self::Whole => "whole",
            Self::Unaligned => "unaligned",
            Self::Part => "part",
        }
    }

    /// The words in text.
    pub fn words(self) -> &'static str {
        match self {
            Self::Entry => "whole by one entry",
            Self::Pages => "whole by base pages",
            Self::Whole => "whole",
            Self::Unaligned => "whole but unaligned",
            Self::Part => "in part",
        }
    }

    /// Its index in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Neighbouring pages with equal properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The address of the first page.
    pub address: VirtAddr,
    /// The number of base pages.
    pub pages: u64,
    /// The state of the pages.
    pub state: State,
    /// The word of pagemap of the first page; all pages have its flags.
    pub entry: Entry,
    /// The meaning of the first page's word.
    pub meaning: Meaning,
    /// The node of the frames; `None` if there are no frames, if they are hidden, or if the node is not known.
    pub node: Option<NodeId>,
    /// The flags of the frames, without those that mark the position in a folio; `None` if they cannot be read.
    pub flags: Option<PageFlags>,
    /// The number of page tables that map each of the frames; `None` if it cannot be read.
    pub mapped: Option<u64>,
    /// The size of the folios; `None` if it is not known.
    pub order: Option<Order>,
    /// How the folios are mapped, if they are larger than a page.
    pub mapping: Option<Mapping>,
}

impl Extent {
    /// The first address after the extent.
    pub fn end(&self) -> VirtAddr {
        self.address.plus_pages(self.pages)
    }

    /// The size of its address range, bytes.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    /// The frame of the first page; the frames of the others follow it, except that all zero pages have one frame.
    pub fn pfn(&self) -> Option<Pfn> {
        match self.meaning {
            Meaning::Frame(pfn) => Some(pfn),
            _ => None,
        }
    }

    /// The swap slot of the first page.
    pub fn slot(&self) -> Option<SwapSlot> {
        match self.meaning {
            Meaning::Swap(slot) => Some(slot),
            _ => None,
        }
    }

    /// Whether the pages are present and the kernel hides their frames from the reader.
    pub fn hides_frames(&self) -> bool {
        self.meaning == Meaning::HiddenFrame
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
