//! Begin and end of migrate_pages: the reason, and the kernel's own count. Both backends.
//! Input: tracepoints `migrate:mm_migrate_pages_start` and `migrate:mm_migrate_pages`.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use aya_log_ebpf::warn;
use tracer_common::{counter::Counter, event::ProcessChange};

use crate::{
    counters,
    kernel::{self, config},
    probes::lifecycle,
    state,
};

/// `TP_PROTO(enum migrate_mode mode, int reason)`, 5.15 to 7.3, include/trace/events/migrate.h.
#[raw_tracepoint(tracepoint = "mm_migrate_pages_start")]
pub fn migrate_begin(ctx: RawTracePointContext) -> i32 {
    let (mode, reason): (u32, u32) = (ctx.arg(0), ctx.arg(1));
    let (tgid, tid) = kernel::current();
    if state::get(tid).is_none() {
        if !state::create(tid) {
            counters::add(Counter::LostCalls, 1);
            warn!(&ctx, "no room for the state of thread {}", tid);
            return 0;
        }
        lifecycle::send_current(ProcessChange::Actor, tgid, tid);
    }
    let Some(task) = state::get(tid) else {
        counters::add(Counter::LostCalls, 1);
        return 0;
    };
    if !task.push(state::Call::begin(kernel::now(), reason as u8, mode as u8)) {
        warn!(&ctx, "migrate_pages nested deeper than {}", state::MAX_DEPTH);
    }
    0
}

/// `TP_PROTO(unsigned long succeeded, unsigned long failed, unsigned long thp_succeeded, unsigned long thp_failed,
/// unsigned long thp_split, ..., enum migrate_mode mode, int reason)`, 5.15 to 7.3, include/trace/events/migrate.h.
/// migrate_pages has just added them to `pgmigrate_success` and `_fail`, and to `thp_migration_success`, `_fail` and
/// `_split` (mm/migrate.c); `succeeded` is the truth that the sums of this call must meet.
#[raw_tracepoint(tracepoint = "mm_migrate_pages")]
pub fn migrate_end(ctx: RawTracePointContext) -> i32 {
    let succeeded: u64 = ctx.arg(0);
    counters::add(Counter::KernelSucceeded, succeeded);
    for (counter, n) in [
        (Counter::KernelFailed, ctx.arg::<u64>(1)),
        (Counter::KernelThpFailed, ctx.arg(3)),
        (Counter::KernelThpSplit, ctx.arg(4)),
    ] {
        if n != 0 {
            counters::add(counter, n);
        }
    }
    let (_, tid) = kernel::current();
    let Some(call) = state::get(tid).and_then(state::Task::pop) else {
        counters::add(Counter::KernelSucceededUnseen, succeeded);
        counters::add(Counter::ThpMoved, ctx.arg(2));
        let reason = kernel::arg(&ctx, config!(migrate_end_reason));
        counters::add_moved_for(reason as u8, succeeded);
        return 0;
    };
    call.finish_folio();
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
    0
}
