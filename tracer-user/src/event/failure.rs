//! A folio that could not be moved: whose it is, and why.
//! Made by `correlate`; read by every sink.

use std::sync::Arc;

use crate::{
    event::task::Task,
    kernel::names::Reason,
    proc::maps::Vma,
    units::{Nanos, NodeId, Order, Pfn, VirtAddr},
};

/// A folio that one call of migrate_pages left where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When the call ended.
    pub at: Nanos,
    /// The folio's order.
    pub order: Order,
    /// Frame of its first page; None: the machine does not tell.
    pub pfn: Option<Pfn>,
    /// Node of that frame.
    pub node: Option<NodeId>,
    /// Why it should move.
    pub reason: Reason,
    /// Who tried.
    pub actor: Task,
    /// `enum migrate_mode`: "async", "sync_light", "sync".
    pub mode: Arc<str>,
    /// Why it did not.
    pub cause: Cause,
    /// The cause is concluded from circumstances; else it was seen.
    pub inferred: bool,
    /// The error of the last attempt, positive; None: none was made.
    pub errno: Option<u32>,
    /// Times that the kernel tried to copy it, or to get a page for it.
    pub attempts: u32,
    /// References when the last attempt failed; None: not looked at.
    pub refs: Option<Refs>,
    /// How many times it is mapped; None: a large folio.
    pub map_count: Option<u32>,
    /// Names of the kernel's page flags when the call ended, without their "PG_" and with commas between them:
    /// one string, so that the failures of a recording can share it.
    pub flags: Arc<str>,
    /// Who maps it, as far as known.
    pub places: Vec<FailedPlace>,
    /// Where the call ended.
    pub cpu: u16,
}

/// Why a folio was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nothing was seen that explains it.
    Unknown,
    /// The copy was refused because others hold references (`move_to_new_folio`, -EAGAIN).
    References,
    /// The file system or the copying gave another error (`move_to_new_folio`).
    Error,
    /// No free page on the target.
    NoTarget,
    /// One of its mappings could not be unmapped (`try_to_migrate_one`).
    StillMapped,
    /// Somebody holds its lock, by its flags.
    Locked,
    /// It is being written back, by its flags.
    Writeback,
    /// The call ended early, for want of memory, before its turn.
    NotTried,
    /// NUMA balancing did not even isolate it.
    NumaRefused,
    /// It is pinned for direct I/O or a device, by its references.
    Pinned,
}

impl Failure {
    /// Each of the flags.
    pub fn flag_names(&self) -> impl Iterator<Item = &str> {
        self.flags.split(',').filter(|name| !name.is_empty())
    }
}

impl Cause {
    /// In the order of their numbers in a recording.
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
    /// How many there were.
    pub held: u32,
    /// How many a move allows.
    pub expected: u32,
}

/// A mapping of a folio that could not be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPlace {
    /// Whose page table it is.
    pub owner: Task,
    /// Address of the folio's first page that is mapped there.
    pub vaddr: VirtAddr,
    /// The mapping that covers it.
    pub vma: Option<Arc<Vma>>,
    /// Found by the folio's reverse mapping, and in the page table by the kernel side or by pagemap; else seen by the
    /// kernel's own walk.
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

/// Whether the cause is never seen, but always concluded from circumstances.
#[must_use]
pub fn is_concluded(cause: Cause) -> bool {
    match cause {
        Cause::References | Cause::Error | Cause::NoTarget | Cause::StillMapped | Cause::NumaRefused => false,
        Cause::Unknown | Cause::Locked | Cause::Writeback | Cause::NotTried | Cause::Pinned => true,
    }
}
