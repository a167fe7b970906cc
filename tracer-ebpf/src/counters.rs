//! The per-CPU counters. Input: every probe.

use core::arch::asm;

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use tracer_common::counter::Counter;

#[btf_map]
static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();

/// Adds `n` to this CPU's counter.
///
/// Atomically: a task in a trampoline can be preempted, and the next one on the same CPU may be
/// at the same counter.
#[inline(always)]
pub fn add(counter: Counter, n: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // The target has the instruction, but `core` offers it no `fetch_add`.
        // SAFETY: adds to a live slot of the map, 8-byte aligned; touches nothing else.
        unsafe { asm!("lock *(u64 *)({slot} + 0) += {n}", slot = in(reg) slot, n = in(reg) n) };
    }
}
