//! A move of mapped pages: whose they are, from where to where, why, by whom and at what price.
//! Made by `correlate`; read by every sink.

use std::sync::Arc;

use crate::{
    event::{residence::Residence, task::Task},
    kernel::names::Reason,
    proc::{kpage::PageFlags, maps::Vma},
    units::{Nanos, NodeId, Order, Pfn, VirtAddr},
};

/// A range of neighbouring pages in one VMA, of one folio before or now, that went to other frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// When the new mapping was in place.
    pub at: Nanos,
    /// Whose page table it is; None: nobody could be found.
    pub owner: Option<Task>,
    /// How the owner was found.
    pub owner_source: OwnerSource,
    /// First address.
    pub vaddr: VirtAddr,
    /// Base pages; addresses and frames go in parallel.
    pub pages: u64,
    /// The folio's order. In the tracepoint backend that of the mapping.
    pub order: Order,
    /// First frame before; None: none, or one that was not seen.
    pub old_pfn: Option<Pfn>,
    /// First frame now; None: it has none.
    pub new_pfn: Option<Pfn>,
    /// Node of the old frame.
    pub old_node: Option<NodeId>,
    /// Node of the new frame.
    pub new_node: Option<NodeId>,
    /// Why; None: the source does not see the call that moved it, as one that compares pagemaps.
    pub reason: Option<Reason>,
    /// Who did it; None: the source does not see who.
    pub actor: Option<Task>,
    /// From the start of unmapping to the new mapping; None: the start was not seen.
    pub blackout: Option<Nanos>,
    /// The mapping that covers `vaddr`.
    pub vma: Option<Arc<Vma>>,
    /// What pagemap said afterwards.
    pub verdict: Verdict,
    /// /proc/kpageflags of the new frame.
    pub flags: Option<PageFlags>,
    /// /proc/kpagecount of the new frame: how many times it is mapped.
    pub map_count: Option<u64>,
    /// The old frame is one of several candidates (tracepoint backend).
    pub ambiguous: bool,
    /// Which of its folio's ranges this is, from 1: a folio that several mappings share moves once, and is reported once
    /// for each. None: the tracepoint backend does not see folios.
    pub nth: Option<u8>,
    /// Where the mapping was restored.
    pub cpu: u16,
}

impl Move {
    /// Where the page was, and where it is.
    #[must_use]
    pub fn residences(&self) -> (Residence, Residence) {
        Residence::both(self.reason.as_ref(), self.old_node, self.new_node)
    }
}

/// How an owner was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerSource {
    /// The kernel said so: `mm->owner` at the moment of the move.
    Kernel,
    /// The kernel said so, of an address space whose owner was exiting.
    KernelExiting,
    /// Its pagemap holds the new frame at that address.
    Pagemap,
    /// It owned the page before or after, and the frames link the moves.
    Chain,
    /// Not found.
    Unknown,
}

impl OwnerSource {
    /// In the order of their numbers in a recording.
    pub const ALL: [Self; 5] = [
        Self::Kernel,
        Self::KernelExiting,
        Self::Pagemap,
        Self::Chain,
        Self::Unknown,
    ];

    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Kernel => Some("kernel"),
            Self::KernelExiting => Some("kernel_exiting"),
            Self::Pagemap => Some("pagemap"),
            Self::Chain => Some("chain"),
            Self::Unknown => None,
        }
    }
}

/// What /proc/PID/pagemap said of the moved page when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The new frame is there.
    Confirmed,
    /// Another frame is there: it moved on.
    MovedAgain,
    /// Nothing is mapped there any more.
    Unmapped,
    /// It is on swap.
    SwappedOut,
    /// The process is gone.
    ProcessGone,
    /// Correlation had fallen behind, or nobody is known to ask about.
    NotAsked,
    /// Frame numbers are hidden from this process.
    Hidden,
}

impl Verdict {
    /// Every verdict, in the order of their numbers in a recording.
    pub const ALL: [Self; 7] = [
        Self::Confirmed,
        Self::MovedAgain,
        Self::Unmapped,
        Self::SwappedOut,
        Self::ProcessGone,
        Self::NotAsked,
        Self::Hidden,
    ];

    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::MovedAgain => "moved_again",
            Self::Unmapped => "unmapped",
            Self::SwappedOut => "swapped_out",
            Self::ProcessGone => "process_gone",
            Self::NotAsked => "not_asked",
            Self::Hidden => "hidden",
        }
    }

    /// The words for a person.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::MovedAgain => "moved again",
            Self::Unmapped => "unmapped",
            Self::SwappedOut => "swapped out",
            Self::ProcessGone => "process gone",
            Self::NotAsked => "not asked",
            Self::Hidden => "hidden",
        }
    }
}
