//! Who owns an address space, and whether moves of its pages are wanted.
//! Input: `struct mm_struct` of the running kernel; the processes that leave one, from the hooks on processes.

use aya_ebpf::{btf_maps::LruHashMap, macros::btf_map};

use tracer_common::event::mapping_flags;

use crate::{
    filter,
    kernel::{comm, config, current, read},
};

/// The last owner of an address space.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LastOwner {
    tgid: u32,
    /// [`Owner::fulfilled`].
    fulfilled: u32,
}

/// The last owner of an mm whose owner is exiting: the kernel clears `mm->owner` before it tears
/// the mm down, and pages may move in between. Key: `struct mm_struct *`.
#[btf_map]
static LAST_OWNER: LruHashMap<u64, LastOwner, 4096> = LruHashMap::new();

/// The owner of an address space.
#[derive(Clone, Copy)]
pub struct Owner {
    /// 0: not known.
    pub tgid: u32,
    pub exiting: bool,
    /// Conditions that it fulfilled when it left, bits of `membership`: by now another process may have its number, or
    /// it may run another program. 0: it has not left.
    pub fulfilled: u32,
}

impl Owner {
    /// An owner that is not known.
    pub const UNKNOWN: Self = Self {
        tgid: 0,
        exiting: false,
        fulfilled: 0,
    };

    /// Whether moves of its pages are wanted.
    #[inline(always)]
    pub fn is_wanted(self) -> bool {
        if self.exiting {
            filter::is_enough(self.fulfilled)
        } else {
            filter::wants(self.tgid)
        }
    }

    /// Whether moves of its pages outside migrate_pages by the current task are wanted. It is checked where such a move
    /// begins: the checks for each extent must be short for the verifier.
    #[inline(always)]
    pub fn is_wanted_outside(self) -> bool {
        let (tgid, _) = current();
        self.is_wanted() && filter::wants_actor(tgid, comm())
    }

    /// Bits of `mapping_flags` that mark an exiting owner.
    #[inline(always)]
    pub fn flags(self) -> u8 {
        if self.exiting { mapping_flags::OWNER_EXITING } else { 0 }
    }
}

/// The owner of `mm`: `mm->owner->tgid`, or the last owner.
#[inline(always)]
pub fn of_mm(mm: u64) -> Owner {
    let task: u64 = read(mm, config!(mm_owner));
    if task != 0 {
        // Between copy_signal and the assignment of its own tgid (kernel/fork.c, copy_process), a task that is being
        // forked still has its parent's: it has no number to be reported by.
        let leader: u64 = read(task, config!(task_group_leader));
        let signal: u64 = read(task, config!(task_signal));
        let own = leader == task || read::<u64>(leader, config!(task_signal)) == signal;
        return Owner {
            tgid: if own { read(task, config!(task_tgid)) } else { 0 },
            exiting: false,
            fulfilled: 0,
        };
    }
    // SAFETY: a value of the map, read once.
    let last = LAST_OWNER
        .get_ptr(mm)
        .map_or(LastOwner::default(), |last| unsafe { *last });
    Owner {
        tgid: last.tgid,
        exiting: true,
        fulfilled: last.fulfilled,
    }
}

/// Remembers the current process as the last owner of `mm`.
#[inline(always)]
pub fn remember(mm: u64) {
    let tgid = current().0;
    let fulfilled = filter::fulfils(tgid);
    let _ = LAST_OWNER.insert(mm, LastOwner { tgid, fulfilled }, 0);
}
