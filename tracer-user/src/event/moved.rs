//! A move of mapped pages: owner, addresses, frames, reason, actor and cost.
//! Made by `correlate`; read by every sink.

use std::sync::Arc;

use crate::{
    event::{residence::Residence, task::Task},
    kernel::names::Reason,
    proc::{kpage::PageFlags, maps::Vma},
    units::{Nanos, NodeId, Order, Pfn, Tid, VirtAddr},
};

/// A range of neighbouring pages in one VMA, of one folio before or after, that went to other frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The time when the new mapping was in place.
    pub at: Nanos,
    /// The owner of the page table. None: no owner was found.
    pub owner: Option<Task>,
    /// The way in which the owner was found.
    pub owner_source: OwnerSource,
    /// First address.
    pub vaddr: VirtAddr,
    /// Base pages; addresses and frames are parallel.
    pub pages: u64,
    /// The folio's order. In the tracepoint backend, it is the order of the mapping.
    pub order: Order,
    /// The first frame before the move. None: there was none, or it was not observed.
    pub old_pfn: Option<Pfn>,
    /// The first frame after the move. None: there is none.
    pub new_pfn: Option<Pfn>,
    /// Node of the old frame.
    pub old_node: Option<NodeId>,
    /// Node of the new frame.
    pub new_node: Option<NodeId>,
    /// The reason. None: the source, such as a comparison of pagemaps, does not see the call that moved it.
    pub reason: Option<Reason>,
    /// The task that moved it. None: the source does not see the task.
    pub actor: Option<Task>,
    /// The time from the start of unmapping to the new mapping. None: the start was not observed.
    pub blackout: Option<Nanos>,
    /// The mapping that covers `vaddr`.
    pub vma: Option<Arc<Vma>>,
    /// The result of a look at pagemap afterwards.
    pub verdict: Verdict,
    /// /proc/kpageflags of the new frame.
    pub flags: Option<PageFlags>,
    /// /proc/kpagecount of the new frame: the number of its mappings.
    pub map_count: Option<u64>,
    /// Whether the old frame is one of several candidates (tracepoint backend).
    pub ambiguous: bool,
    /// The number of this range within its folio, from 1: a folio that several mappings share moves once, and is
    /// reported once for each. The tracepoint backend does not see folios: its events have 1 for the first mapping of a
    /// page and 2 for each other. None: a move outside migrate_pages, or an older recording of that backend.
    pub nth: Option<u8>,
    /// The CPU on which the mapping was restored.
    pub cpu: u16,
}

impl Move {
    /// The thread that moved it, if that is known.
    #[must_use]
    pub fn thread(&self) -> Option<Tid> {
        self.actor.as_ref().map(|actor| actor.tid)
    }

    /// The places of the page before and after.
    #[must_use]
    pub fn residences(&self) -> (Residence, Residence) {
        Residence::both(self.reason.as_ref(), self.old_node, self.new_node)
    }
}

/// The way in which an owner was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerSource {
    /// The kernel reported it: `mm->owner` at the moment of the move.
    Kernel,
    /// The kernel reported it, for an address space whose owner was exiting.
    KernelExiting,
    /// Its pagemap holds the new frame at that address.
    Pagemap,
    /// It owned the page before or after, and the frames link the moves.
    Chain,
    /// No owner was found.
    Unknown,
}

impl OwnerSource {
    /// All ways, in the order of their numbers in a recording.
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

/// The result of a look at /proc/PID/pagemap for the moved page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The new frame is there.
    Confirmed,
    /// Another frame is there: the page moved again.
    MovedAgain,
    /// Nothing is mapped there now.
    Unmapped,
    /// It is on swap.
    SwappedOut,
    /// The process is gone.
    ProcessGone,
    /// Correlation had fallen behind, or no owner is known.
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
