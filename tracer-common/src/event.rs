//! The events, one `#[repr(C)]` struct per kind; each starts with its [`Kind`] as a u16.
//! Written by `probes/*` through `emit`, read by `decode`.

/// First two bytes of every record in a ring.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`MappingMoved`]
    MappingMoved = 1,
    /// [`ProcessSeen`]
    ProcessSeen = 2,
    /// [`UnmappedMoved`]
    UnmappedMoved = 3,
    /// [`FolioFailed`]
    FolioFailed = 4,
    /// [`FileSeen`]
    FileSeen = 5,
    /// [`CompactionRan`]
    CompactionRan = 6,
}

impl TryFrom<u16> for Kind {
    type Error = u16;

    fn try_from(raw: u16) -> Result<Self, u16> {
        match raw {
            1 => Ok(Self::MappingMoved),
            2 => Ok(Self::ProcessSeen),
            3 => Ok(Self::UnmappedMoved),
            4 => Ok(Self::FolioFailed),
            5 => Ok(Self::FileSeen),
            6 => Ok(Self::CompactionRan),
            other => Err(other),
        }
    }
}

/// A struct that may be sent: integers only, no padding.
///
/// # Safety
/// The type is `repr(C)`, holds integers only and has no padding bytes, so that any bytes of its
/// size are a value of it and all of its bytes are initialized. Its first field is a u16, in which `emit` writes the
/// kind.
pub unsafe trait Wire: Copy + 'static {
    /// The kind that its first field holds.
    const KIND: Kind;
}

/// One extent of neighbouring mappings of one folio in one VMA, pointed at their new frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingMoved {
    /// [`Kind::MappingMoved`].
    pub kind: u16,
    /// CPU that restored the mapping.
    pub cpu: u16,
    /// `enum migrate_reason` of the call, as the running kernel numbers it; or a value of [`outside`].
    pub reason: u8,
    /// The folio's order; in the tracepoint backend that of the mapping.
    pub order: u8,
    /// Bits of [`mapping_flags`].
    pub flags: u8,
    /// The number of this extent among those of its folio, from 1; 255: the 255th or a later one. In the tracepoint
    /// backend 1 marks the first wanted mapping of a page, 2 each other one. 0: the page moved outside migrate_pages.
    pub nth: u8,
    /// When the extent's last mapping was in place, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// First virtual address of the extent, bytes.
    pub vaddr: u64,
    /// Frame of the first page before the move; 0: none is known.
    pub old_pfn: u64,
    /// Frame of the first page after the move; 0: none.
    pub new_pfn: u64,
    /// When unmapping began, `CLOCK_MONOTONIC` nanoseconds; 0 if that was not seen.
    pub unmapped_at: u64,
    /// The process whose page table this is; 0 if the kernel side does not know it.
    pub owner_tgid: u32,
    /// The process that moved the pages.
    pub actor_tgid: u32,
    /// The thread that moved the pages.
    pub actor_tid: u32,
    /// Base pages in the extent; addresses and frames run in parallel.
    pub pages: u32,
}

const _: () = assert!(size_of::<MappingMoved>() == 64);
// SAFETY: repr(C), integers only; 8 + 5 * 8 + 4 * 4 bytes, asserted above: no padding.
unsafe impl Wire for MappingMoved {
    const KIND: Kind = Kind::MappingMoved;
}

/// Values of [`MappingMoved::reason`] beyond the kernel's: moves that do not go through migrate_pages.
pub mod outside {
    /// The lowest value; no kernel's `enum migrate_reason` reaches it.
    pub const FIRST: u8 = 128;
    /// Base pages copied into a huge page, by khugepaged or MADV_COLLAPSE.
    pub const COLLAPSE: u8 = 128;
    /// A page replaced by an identical one (KSM), or by the zero page.
    pub const KSM_MERGE: u8 = 129;
    /// A KSM page replaced by a copy of its own, because of a write, or because merging was turned off.
    pub const KSM_UNMERGE: u8 = 130;
    /// A page, the zero page included, copied because it was written to while others share it.
    pub const COW: u8 = 131;
    /// The content of a page went to swap: the page has no frame now.
    pub const SWAP_OUT: u8 = 132;
    /// A page came back from swap; its old frame is the one that it left, if that was seen.
    pub const SWAP_IN: u8 = 133;
    /// The names of these values, from [`FIRST`] on.
    pub const NAMES: &[&str] = &["collapse", "ksm_merge", "ksm_unmerge", "cow", "swap_out", "swap_in"];
}

/// Bits of [`MappingMoved::flags`].
pub mod mapping_flags {
    /// The owner is the mm's last owner: it was exiting.
    pub const OWNER_EXITING: u8 = 1;
    /// Several frames were in flight at this address; the old frame is the likeliest.
    pub const AMBIGUOUS: u8 = 2;
}

