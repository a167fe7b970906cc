//! A folio that could not be moved: its owners and the cause.
//! Made by `correlate`; read by every sink.

use std::sync::Arc;

use crate::{
    event::task::Task,
    kernel::names::Reason,
    proc::maps::Vma,
    units::{Nanos, NodeId, Order, Pfn, VirtAddr},
};

/// A folio that one call of migrate_pages left in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The time when the call ended.
    pub at: Nanos,
    /// The folio's order.
    pub order: Order,
    /// The frame of its first page. None: the machine does not report it.
    pub pfn: Option<Pfn>,
    /// The node of that frame.
    pub node: Option<NodeId>,
    /// The reason of the call.
    pub reason: Reason,
    /// The task that tried.
    pub actor: Task,
    /// `enum migrate_mode`: "async", "sync_light", "sync".
    pub mode: Arc<str>,
    /// The cause of the failure.
    pub cause: Cause,
    /// Whether the cause is inferred from circumstances; if not, it was observed.
    pub inferred: bool,
    /// The error of the last attempt, positive. None: no attempt was made.
    pub errno: Option<u32>,
    /// The number of times that the kernel tried to copy it, or to get a page for it.
    pub attempts: u32,
    /// The references when the last attempt failed. None: they were not read.
    pub refs: Option<Refs>,
    /// The number of its mappings. None: it is a large folio.
    pub map_count: Option<u32>,
    /// The kernel's page flags when the call ended: names without "PG_", separated by commas. They are one string, so
    /// that the failures of a recording can share it.
    pub flags: Arc<str>,
    /// The processes that map it, as far as known.
    pub places: Vec<FailedPlace>,
    /// The CPU on which the call ended.
    pub cpu: u16,
}

/// The cause of a failed move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// No observation explains it.
    Unknown,
    /// The copy was refused because others hold references (`move_to_new_folio`, -EAGAIN).
    References,
    /// The file system or the copying returned another error (`move_to_new_folio`).
    Error,
    /// The target has no free page.
    NoTarget,
    /// One of its mappings could not be unmapped (`try_to_migrate_one`).
    StillMapped,
    /// Another task holds its lock, by its flags.
    Locked,
    /// It is being written back, by its flags.
    Writeback,
    /// The call ran out of memory before the folio's turn.
    NotTried,
    /// NUMA balancing did not isolate it at all.
    NumaRefused,
    /// It is pinned for direct I/O or a device, by its references.
    Pinned,
}

impl Failure {
    /// The names of the flags.
    pub fn flag_names(&self) -> impl Iterator<Item = &str> {
        self.flags.split(',').filter(|name| !name.is_empty())
    }
}

impl Cause {
    /// All causes, in the order of their numbers in a recording.
    pub const ALL: [Self; 10] = [
        Self::Unknown,
        Self::References,
        Self::Error,
        Self::NoTarget,
        Self::StillMapped,
        Self::Locked,
        Self::Writeback,
        Self::NotTried,
        Self::NumaRefused,
        Self::Pinned,
    ];
}

/// References to a folio that is unmapped and isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refs {
    /// The number of references that were held.
    pub held: u32,
    /// The number that a move allows.
    pub expected: u32,
}

/// A mapping of a folio that could not be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPlace {
    /// The owner of the page table.
    pub owner: Task,
    /// The address of the folio's first page that is mapped there.
    pub vaddr: VirtAddr,
    /// The mapping that covers it.
    pub vma: Option<Arc<Vma>>,
    /// Found by the folio's reverse mapping, and in the page table by the kernel side or by pagemap. If false, the
    /// kernel's own walk showed it.
    pub inferred: bool,
}

/// The name in JSON.
#[must_use]
pub fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Unknown => "unknown",
        Cause::References => "references",
        Cause::Error => "error",
        Cause::NoTarget => "no_target",
        Cause::StillMapped => "still_mapped",
        Cause::Locked => "locked",
        Cause::Writeback => "writeback",
        Cause::NotTried => "not_tried",
        Cause::NumaRefused => "numa_refused",
        Cause::Pinned => "pinned",
    }
}

/// Whether the cause is always inferred from circumstances and never observed.
#[must_use]
pub fn is_concluded(cause: Cause) -> bool {
    match cause {
        Cause::References | Cause::Error | Cause::NoTarget | Cause::StillMapped | Cause::NumaRefused => false,
        Cause::Unknown | Cause::Locked | Cause::Writeback | Cause::NotTried | Cause::Pinned => true,
    }
}
