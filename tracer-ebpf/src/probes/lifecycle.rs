//! Processes made, renamed and ended: targets follow forks, numbers that come back are new.
//! Input: tracepoints `sched:sched_process_fork`, `_exec`, `_exit`; fentry `mm_update_next_owner`.

use aya_ebpf::{
    helpers::bpf_get_current_comm,
    macros::{fentry, raw_tracepoint},
    programs::{FEntryContext, RawTracePointContext},
};
use aya_log_ebpf::warn;
use tracer_common::{
    counter::Counter,
    event::{ProcessChange, ProcessSeen},
};

use crate::{
    counters, emit, filter,
    kernel::{self, config},
    state,
};

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, 5.15 to 7.3,
/// include/trace/events/sched.h. Also called for a new thread, which changes nothing here.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn forked(ctx: RawTracePointContext) -> i32 {
    let child: u64 = ctx.arg(1);
    let (parent_tgid, _) = kernel::current();
    let tgid: u32 = kernel::read(child, config!(task_tgid));
    let tid: u32 = kernel::read(child, config!(task_pid));
    if tgid != tid {
        return 0;
    }
    if config!(all) == 0 {
        if config!(follow) == 0 || !filter::is_target(parent_tgid) {
            // A new process under this number is not the one that was asked for, whatever became of that.
            filter::forget(tgid);
            return 0;
        }
        if !filter::follow(tgid) {
            counters::add(Counter::LostTargets, 1);
            warn!(&ctx, "too many processes: {} is not followed", tgid);
            return 0;
        }
    }
    emit::process(ProcessSeen {
        change: ProcessChange::Fork as u16,
        tgid,
        tid,
        parent_tgid,
        at: kernel::now(),
        comm: kernel::read(child, config!(task_comm)),
        ..ProcessSeen::default()
    });
    0
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, 5.15 to 7.3. The task
/// has its new name by then.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn execed(ctx: RawTracePointContext) -> i32 {
    let (tgid, tid) = kernel::current();
    // A thread that execs becomes its process's leader; its old number is free, without an exit.
    let old_tid: u32 = ctx.arg(1);
    if old_tid != tid {
        state::forget(old_tid);
    }
    if filter::wants(tgid) || state::get(tid).is_some() {
        send_current(ProcessChange::Exec, tgid, tid);
    }
    0
}

/// `TP_PROTO(struct task_struct *p)`, with `bool group_dead` since 6.18. For the last thread,
/// `signal->live` is 0 by then (`do_exit`, kernel/exit.c).
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exited(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let (tgid, tid) = kernel::current();
    state::forget(tid);
    let signal: u64 = kernel::read(task, config!(task_signal));
    let live: u32 = kernel::read(signal, config!(signal_live));
    if live == 0 && filter::wants(tgid) {
        send_current(ProcessChange::Exit, tgid, tid);
        filter::forget(tgid);
    }
    0
}

/// `void mm_update_next_owner(struct mm_struct *mm)`, 6.1 to 7.3, kernel/exit.c: the current task is
/// about to leave `mm`, whose owner may become nobody.
#[fentry(function = "mm_update_next_owner")]
pub fn owner_leaves(ctx: FEntryContext) -> i32 {
    kernel::remember_owner(kernel::arg(&ctx, 0));
    0
}

/// Tells user space the current task's name.
#[inline(always)]
pub fn send_current(change: ProcessChange, tgid: u32, tid: u32) {
    emit::process(ProcessSeen {
        change: change as u16,
        tgid,
        tid,
        at: kernel::now(),
        comm: bpf_get_current_comm().unwrap_or_default(),
        ..ProcessSeen::default()
    });
}
