//! What the program thinks in: a page move with its owner, its reason and its price.
//! Made by `correlate` from raw events and the answers of /proc; read by every sink.

pub mod compaction;
pub mod failure;
pub mod unmapped;

use std::{collections::BTreeSet, fmt, sync::Arc};

use tracer_common::event::outside;

use crate::{
    event::{compaction::Compaction, failure::Failure, unmapped::UnmappedMove},
    proc::{kpage::PageFlags, maps::Vma},
    units::{Nanos, NodeId, Order, Pfn, Tgid, Tid, VirtAddr},
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A run of neighbouring pages moved.
    Move(Move),
    /// A folio without a mapping moved.
    Unmapped(UnmappedMove),
    /// A folio could not be moved.
    Failure(Failure),
    /// Compaction went over a zone.
    Compaction(Compaction),
}

impl Event {
    /// When it happened.
    #[must_use]
    pub fn at(&self) -> Nanos {
        match self {
            Self::Move(event) => event.at,
            Self::Unmapped(event) => event.at,
            Self::Failure(event) => event.at,
            Self::Compaction(event) => event.at,
        }
    }
}

/// A run of neighbouring pages in one VMA, of one folio before or now, that went to other frames.
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
    /// Base pages; addresses and frames run in parallel.
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
    /// Why.
    pub reason: Reason,
    /// Who did it.
    pub actor: Task,
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
    /// Which of its folio's runs this is, from 1: a folio that several mappings share moves once, and is reported once
    /// for each. None: the tracepoint backend does not see folios.
    pub nth: Option<u8>,
    /// Where the mapping was restored.
    pub cpu: u16,
}

impl Move {
    /// Where the page was, and where it is.
    #[must_use]
    pub fn residences(&self) -> (Residence, Residence) {
        Residence::both(&self.reason, self.old_node, self.new_node)
    }
}

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Residence {
    /// Not known.
    Unknown,
    /// In memory of this node.
    Node(NodeId),
    /// On swap.
    Swap,
}

impl Residence {
    /// Of a page in memory.
    #[must_use]
    pub fn of(node: Option<NodeId>) -> Self {
        node.map_or(Self::Unknown, Self::Node)
    }

    /// Before and after a move for that reason.
    #[must_use]
    pub fn both(reason: &Reason, old: Option<NodeId>, new: Option<NodeId>) -> (Self, Self) {
        let on_swap = |at, node| match node {
            None if reason.number == at => Self::Swap,
            node => Self::of(node),
        };
        (on_swap(outside::SWAP_IN, old), on_swap(outside::SWAP_OUT, new))
    }

    /// The node; None: it has none, or it is not known.
    #[must_use]
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(node),
            Self::Unknown | Self::Swap => None,
        }
    }
}

impl fmt::Display for Residence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Swap => f.pad("swap"),
            Self::Unknown => f.pad("?"),
        }
    }
}

/// A process or one of its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The process.
    pub tgid: Tgid,
    /// The thread; for an owner that of the group leader.
    pub tid: Tid,
    /// Its name; None: it was gone before it could be read.
    pub comm: Option<Arc<str>>,
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

/// A migrate reason: the kernel's number and its name for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// `enum migrate_reason`, or one of [`outside`].
    pub number: u8,
    /// None: this kernel's BTF has no name for the number.
    pub name: Option<Arc<str>>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.pad(name),
            None => f.pad(&format!("reason_{}", self.number)),
        }
    }
}

/// The running kernel's names for some of its numbers.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<Option<Arc<str>>>);

