//! The state of a task while it migrates: its calls, the folio in hand, the extent of mappings.
//! Input: `probes/migrate` opens and closes calls, the backends' probes fill them.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST},
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use tracer_common::{
    counter::Counter,
    nesting,
    task::{Call, MAX_DEPTH, Task},
};

use crate::counters;

/// Most living tasks that have ever migrated. The map does not evict: a call in progress must not vanish. The calls of
/// a task beyond this number are counted as lost.
const MAX_TASKS: usize = 1 << 16;

/// Key: tid. Memory is allocated when a task is inserted, and freed when it exits.
#[btf_map]
static TASKS: HashMap<u32, Task, MAX_TASKS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// 1 when the run has ended. User space sets it before it detaches the hooks one after the other, which takes seconds.
/// While some hooks are gone, a call in progress would be misread.
#[btf_map]
static STOPPED: Array<u32, 1> = Array::new();

#[inline(always)]
fn is_stopped() -> bool {
    // SAFETY: a u32 of the map, read once.
    STOPPED
        .get_ptr(0)
        .is_some_and(|stopped| unsafe { stopped.read_volatile() } != 0)
}

/// The task's state, if it has migrated before and the run has not ended.
#[inline(always)]
pub fn get(tid: u32) -> Option<&'static mut Task> {
    if is_stopped() { None } else { entry(tid) }
}

/// The task's state, if it has migrated before.
#[inline(always)]
pub fn entry(tid: u32) -> Option<&'static mut Task> {
    // SAFETY: a live value of the map. Only the task itself, which runs on one CPU at a time,
    // uses its entry; its programs do not nest within each other.
    TASKS.get_ptr_mut(tid).map(|p| unsafe { &mut *p })
}

/// Makes room for the task. Returns false if there is none.
#[inline(always)]
#[allow(
    clippy::needless_borrows_for_generic_args,
    reason = "by value the task would be copied to the stack, where it does not fit"
)]
pub fn create(tid: u32) -> bool {
    // The map copies a zeroed static: a `Task` is too large for a BPF stack.
    TASKS.insert(tid, &EMPTY_TASK, u64::from(BPF_NOEXIST)).is_ok()
}

/// Forgets a task that is gone; another task may get its number.
#[inline(always)]
pub fn forget(tid: u32) {
    if let Some(task) = get(tid) {
        give_up(task, 0);
        let _ = TASKS.remove(tid);
    }
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
    Some(call(task, depth - 1))
}

/// The call at a depth, counted from 0. The mask is for the verifier, which cannot follow how the depth was compared.
/// It is in assembly because the compiler can, and would drop it.
#[inline(always)]
fn call(task: &mut Task, depth: u32) -> &mut Call {
    let mut index = u64::from(depth);
    // SAFETY: masks a register.
    unsafe { asm!("{index} &= {mask}", index = inout(reg) index, mask = const MAX_DEPTH - 1) };
    // SAFETY: the mask keeps the index below MAX_DEPTH, the array's length.
    unsafe { task.calls.get_unchecked_mut(index as usize) }
}

/// Gives up the calls that cannot be open any more when a call begins at that place of the stack: their ends were
/// missed. Otherwise each of them would take a level for ever.
#[inline(always)]
pub fn give_up_ended(task: &mut Task, stack: u64) {
    let open = nesting::still_open(task.depth, MAX_DEPTH, stack, |depth| task.calls[depth as usize].stack);
    give_up(task, open);
}

/// Gives up all but the outermost `outer` calls: counts them as lost, and the pages of their events, which no other
/// counter will include.
#[inline(always)]
fn give_up(task: &mut Task, outer: u32) {
    if outer != task.depth {
        counters::add(Counter::LostCalls, u64::from(task.depth - outer));
        counters::add(Counter::UnbookedPages, task.unbooked(outer));
        task.depth = outer;
    }
}

/// Enters a call. Returns its place, which still holds an old call; None, and counts a lost call, if it is nested too
/// deep.
#[inline(always)]
pub fn push(task: &mut Task) -> Option<&mut Call> {
    let depth = task.depth;
    task.depth = depth.wrapping_add(1);
    if depth >= MAX_DEPTH {
        counters::add(Counter::LostCalls, 1);
        return None;
    }
    Some(call(task, depth))
}

/// Leaves the innermost call. Returns None if its beginning was not seen or not kept.
#[inline(always)]
pub fn pop(task: &mut Task) -> Option<&mut Call> {
    let depth = task.depth;
    if depth == 0 {
        return None;
    }
    task.depth = depth - 1;
    if depth > MAX_DEPTH {
        return None;
    }
    Some(call(task, depth - 1))
}

/// Has a plain name, because a mangled one holds a hash of the build's folder, by which the object would differ.
#[unsafe(no_mangle)]
static EMPTY_TASK: Task = Task::NONE;
