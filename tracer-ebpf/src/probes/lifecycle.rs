//! Processes that are created, renamed, moved to other cgroups or end: keeps up to date which of them are wanted.
//! Input: tracepoints `sched:sched_process_fork`, `_exec`, `_exit`, `_free`, `task:task_rename`,
//! `cgroup:cgroup_attach_task`; fentry `mm_update_next_owner`.

use aya_ebpf::{
    btf_maps::LruHashMap,
    helpers::bpf_probe_read_kernel_str_bytes,
    macros::{btf_map, fentry, raw_tracepoint},
    programs::{FEntryContext, RawTracePointContext},
};
use aya_log_ebpf::warn;
use tracer_common::{
    counter::Counter,
    event::{ProcessChange, ProcessSeen, process_flags},
    filter::membership,
    renames::{Rename, Renames},
};

use crate::{
    counters, emit, filter,
    kernel::{self, config},
    owner,
    probes::copy,
    state,
    turn::twice,
};

/// Tasks that were renamed a moment ago. One that is forgotten early may report more renames than it should.
const MAX_RENAMED: usize = 1 << 12;

/// Key: tid.
#[btf_map]
static RENAMES: LruHashMap<u32, Renames, MAX_RENAMED> = LruHashMap::new();

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, 5.15 to 7.3,
/// include/trace/events/sched.h. Also called for a new thread, of which only the number matters here.
#[inline(never)]
fn forked(ctx: &RawTracePointContext) {
    let child: u64 = ctx.arg(1);
    let (parent_tgid, _) = kernel::current();
    let tgid: u32 = kernel::read(child, config!(task_tgid));
    let tid: u32 = kernel::read(child, config!(task_pid));
    // The task that had this number before may have migrated pages while it exited.
    state::forget(tid);
    let _ = RENAMES.remove(tid);
    if tgid != tid {
        return;
    }
    let comm = kernel::read(child, config!(task_comm));
    // Its cgroup may be another one than its parent's (CLONE_INTO_CGROUP). The bits of a process that had this number
    // before are forgotten.
    let membership = filter::judge(filter::inherited(parent_tgid), child, comm);
    if !filter::wants_everybody() {
        if !set(tgid, membership) {
            warn!(ctx, "too many processes: {} is not followed", tgid);
            return;
        }
        if membership == 0 {
            return;
        }
    }
    emit::process(ProcessSeen {
        change: ProcessChange::Fork as u16,
        tgid,
        tid,
        parent_tgid,
        at: kernel::now(),
        comm,
        membership,
        ..ProcessSeen::default()
    });
}
twice!(#[raw_tracepoint(tracepoint = "sched_process_fork")] forked, forked_again: RawTracePointContext);

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, 5.15 to 7.3. The task
/// has its new name by then.
#[inline(never)]
fn execed(ctx: &RawTracePointContext) {
    let (tgid, tid) = kernel::current();
    // A thread that execs becomes its process's leader; its old number is free, without an exit.
    let old_tid: u32 = ctx.arg(1);
    if old_tid != tid {
        state::forget(old_tid);
    }
    // Its name, and the conditions that it fulfils by its name, were handled when it was renamed.
    let membership = filter::fulfils(tgid);
    if filter::wants_everybody() || membership != 0 || state::get(tid).is_some() {
        send_current(ProcessChange::Exec, tgid, tid, membership);
    }
}
twice!(#[raw_tracepoint(tracepoint = "sched_process_exec")] execed, execed_again: RawTracePointContext);

/// `TP_PROTO(struct task_struct *task, const char *comm)`, 6.1 to 7.3, include/trace/events/task.h: by exec, by
/// prctl(2), or by another thread of the process through /proc. Called before the task has the name.
#[inline(never)]
fn renamed(ctx: &RawTracePointContext) {
    let (task, name): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let mut comm = [0; 16];
    // SAFETY: the helper checks the address, and fails on one that cannot be read.
    let _ = unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut comm) };
    let tid: u32 = kernel::read(task, config!(task_pid));
    let tgid: u32 = kernel::read(task, config!(task_tgid));
    let migrates = state::get(tid).map(|task| task.wanted = u32::from(filter::wants_actor(tgid, comm)));
    let (had, has) = if tid == tgid {
        change(tgid, task, comm)
    } else {
        (0, filter::fulfils(tgid))
    };
    let told = tid == tgid && (filter::wants_everybody() || had | has != 0);
    if told || migrates.is_some() {
        let at = kernel::now();
        let flags = match rename(tid, at) {
            Rename::Reported => 0,
            Rename::Last => process_flags::MERGES,
            Rename::Merged => return counters::add(Counter::MergedRenames, 1),
        };
        emit::process(ProcessSeen {
            change: ProcessChange::Renamed as u16,
            tgid,
            tid,
            at,
            comm,
            membership: has,
            flags,
            ..ProcessSeen::default()
        });
    }
}

