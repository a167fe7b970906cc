//! What is known of a task while it migrates: its calls, the folio in hand, the extent of mappings.
//! Input: `probes/migrate` opens and closes calls, the backends' probes fill them.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::HashMap,
    macros::btf_map,
};
use tracer_common::{counter::Counter, nesting};

use crate::counters;

/// Calls of migrate_pages nest when the target's allocation reclaims and demotes.
pub const MAX_DEPTH: u32 = 4;

/// Tasks alive that have ever migrated. Not a map that evicts: a call in progress must not vanish. A task beyond this
/// number has its calls counted as lost.
const MAX_TASKS: usize = 1 << 16;

/// The folio that moved last in a call; its mappings are restored next, by the same task.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Folio {
    /// `struct folio *` of the source; 0: none in hand.
    pub src: u64,
    /// `struct folio *` of the copy.
    pub dst: u64,
    /// Base pages.
    pub pages: u64,
    /// The file it is of, read while it was locked.
    pub file: File,
    pub order: u8,
    /// A mapping of it was restored.
    pub mapped: u8,
    /// Runs of its mappings that were reported, 255 for more.
    pub reported: u8,
    /// A mapping of it has no known owner.
    pub unowned: u8,
    pub pad: [u8; 4],
}

/// Where a folio of the page cache belongs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct File {
    /// `struct inode *`; 0: of no file.
    pub inode: u64,
    pub index: u64,
}

impl File {
    pub const NONE: Self = Self { inode: 0, index: 0 };
}

impl Folio {
    pub const NONE: Self = Self {
        src: 0,
        dst: 0,
        pages: 0,
        file: File::NONE,
        order: 0,
        mapped: 0,
        reported: 0,
        unowned: 0,
        pad: [0; 4],
    };
}

/// One call of migrate_pages. Sums are base pages, added to the counters when the call ends, so
/// that they cover the same calls as the kernel's own sum.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub begun: u64,
    pub moved: u64,
    pub reported: u64,
    pub filtered: u64,
    pub unowned: u64,
    pub unmapped: u64,
    pub released: u64,
    /// Transparent huge pages that moved or were released; folios, not pages.
    pub thps: u64,
    pub folio: Folio,
    /// `struct list_head *` of the folios to move; those that could not be are on it again when the call ends. 0: not
    /// known.
    pub from: u64,
    /// Where on the task's stack it began.
    pub stack: u64,
    /// Tracepoint backend: the extent of new frames seen last, `[first, end)`.
    pub frames: [u64; 2],
    pub reason: u8,
    pub mode: u8,
    /// A folio found no page for its copy, which ends a call early.
    pub no_memory: u8,
    /// 0: its reason or its actor is filtered out, and nothing in it is looked at.
    pub wanted: u8,
    /// A folio of it could not be moved at once.
    pub troubled: u8,
    pub pad: [u8; 3],
}

impl Call {
    /// A call that begins.
    #[inline(always)]
    pub fn begin(begun: u64, from: u64, stack: u64, reason: u8, mode: u8, wanted: bool) -> Self {
        Self {
            begun,
            moved: 0,
            reported: 0,
            filtered: 0,
            unowned: 0,
            unmapped: 0,
            released: 0,
            thps: 0,
            folio: Folio::NONE,
            from,
            stack,
            frames: [0; 2],
            reason,
            mode,
            no_memory: 0,
            wanted: u8::from(wanted),
            troubled: 0,
            pad: [0; 3],
        }
    }

    /// The folio in hand is done with: books it by what became of its mappings. Returns it where it had none.
    #[must_use]
    #[inline(always)]
    pub fn finish_folio(&mut self) -> Option<Folio> {
        let folio = self.folio;
        if folio.src == 0 {
            return None;
        }
        self.folio.src = 0;
        self.moved += folio.pages;
        if folio.reported != 0 {
            self.reported += folio.pages;
        } else if folio.unowned != 0 {
            self.unowned += folio.pages;
        } else if folio.mapped != 0 {
            self.filtered += folio.pages;
        } else {
            self.unmapped += folio.pages;
            return Some(folio);
        }
        None
    }
}

/// The mappings that `remove_migration_pte` restores in one VMA, gathered into extents.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Window {
    /// What the mappings between entry and exit are: [`Window::MOVED`], [`Window::PUT_BACK`] or 0, none.
    pub open: u32,
    pub owner_tgid: u32,
    /// The folio that is put back.
    pub folio: u64,
    /// New frame minus old frame, the same for every page of the folio.
    pub frame_delta: u64,
    /// 0: not seen.
    pub unmapped_at: u64,
    /// Of a folio that is put back: behind the last address that the VMA may map it at.
    pub end: u64,
    pub vaddr: u64,
    pub new_pfn: u64,
    /// When the last mapping of the extent was restored.
    pub at: u64,
    /// Base pages in the extent so far.
    pub pages: u32,
    pub wanted: u8,
    pub flags: u8,
    /// 1: what would be wanted, if it had an owner.
    pub unowned: u8,
    pub pad: u8,
}