impl Names {
    /// From the constants of an enumeration: `spelled` says how one is written, or that it is none. Of several names of one
    /// number the first counts, also as none.
    pub fn new<'a>(constants: impl Iterator<Item = (&'a str, u32)>, spelled: impl Fn(&str) -> Option<String>) -> Self {
        let mut names: Vec<Option<Arc<str>>> = Vec::new();
        let mut known = BTreeSet::new();
        for (constant, value) in constants.filter(|(_, value)| known.insert(*value)) {
            let (Some(name), Ok(index @ 0..=254)) = (spelled(constant), usize::try_from(value)) else {
                continue;
            };
            if names.len() <= index {
                names.resize(index + 1, None);
            }
            names[index] = Some(Arc::from(name));
        }
        Self(names)
    }

    /// The reasons: those of the kernel's `enum migrate_reason`, and ours for what is none of them.
    pub fn reasons<'a>(constants: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let ours = outside::NAMES.iter().copied().zip(u32::from(outside::FIRST)..);
        let kernels = constants.filter(|(_, value)| *value < u32::from(outside::FIRST));
        Self::new(kernels.chain(ours), reason_name)
    }

    /// The name of a number.
    #[must_use]
    pub fn get(&self, number: u8) -> Option<&Arc<str>> {
        self.0.get(usize::from(number))?.as_ref()
    }

    /// The number of that name; None: this kernel has no such constant.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u8> {
        let index = self.0.iter().position(|known| known.as_deref() == Some(name))?;
        u8::try_from(index).ok()
    }

    /// Every number that has a name, with it.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Arc<str>)> {
        (0..)
            .zip(&self.0)
            .filter_map(|(number, name)| Some((number, name.as_ref()?)))
    }
}

/// What the running kernel calls its numbers.
#[derive(Clone, Debug, Default)]
pub struct KernelNames {
    /// `enum migrate_reason`, in the spelling of the kernel's own trace output (`MIGRATE_REASON`,
    /// include/trace/events/migrate.h).
    pub reasons: Names,
    /// `enum pageflags`, by bit, without "PG_".
    pub page_flags: Names,
    /// `enum compact_result`, lower case and without "COMPACT_".
    pub compact_results: Names,
}

impl KernelNames {
    /// The reasons that have a name, by number.
    pub fn known_reasons(&self) -> impl Iterator<Item = Reason> {
        self.reasons.iter().map(|(number, name)| Reason {
            number,
            name: Some(name.clone()),
        })
    }

    /// The reason of that number.
    #[must_use]
    pub fn reason(&self, number: u8) -> Reason {
        Reason {
            number,
            name: self.reasons.get(number).cloned(),
        }
    }
}

/// How a constant of `enum migrate_reason` is spelled, or a name of ours, which is its own spelling.
fn reason_name(constant: &str) -> Option<String> {
    match constant.strip_prefix("MR_") {
        None => Some(constant.to_owned()),
        Some("TYPES") => None, // the count
        Some("SYSCALL") => Some("syscall_or_cpuset".to_owned()),
        Some(other) => Some(other.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_spelled_as_the_kernel_prints_them() {
        let constants = [
            ("MR_COMPACTION", 0),
            ("MR_SYSCALL", 3),
            ("MR_NUMA_MISPLACED", 5),
            ("MR_TYPES", 10),
        ];
        let names = KernelNames {
            reasons: Names::reasons(constants.into_iter()),
            ..KernelNames::default()
        };
        assert_eq!(names.reason(0).to_string(), "compaction");
        assert_eq!(names.reason(3).to_string(), "syscall_or_cpuset");
        assert_eq!(names.reason(5).to_string(), "numa_misplaced");
        assert_eq!(names.reasons.number("numa_misplaced"), Some(5));
        assert_eq!(names.reasons.number("damon"), None);
        assert_eq!(names.reason(10).to_string(), "reason_10");
        assert_eq!(names.reason(255).to_string(), "reason_255");
        assert_eq!(names.reason(outside::COLLAPSE).to_string(), "collapse");
        assert_eq!(names.reasons.iter().count(), 3 + outside::NAMES.len());
    }

    #[test]
    fn of_two_names_the_first_counts() {
        let flags = [
            ("PG_owner_priv_1", 10),
            ("PG_swapcache", 10),
            ("x", 1),
            ("PG_head", 600),
        ];
        let names = Names::new(flags.into_iter(), |flag| Some(flag.strip_prefix("PG_")?.to_owned()));
        assert_eq!(names.get(10).map(|name| &**name), Some("owner_priv_1"));
        assert_eq!(names.iter().count(), 1);
    }
}
