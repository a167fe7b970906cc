//! Compaction: which task compacts which zone, for how long, and with what result. Both backends.
//! Input: tracepoints `compaction:mm_compaction_begin`, `_end`, `_deferred`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::HashMap,
    helpers::{bpf_get_smp_processor_id, bpf_probe_read_kernel_str_bytes},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use tracer_common::{
    counter::Counter,
    event::{CompactionRan, ProcessChange, compaction_flags},
};

use crate::{
    counters, emit, filter,
    kernel::{self, config},
    probes::lifecycle,
    turn::twice,
};

/// `MR_COMPACTION`, include/linux/migrate_mode.h, 6.1 to 7.3.
const REASON: u8 = 0;

#[repr(C)]
#[derive(Clone, Copy)]
struct Running {
    began: u64,
    moved: u64,
    failed: u64,
}

/// Tasks that compact a zone at this moment, by tid.
#[btf_map]
static COMPACTING: HashMap<u32, Running, 1024, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// `TP_PROTO(struct compact_control *cc, unsigned long zone_start, unsigned long zone_end, bool sync)`, 6.1 to 7.3,
/// include/trace/events/compaction.h.
#[inline(never)]
fn compaction_begin(_ctx: &RawTracePointContext) {
    let (tgid, tid) = kernel::current();
    // Compaction concerns the process that waits for it, and is a reason for moves.
    let wanted = filter::wants_reason(REASON) && filter::wants(tgid) && filter::wants_actor(tgid, kernel::comm());
    if !wanted {
        return;
    }
    let running = Running {
        began: kernel::now(),
        moved: 0,
        failed: 0,
    };
    if COMPACTING.insert(tid, running, 0).is_err() {
        counters::add(Counter::LostCompactions, 1);
    }
}
twice!(#[raw_tracepoint(tracepoint = "mm_compaction_begin")] compaction_begin, compaction_begin_again: RawTracePointContext);

/// `TP_PROTO(struct compact_control *cc, unsigned long zone_start, unsigned long zone_end, bool sync, int status)`, 6.1
/// to 7.3.
#[inline(never)]
fn compaction_end(ctx: &RawTracePointContext) {
    let (actor_tgid, actor_tid) = kernel::current();
    let Some(running) = COMPACTING.get_ptr(actor_tid) else {
        return;
    };
    // SAFETY: a live value of the map that only this task uses, read before it is removed.
    let running = unsafe { *running };
    let _ = COMPACTING.remove(actor_tid);
    let cc: u64 = ctx.arg(0);
    let mut flags = 0;
    if kernel::read::<u8>(cc, config!(cc_direct)) != 0 {
        flags |= compaction_flags::DIRECT;
    }
    if kernel::read::<u32>(cc, config!(cc_mode)) != 0 {
        flags |= compaction_flags::SYNC;
    }
    if kernel::read::<u8>(cc, config!(cc_proactive)) != 0 {
        flags |= compaction_flags::PROACTIVE;
    }
    let mut event = CompactionRan {
        // SAFETY: the helper has no preconditions.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        status: ctx.arg::<u32>(4) as u8,
        flags,
        order: kernel::read::<u32>(cc, config!(cc_order)) as i8,
        at: kernel::now(),
        began: running.began,
        zone_start: ctx.arg(1),
        moved: running.moved,
        failed: running.failed,
        actor_tgid,
        actor_tid,
        ..CompactionRan::default()
    };
    let name: u64 = kernel::read(kernel::read(cc, config!(cc_zone)), config!(zone_name));
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    let _ = unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut event.zone) };
    // This may be the first event of this thread.
    lifecycle::send_current(ProcessChange::Actor, actor_tgid, actor_tid, 0);
    emit::compaction(event);
}
twice!(#[raw_tracepoint(tracepoint = "mm_compaction_end")] compaction_end, compaction_end_again: RawTracePointContext);

/// `TP_PROTO(struct zone *zone, int order)`, 6.1 to 7.3: `compaction_deferred` makes an allocation or kcompactd skip
/// compaction.
#[inline(never)]
fn compaction_deferred(_ctx: &RawTracePointContext) {
    counters::add(Counter::CompactionDeferred, 1);
}
twice!(#[raw_tracepoint(tracepoint = "mm_compaction_deferred")] compaction_deferred, compaction_deferred_again: RawTracePointContext);

/// Adds a call of migrate_pages that has ended to the compaction that it is part of, if any.
#[inline(always)]
pub fn count(tid: u32, moved: u64, failed: u64) {
    if let Some(running) = COMPACTING.get_ptr_mut(tid) {
        // SAFETY: a live value of the map; only the task itself uses its entry.
        let running = unsafe { &mut *running };
        running.moved += moved;
        running.failed += failed;
    }
}