impl Window {
    /// Of a folio that moved.
    pub const MOVED: u32 = 1;
    /// Of a folio that could not be moved, or was split.
    pub const PUT_BACK: u32 = 2;

    pub const CLOSED: Self = Self {
        open: 0,
        owner_tgid: 0,
        folio: 0,
        frame_delta: 0,
        unmapped_at: 0,
        end: 0,
        vaddr: 0,
        new_pfn: 0,
        at: 0,
        pages: 0,
        wanted: 0,
        flags: 0,
        unowned: 0,
        pad: 0,
    };
}

#[repr(C)]
pub struct Task {
    pub depth: u32,
    /// 0: this actor's moves are filtered out.
    pub wanted: u32,
    /// The list that the next call was entered with.
    pub from: u64,
    /// The folio whose failure was told last.
    pub told: u64,
    pub window: Window,
    pub calls: [Call; MAX_DEPTH as usize],
}

/// Key: tid. Memory is taken as tasks come, and given back when they exit.
#[btf_map]
static TASKS: HashMap<u32, Task, MAX_TASKS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The task's state, if it has migrated before.
#[inline(always)]
pub fn get(tid: u32) -> Option<&'static mut Task> {
    // SAFETY: a live value of the map. Only the task itself, which runs on one CPU at a time,
    // uses its entry; its programs do not nest within each other.
    TASKS.get_ptr_mut(tid).map(|p| unsafe { &mut *p })
}

/// Makes room for the task; false when there is none.
#[inline(always)]
pub fn create(tid: u32) -> bool {
    // Built by the map from a zeroed static: a `Task` is larger than a BPF stack likes.
    TASKS.insert(tid, &EMPTY_TASK, u64::from(BPF_NOEXIST)).is_ok()
}

/// The task is gone; its number may come back as somebody else.
#[inline(always)]
pub fn forget(tid: u32) {
    let _ = TASKS.remove(tid);
}

/// The innermost call the current task is in, unless it is filtered out.
#[inline(always)]
pub fn wanted_call(tid: u32) -> Option<&'static mut Call> {
    get(tid).and_then(innermost).filter(|call| call.wanted != 0)
}

/// The innermost call the task is in.
#[inline(always)]
pub fn innermost(task: &mut Task) -> Option<&mut Call> {
    let depth = task.depth;
    if depth == 0 || depth > MAX_DEPTH {
        return None;
    }
    Some(task.call(depth - 1))
}

impl Task {
    /// When the outermost call began, nanoseconds; what a task left behind before is stale.
    #[inline(always)]
    pub fn began(&self) -> u64 {
        self.calls[0].begun
    }

    /// The call at a depth, counted from 0. The mask is for the verifier, which cannot follow how the
    /// depth was compared; in assembly because the compiler can, and would leave it out.
    #[inline(always)]
    fn call(&mut self, depth: u32) -> &mut Call {
        let mut index = u64::from(depth);
        // SAFETY: masks a register.
        unsafe { asm!("{index} &= {mask}", index = inout(reg) index, mask = const MAX_DEPTH - 1) };
        // SAFETY: the mask keeps the index below MAX_DEPTH, the array's length.
        unsafe { self.calls.get_unchecked_mut(index as usize) }
    }

    /// A call begins at that place of the stack: gives up the calls that cannot be open any more, whose end was missed, and
    /// counts them as lost. Else each of them would cost a level for good.
    #[inline(always)]
    pub fn give_up_ended(&mut self, stack: u64) {
        let open = nesting::still_open(self.depth, MAX_DEPTH, stack, |depth| self.calls[depth as usize].stack);
        if open != self.depth {
            counters::add(Counter::LostCalls, u64::from(self.depth - open));
            self.depth = open;
        }
    }

    /// Enters a call: the place for it, in which another one was before. None, and counted, when it is nested too deep.
    #[inline(always)]
    pub fn push(&mut self) -> Option<&mut Call> {
        let depth = self.depth;
        self.depth = depth.wrapping_add(1);
        if depth >= MAX_DEPTH {
            counters::add(Counter::LostCalls, 1);
            return None;
        }
        Some(self.call(depth))
    }

    /// Leaves the innermost call. None when its beginning was not seen or not kept.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<&mut Call> {
        let depth = self.depth;
        if depth == 0 {
            return None;
        }
        self.depth = depth - 1;
        if depth > MAX_DEPTH {
            return None;
        }
        Some(self.call(depth - 1))
    }
}

/// Under its plain name: a mangled one holds a hash of the build's folder, and the object would differ by it.
#[unsafe(no_mangle)]
static EMPTY_TASK: Task = Task {
    depth: 0,
    wanted: 0,
    from: 0,
    told: 0,
    window: Window::CLOSED,
    calls: [Call {
        begun: 0,
        moved: 0,
        reported: 0,
        filtered: 0,
        unowned: 0,
        unmapped: 0,
        released: 0,
        thps: 0,
        folio: Folio::NONE,
        from: 0,
        stack: 0,
        frames: [0; 2],
        reason: 0,
        mode: 0,
        no_memory: 0,
        wanted: 0,
        troubled: 0,
        pad: [0; 3],
    }; MAX_DEPTH as usize],
};
