//! The events, one `#[repr(C)]` struct per kind; each starts with its [`Kind`] as a u16.
//! Written by `probes/*` through `emit`, read by `decode`.

/// First two bytes of every record in the ring.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`MappingMoved`]
    MappingMoved = 1,
    /// [`ProcessSeen`]
    ProcessSeen = 2,
}

impl TryFrom<u16> for Kind {
    type Error = u16;

    fn try_from(raw: u16) -> Result<Self, u16> {
        match raw {
            1 => Ok(Self::MappingMoved),
            2 => Ok(Self::ProcessSeen),
            other => Err(other),
        }
    }
}

/// A struct that may be sent: integers only, no padding.
///
/// # Safety
/// The type is `repr(C)`, holds integers only and has no padding bytes, so that any bytes of its
/// size are a value of it and all of its bytes are initialized.
pub unsafe trait Wire: Copy + 'static {
    /// The kind that its first field holds.
    const KIND: Kind;
}

/// One run of neighbouring mappings of one folio in one VMA, pointed at their new frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingMoved {
    /// [`Kind::MappingMoved`].
    pub kind: u16,
    /// CPU that restored the mapping.
    pub cpu: u16,
    /// `enum migrate_reason` of the call, as the running kernel numbers it; or of [`outside`].
    pub reason: u8,
    /// The folio's order; in the tracepoint backend that of the mapping.
    pub order: u8,
    /// Bits of [`mapping_flags`].
    pub flags: u8,
    /// `enum migrate_mode` of the call.
    pub mode: u8,
    /// When the run's last mapping was in place, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// First virtual address of the run, bytes.
    pub vaddr: u64,
    /// Frame of the first page before; 0: none that is known.
    pub old_pfn: u64,
    /// Frame of the first page now; 0: none.
    pub new_pfn: u64,
    /// When unmapping began, `CLOCK_MONOTONIC` nanoseconds; 0 if that was not seen.
    pub unmapped_at: u64,
    /// The process whose page table this is; 0 if the kernel side does not know it.
    pub owner_tgid: u32,
    /// The process that did it.
    pub actor_tgid: u32,
    /// The thread that did it.
    pub actor_tid: u32,
    /// Base pages in the run; addresses and frames run in parallel.
    pub pages: u32,
}

const _: () = assert!(size_of::<MappingMoved>() == 64);
// SAFETY: repr(C), integers only; 8 + 5 * 8 + 4 * 4 bytes, asserted above: no padding.
unsafe impl Wire for MappingMoved {
    const KIND: Kind = Kind::MappingMoved;
}

/// Values of [`MappingMoved::reason`] beyond the kernel's: moves that do not go through migrate_pages.
pub mod outside {
    /// Of `enum migrate_reason` no kernel uses so high a number.
    pub const FIRST: u8 = 128;
    /// Base pages copied into a huge page, by khugepaged or MADV_COLLAPSE.
    pub const COLLAPSE: u8 = 128;
    /// A page replaced by an identical one (KSM), or by the zero page.
    pub const KSM_MERGE: u8 = 129;
    /// A KSM page replaced by a copy of its own, by a write or because merging was called off.
    pub const KSM_UNMERGE: u8 = 130;
    /// A page copied because it was written to and others have it too; the zero page among them.
    pub const COW: u8 = 131;
    /// A page's content went to swap: it has no frame now.
    pub const SWAP_OUT: u8 = 132;
    /// It came back; the old frame is the one that it had when it left, if that was seen.
    pub const SWAP_IN: u8 = 133;
    /// The names, from [`FIRST`] on.
    pub const NAMES: &[&str] = &["collapse", "ksm_merge", "ksm_unmerge", "cow", "swap_out", "swap_in"];
}

/// Bits of [`MappingMoved::flags`].
pub mod mapping_flags {
    /// The owner is the mm's last owner: it was exiting.
    pub const OWNER_EXITING: u8 = 1;
    /// Several frames were in flight at this address; the old frame is the likeliest.
    pub const AMBIGUOUS: u8 = 2;
}

/// What happened to a process.
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
}

impl TryFrom<u16> for ProcessChange {
    type Error = u16;

    fn try_from(raw: u16) -> Result<Self, u16> {
        match raw {
            1 => Ok(Self::Fork),
            2 => Ok(Self::Exec),
            3 => Ok(Self::Exit),
            4 => Ok(Self::Actor),
            other => Err(other),
        }
    }
}

/// A process or a thread was made, renamed, ended, or first seen to migrate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessSeen {
    /// [`Kind::ProcessSeen`].
    pub kind: u16,
    /// [`ProcessChange`].
    pub change: u16,
    /// Process.
    pub tgid: u32,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// Thread.
    pub tid: u32,
    /// [`ProcessChange::Fork`]: the parent process; else 0.
    pub parent_tgid: u32,
    /// The thread's name, NUL-padded (`task_struct.comm`).
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<ProcessSeen>() == 40);
// SAFETY: repr(C), integers only; 2 * 2 + 4 + 8 + 2 * 4 + 16 bytes, asserted above: no padding.
unsafe impl Wire for ProcessSeen {
    const KIND: Kind = Kind::ProcessSeen;
}
