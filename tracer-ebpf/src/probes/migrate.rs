//! Begin and end of migrate_pages: the reason, and the kernel's own count. Both backends.
//! Input: tracepoints `migrate:mm_migrate_pages_start` and `migrate:mm_migrate_pages`.

use aya_ebpf::{helpers::bpf_get_current_comm, macros::raw_tracepoint, programs::RawTracePointContext};
use aya_log_ebpf::warn;
use tracer_common::{counter::Counter, event::ProcessChange};

use crate::{counters, filter, kernel, probes::lifecycle, state};

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
        let wanted = filter::wants_actor(tgid, bpf_get_current_comm().unwrap_or_default());
        if let Some(task) = state::get(tid) {
            task.wanted = u32::from(wanted);
        }
        if wanted {
            lifecycle::send_current(ProcessChange::Actor, tgid, tid, 0);
        }
    }
    let Some(task) = state::get(tid) else {
        counters::add(Counter::LostCalls, 1);
        return 0;
    };
    let wanted = task.wanted != 0 && filter::wants_reason(reason as u8);
    if !task.push(state::Call::begin(kernel::now(), reason as u8, mode as u8, wanted)) {
        warn!(&ctx, "migrate_pages nested deeper than {}", state::MAX_DEPTH);
    }
    0
}

/// `TP_PROTO(unsigned long succeeded, unsigned long failed, ..., enum migrate_mode mode, int reason)`,
/// 5.15 to 7.3, include/trace/events/migrate.h. `succeeded` is what migrate_pages has just added to
/// `pgmigrate_success` (mm/migrate.c): the truth that the sums of this call must meet.
#[raw_tracepoint(tracepoint = "mm_migrate_pages")]
pub fn migrate_end(ctx: RawTracePointContext) -> i32 {
    let succeeded: u64 = ctx.arg(0);
    counters::add(Counter::KernelSucceeded, succeeded);
    let (_, tid) = kernel::current();
    let Some(call) = state::get(tid).and_then(state::Task::pop) else {
        counters::add(Counter::KernelSucceededUnseen, succeeded);
        return 0;
    };
    if call.wanted == 0 {
        // Nobody looked into it: its moves are filtered out whoever owns them.
        counters::add(Counter::MovedPages, succeeded);
        counters::add(Counter::FilteredPages, succeeded);
        return 0;
    }
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
    if call.moved + call.released != succeeded {
        counters::add(Counter::UnbalancedCalls, 1);
    }
    0
}