/// The kinds of changes to a process.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessChange {
    /// A process was made; `parent_tgid` is its parent.
    Fork = 1,
    /// It runs another program now; `comm` is the new name.
    Exec = 2,
    /// Its last thread exited.
    Exit = 3,
    /// A task migrates pages for the first time; `comm` is its name.
    Actor = 4,
    /// A task has another name, `comm`.
    Renamed = 5,
    /// The process is in another cgroup.
    Regrouped = 6,
}

impl TryFrom<u16> for ProcessChange {
    type Error = u16;

    fn try_from(raw: u16) -> Result<Self, u16> {
        match raw {
            1 => Ok(Self::Fork),
            2 => Ok(Self::Exec),
            3 => Ok(Self::Exit),
            4 => Ok(Self::Actor),
            5 => Ok(Self::Renamed),
            6 => Ok(Self::Regrouped),
            other => Err(other),
        }
    }
}

/// A process or a thread was made, renamed, moved to another cgroup, ended, or first seen to migrate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessSeen {
    /// [`Kind::ProcessSeen`].
    pub kind: u16,
    /// [`ProcessChange`].
    pub change: u16,
    /// Process.
    pub tgid: u32,
    /// When it happened, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// Thread.
    pub tid: u32,
    /// [`ProcessChange::Fork`]: the parent process; else 0.
    pub parent_tgid: u32,
    /// The thread's name, NUL-padded (`task_struct.comm`).
    pub comm: [u8; 16],
    /// Conditions that the process fulfils from now on, bits of [`membership`](crate::filter::membership); not set in
    /// [`ProcessChange::Exit`] and [`ProcessChange::Actor`].
    pub membership: u32,
    /// Bits of [`process_flags`].
    pub flags: u32,
}

const _: () = assert!(size_of::<ProcessSeen>() == 48);
// SAFETY: repr(C), integers only; 2 * 2 + 4 + 8 + 2 * 4 + 16 + 2 * 4 bytes, asserted above: no padding.
unsafe impl Wire for ProcessSeen {
    const KIND: Kind = Kind::ProcessSeen;
}

/// Bits of [`ProcessSeen::flags`].
pub mod process_flags {
    /// Further renames of the thread may not be reported until [`WINDOW`](crate::renames::WINDOW) has passed. The name,
    /// and for a process the conditions that it fulfils, are those that it has then.
    pub const MERGES: u32 = 1;
}

/// A folio that moved without any mapping: page cache that no process maps, or memory of a process that is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnmappedMoved {
    /// [`Kind::UnmappedMoved`].
    pub kind: u16,
    /// CPU that moved it.
    pub cpu: u16,
    /// `enum migrate_reason` of the call, as the running kernel numbers it.
    pub reason: u8,
    /// The folio's order.
    pub order: u8,
    /// 1: a folio of a file; 0: anonymous, and the file's fields are 0.
    pub of_file: u8,
    /// Padding.
    pub pad: u8,
    /// When the move was done, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// Frame of the first page before the move; 0: this machine does not show it.
    pub old_pfn: u64,
    /// Frame of the first page after the move; 0: this machine does not show it.
    pub new_pfn: u64,
    /// `inode.i_ino`.
    pub ino: u64,
    /// Its place in the file, base pages.
    pub index: u64,
    /// `super_block.s_dev`, as the kernel keeps it (`MKDEV`, include/linux/kdev_t.h).
    pub dev: u32,
    /// The process that moved it.
    pub actor_tgid: u32,
    /// The thread that moved it.
    pub actor_tid: u32,
    /// Padding.
    pub pad2: u32,
}

const _: () = assert!(size_of::<UnmappedMoved>() == 64);
// SAFETY: repr(C), integers only; 8 + 5 * 8 + 4 * 4 bytes, asserted above: no padding.
unsafe impl Wire for UnmappedMoved {
    const KIND: Kind = Kind::UnmappedMoved;
}

/// The name of a file whose folio moved, sent once per file and name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSeen {
    /// [`Kind::FileSeen`].
    pub kind: u16,
    /// Padding.
    pub pad: u16,
    /// `super_block.s_dev`.
    pub dev: u32,
    /// `inode.i_ino`.
    pub ino: u64,
    /// Last part of the path (`dentry.d_name`), NUL-padded; cut off where it is longer.
    pub name: [u8; FILE_NAME],
}

/// Bytes of a file's name that are sent.
pub const FILE_NAME: usize = 64;

const _: () = assert!(size_of::<FileSeen>() == 80);
// SAFETY: repr(C), integers only; 2 * 2 + 4 + 8 + 64 bytes, asserted above: no padding.
unsafe impl Wire for FileSeen {
    const KIND: Kind = Kind::FileSeen;
}

