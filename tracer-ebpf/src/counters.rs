//! The per-CPU counters: sums of the pages and events that were seen, lost and filtered out.
//! Input: every probe.

use core::arch::asm;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use tracer_common::counter::{Counter, REASONS, SLOTS};

/// The counters are one value, so that user space reads all of them in one system call.
#[btf_map]
static COUNTERS: PerCpuArray<[u64; SLOTS], 1> = PerCpuArray::new();

/// Adds `n` to this CPU's counter.
#[inline(always)]
pub fn add(counter: Counter, n: u64) {
    add_at(counter as usize, n);
}

/// Adds base pages to this CPU's sum of a reason, as the running kernel numbers it.
#[inline(always)]
pub fn add_moved_for(reason: u8, pages: u64) {
    add_at(Counter::ALL.len() + (usize::from(reason) & (REASONS - 1)), pages);
}

/// Adds atomically: a task in a trampoline can be preempted, and the next one on the same CPU may add to the same
/// counter.
#[inline(always)]
fn add_at(index: usize, n: u64) {
    if let Some(slots) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the callers' indices are below SLOTS, the array's length.
        let slot = unsafe { slots.cast::<u64>().add(index) };
        // The BPF target has the instruction, but `core` has no `fetch_add` for it.
        // SAFETY: adds to a live slot of the map, 8-byte aligned; touches nothing else.
        unsafe { asm!("lock *(u64 *)({slot} + 0) += {n}", slot = in(reg) slot, n = in(reg) n) };
    }
}
