//! Begin and end of migrate_pages: the reason, the list of folios, and the kernel's own count. Both backends.
//! Input: tracepoints `migrate:mm_migrate_pages_start` and `migrate:mm_migrate_pages`; a kprobe on `migrate_pages`.

use aya_ebpf::{
    EbpfContext,
    macros::{kprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::warn;
use tracer_common::{
    counter::Counter,
    event::ProcessChange,
    task::{Call, MAX_DEPTH, Task},
};

use crate::{
    counters, filter,
    kernel::{self, config},
    probes::{compaction, failure, lifecycle, unmapped},
    state,
    turn::twice,
};

/// `int migrate_pages(struct list_head *from, ...)`, 6.1 to 7.3, mm/migrate.c: seven arguments, more than an fentry
/// program of 6.1 may have. Its first action is the tracepoint below.
#[kprobe]
pub fn migrate_enter(ctx: ProbeContext) -> u32 {
    if let Some(task) = task(&ctx) {
        task.from = ctx.arg(0).unwrap_or(0);
    }
    0
}

/// The current task's state, created if there is none. Returns None if there is no room.
#[inline(always)]
fn task(ctx: &impl EbpfContext) -> Option<&'static mut Task> {
    let (tgid, tid) = kernel::current();
    if let Some(task) = state::entry(tid) {
        return Some(task);
    }
    if !state::create(tid) {
        warn!(ctx, "no room for the state of thread {}", tid);
        return None;
    }
    let wanted = filter::wants_actor(tgid, kernel::comm());
    if wanted {
        lifecycle::send_current(ProcessChange::Actor, tgid, tid, 0);
    }
    let task = state::entry(tid)?;
    task.wanted = u32::from(wanted);
    Some(task)
}

/// `TP_PROTO(enum migrate_mode mode, int reason)`, 5.15 to 7.3, include/trace/events/migrate.h.
#[inline(never)]
fn migrate_begin(ctx: &RawTracePointContext) {
    let (mode, reason): (u32, u32) = (ctx.arg(0), ctx.arg(1));
    let Some(task) = task(ctx) else {
        counters::add(Counter::LostCalls, 1);
        return;
    };
    let from = task.from;
    task.from = 0;
    let wanted = task.wanted != 0 && filter::wants_reason(reason as u8);
    // A raw tracepoint's arguments are put on the task's stack (`bpf_trace_run2`, kernel/trace/bpf_trace.c).
    let stack = ctx.as_ptr() as u64;
    state::give_up_ended(task, stack);
    if let Some(outer) = state::innermost(task) {
        unmapped::finish_folio(outer);
    }
    let Some(call) = state::push(task) else {
        warn!(ctx, "migrate_pages nested deeper than {}", MAX_DEPTH);
        return;
    };
    *call = Call {
        begun: kernel::now(),
        from,
        stack,
        reason: reason as u8,
        mode: mode as u8,
        wanted: u8::from(wanted),
        ..Call::NONE
    };
}
twice!(#[raw_tracepoint(tracepoint = "mm_migrate_pages_start")] migrate_begin, migrate_begin_again: RawTracePointContext);

/// `TP_PROTO(unsigned long succeeded, unsigned long failed, unsigned long thp_succeeded, unsigned long thp_failed,
/// unsigned long thp_split, ..., enum migrate_mode mode, int reason)`, 5.15 to 7.3, include/trace/events/migrate.h.
/// migrate_pages has just added them to `pgmigrate_success` and `_fail`, and to `thp_migration_success`, `_fail` and
/// `_split` (mm/migrate.c); `succeeded` is the number that the sums of this call must match.
#[inline(never)]
fn migrate_end(ctx: &RawTracePointContext) {
    let (succeeded, failed): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    counters::add(Counter::KernelSucceeded, succeeded);
    for (counter, n) in [
        (Counter::KernelFailed, failed),
        (Counter::KernelThpFailed, ctx.arg(3)),
        (Counter::KernelThpSplit, ctx.arg(4)),
    ] {
        if n != 0 {
            counters::add(counter, n);
        }
    }
    let (_, tid) = kernel::current();
    compaction::count(tid, succeeded, failed);
    let Some(call) = state::get(tid).and_then(state::pop) else {
        counters::add(Counter::KernelSucceededUnseen, succeeded);
        counters::add(Counter::ThpMoved, ctx.arg(2));
        let reason = kernel::arg(ctx, config!(migrate_end_reason));
        counters::add_moved_for(reason as u8, succeeded);
        return;
    };
    if call.wanted == 0 {
        // The call was not examined: its moves are filtered out for every owner.
        counters::add(Counter::MovedPages, succeeded);
        counters::add(Counter::FilteredPages, succeeded);
        counters::add(Counter::ThpMoved, ctx.arg(2));
        counters::add_moved_for(call.reason, succeeded);
        failure::filtered_out(call, failed);
        return;
    }
    unmapped::finish_folio(call);
    counters::add(Counter::MovedPages, call.moved);
    counters::add(Counter::ReportedPages, call.reported);
    if call.filtered != 0 {
        counters::add(Counter::FilteredPages, call.filtered);
    }
    if call.unowned != 0 {
        counters::add(Counter::UnownedPages, call.unowned);
    }
    if call.unmapped != 0 {
        counters::add(Counter::UnmappedPages, call.unmapped);
    }
    if call.unmapped_filtered != 0 {
        counters::add(Counter::FilteredUnmappedPages, call.unmapped_filtered);
    }
    if call.released != 0 {
        counters::add(Counter::ReleasedPages, call.released);
    }
    if call.thps != 0 {
        counters::add(Counter::ThpMoved, call.thps);
    }
    counters::add_moved_for(call.reason, call.moved + call.released);
    if call.moved + call.released != succeeded {
        counters::add(Counter::UnbalancedCalls, 1);
    }
    if failed != 0 {
        let told = failure::tell(call, failed);
        if let Some(task) = state::get(tid) {
            task.told = told;
        }
    }
}
twice!(#[raw_tracepoint(tracepoint = "mm_migrate_pages")] migrate_end, migrate_end_again: RawTracePointContext);