/// Mappings of a failed folio that are reported; there may be more.
pub const FAILED_MAPPINGS: usize = 4;

/// A mapping of a folio that could not be moved.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Virtual address of the folio's first page that is mapped there, bytes.
    pub vaddr: u64,
    /// The process; 0: the entry is unused, or the process is not known.
    pub owner_tgid: u32,
    /// 1: from the folio's reverse mapping, without its lock; 0: seen when the mapping was put back.
    pub inferred: u32,
}

/// A folio that one call of migrate_pages could not move.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolioFailed {
    /// [`Kind::FolioFailed`].
    pub kind: u16,
    /// CPU on which the call ended.
    pub cpu: u16,
    /// `enum migrate_reason` of the call, as the running kernel numbers it.
    pub reason: u8,
    /// The folio's order.
    pub order: u8,
    /// Bits of [`failure_flags`].
    pub seen: u8,
    /// `enum migrate_mode` of the call.
    pub mode: u8,
    /// When the call ended, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// Frame of the folio's first page; 0: this machine does not show it.
    pub pfn: u64,
    /// `folio.flags` when the call ended.
    pub flags: u64,
    /// The process that tried.
    pub actor_tgid: u32,
    /// The thread that tried.
    pub actor_tid: u32,
    /// The error of the last attempt to move it, negative; 0: no attempt was made.
    pub errno: i32,
    /// Times that the kernel tried to copy it, or to get a page for it.
    pub attempts: u32,
    /// References to it when the last attempt failed.
    pub refs: i32,
    /// References that the kernel expects for a move.
    pub expected_refs: i32,
    /// Mappings of it when the call ended; the kernel keeps something else there for a large folio.
    pub mappings: u32,
    /// References to it when the call ended.
    pub refs_left: i32,
    /// `folio._pincount` when the call ended, if the kernel has it; a base page has something else there.
    pub pins: u32,
    /// Padding.
    pub pad: u32,
    /// Its known mappings; unused entries are at the end.
    pub places: [Place; FAILED_MAPPINGS],
}

const _: () = assert!(size_of::<FolioFailed>() == 72 + 16 * FAILED_MAPPINGS);
// SAFETY: repr(C), integers only; 8 + 3 * 8 + 10 * 4 + 4 * 16 bytes, asserted above: no padding.
unsafe impl Wire for FolioFailed {
    const KIND: Kind = Kind::FolioFailed;
}

/// Bits of [`FolioFailed::seen`]: the problems that were seen.
pub mod failure_flags {
    /// No page was found for the copy.
    pub const NO_TARGET: u8 = 1;
    /// One of its mappings could not be unmapped.
    pub const STILL_MAPPED: u8 = 2;
    /// The call's last search for a page found none, which ends a call early.
    pub const NO_MEMORY: u8 = 4;
    /// NUMA balancing did not even isolate it (`migrate_misplaced_folio_prepare`): no call has tried to move it.
    pub const NUMA_REFUSED: u8 = 8;
}

/// One zone was compacted: from `mm_compaction_begin` to `mm_compaction_end`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionRan {
    /// [`Kind::CompactionRan`].
    pub kind: u16,
    /// CPU on which it ended.
    pub cpu: u16,
    /// `enum compact_result`, as the running kernel numbers it.
    pub status: u8,
    /// Bits of [`compaction_flags`].
    pub flags: u8,
    /// Order that an allocation wants; -1: the whole zone is to be compacted.
    pub order: i8,
    /// Padding.
    pub pad: u8,
    /// When it ended, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// When it began.
    pub began: u64,
    /// First frame of the zone.
    pub zone_start: u64,
    /// The zone's name (`zone.name`), NUL-padded.
    pub zone: [u8; 8],
    /// Base pages that moved in it.
    pub moved: u64,
    /// Base pages that could not be moved.
    pub failed: u64,
    /// The process that ran it.
    pub actor_tgid: u32,
    /// The thread that ran it.
    pub actor_tid: u32,
}

const _: () = assert!(size_of::<CompactionRan>() == 64);
// SAFETY: repr(C), integers only; 8 + 3 * 8 + 8 + 2 * 8 + 2 * 4 bytes, asserted above: no padding.
unsafe impl Wire for CompactionRan {
    const KIND: Kind = Kind::CompactionRan;
}

/// Bits of [`CompactionRan::flags`].
pub mod compaction_flags {
    /// `compact_control.direct_compaction`: an allocation of this task waits for it.
    pub const DIRECT: u8 = 1;
    /// `compact_control.mode` is not `MIGRATE_ASYNC`.
    pub const SYNC: u8 = 2;
    /// `compact_control.proactive_compaction`.
    pub const PROACTIVE: u8 = 4;
}