/// Takes in a rename of a task.
#[inline(always)]
fn rename(tid: u32, at: u64) -> Rename {
    if let Some(renames) = RENAMES.get_ptr_mut(tid) {
        // SAFETY: a live word of the map. Two threads that rename the task at once each read and write it as a whole.
        let (next, rename) = unsafe { renames.read_volatile() }.next(at);
        // SAFETY: as above.
        unsafe { renames.write_volatile(next) };
        return rename;
    }
    let (first, rename) = Renames::default().next(at);
    // Without room, each of its renames is reported.
    let _ = RENAMES.insert(tid, first, 0);
    rename
}
twice!(#[raw_tracepoint(tracepoint = "task_rename")] renamed, renamed_again: RawTracePointContext);

/// `TP_PROTO(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)`, 6.1 to 7.3,
/// include/trace/events/cgroup.h. The task is in its new cgroup by then (`cgroup_attach_task`, kernel/cgroup/cgroup.c).
#[inline(never)]
fn regrouped(ctx: &RawTracePointContext) {
    let task: u64 = ctx.arg(2);
    // A process is in its leader's cgroup; other threads may be in cgroups below.
    let leader: u64 = kernel::read(task, config!(task_group_leader));
    let tgid: u32 = kernel::read(leader, config!(task_tgid));
    let comm = kernel::read(leader, config!(task_comm));
    let (had, has) = change(tgid, leader, comm);
    if had != has {
        send(ProcessChange::Regrouped, tgid, tgid, comm, has);
    }
}
twice!(#[raw_tracepoint(tracepoint = "cgroup_attach_task")] regrouped, regrouped_again: RawTracePointContext);

/// `TP_PROTO(struct task_struct *p)`, with `bool group_dead` since 6.16. For the last thread, `signal->live` is 0 by
/// then (`do_exit`, kernel/exit.c). Since 6.16 its memory is freed after this (`exit_mm`), before 6.16 ahead of it: so
/// the process is not forgotten yet.
#[inline(never)]
fn exited(ctx: &RawTracePointContext) {
    let task: u64 = ctx.arg(0);
    let (tgid, tid) = kernel::current();
    state::forget(tid);
    copy::forget(tid);
    let signal: u64 = kernel::read(task, config!(task_signal));
    let live: u32 = kernel::read(signal, config!(signal_live));
    if live == 0 && (filter::wants_everybody() || filter::fulfils(tgid) != 0) {
        send_current(ProcessChange::Exit, tgid, tid, 0);
        filter::exits(tgid);
    }
}
twice!(#[raw_tracepoint(tracepoint = "sched_process_exit")] exited, exited_again: RawTracePointContext);

/// `TP_PROTO(struct task_struct *p)`, 6.1 to 7.3, include/trace/events/sched.h. A task that nobody waits for any more
/// is freed, in an RCU callback some time after its number was released (`release_task`, `delayed_put_task_struct`,
/// kernel/exit.c): another process may have the number by now. Such a callback is not preempted, and may run between
/// the two copies of a program of the current task: so this program is attached once. A leader is freed last of its
/// process, and keeps its number in `pid` and `tgid`.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn freed(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let tgid: u32 = kernel::read(task, config!(task_tgid));
    let tid: u32 = kernel::read(task, config!(task_pid));
    if tgid == tid {
        filter::bury(tgid);
    }
    0
}

/// `void mm_update_next_owner(struct mm_struct *mm)`, 6.1 to 7.3, kernel/exit.c: the current task is about to leave
/// `mm`, which may have no owner then.
#[inline(never)]
fn owner_leaves(ctx: &FEntryContext) {
    owner::remember(kernel::arg(ctx, 0));
}
twice!(#[fentry(function = "mm_update_next_owner")] owner_leaves, owner_leaves_again: FEntryContext);

/// Judges a process again. Returns the conditions that it fulfilled before, and those that it fulfils now.
#[inline(always)]
fn change(tgid: u32, leader: u64, comm: [u8; 16]) -> (u32, u32) {
    let had = filter::fulfils(tgid);
    let has = filter::judge(had & membership::LINEAGE, leader, comm);
    if had != has && !set(tgid, has) {
        return (had, had);
    }
    (had, has)
}

/// Sets the conditions that a process fulfils. Returns false, and counts a lost target, if there is no room.
#[inline(always)]
fn set(tgid: u32, membership: u32) -> bool {
    let room = filter::set(tgid, membership);
    if !room {
        counters::add(Counter::LostTargets, 1);
    }
    room
}

/// Sends the current task's name to user space.
#[inline(always)]
pub fn send_current(change: ProcessChange, tgid: u32, tid: u32, membership: u32) {
    send(change, tgid, tid, kernel::comm(), membership);
}

#[inline(always)]
fn send(change: ProcessChange, tgid: u32, tid: u32, comm: [u8; 16], membership: u32) {
    emit::process(ProcessSeen {
        change: change as u16,
        tgid,
        tid,
        at: kernel::now(),
        comm,
        membership,
        ..ProcessSeen::default()
    });
}
