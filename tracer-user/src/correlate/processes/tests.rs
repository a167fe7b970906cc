//! Tests of names and lives of processes, and of the set of wanted ones.
//! Input: made-up process events; this process and its threads in /proc.

use tracer_common::filter::membership;

use super::*;

fn seen(tgid: u32, parent_tgid: u32, name: &[u8]) -> ProcessSeen {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    ProcessSeen {
        tgid,
        tid: tgid,
        parent_tgid,
        comm,
        ..ProcessSeen::default()
    }
}

fn named(processes: &mut Processes, tgid: Tgid) -> Task {
    processes.living(tgid, Nanos(u64::MAX)).1
}

/// Above any pid_max, so that nothing is found in /proc.
const NOBODY: u32 = 5_000_000;

#[test]
fn a_reused_pid_is_another_process() {
    let mut processes = Processes::new(0, BTreeMap::new());
    processes.apply(ProcessChange::Fork, &seen(NOBODY, 1, b"first"));
    let first = processes.life(Tgid(NOBODY));
    assert!(!processes.ended(first));
    processes.apply(ProcessChange::Exit, &seen(NOBODY, 0, b"first"));
    assert!(processes.ended(first));
    processes.apply(ProcessChange::Fork, &seen(NOBODY, 1, b"second"));
    assert!(processes.ended(first));
    assert_eq!(named(&mut processes, Tgid(NOBODY)).comm.as_deref(), Some("second"));
}

#[test]
fn an_address_space_that_outlives_its_program_is_not_its_successors() {
    let mut processes = Processes::new(0, BTreeMap::new());
    let tgid = Tgid(NOBODY);
    processes.apply(ProcessChange::Fork, &seen(NOBODY, 1, b"first"));
    let exec = ProcessSeen {
        at: 10,
        ..seen(NOBODY, 0, b"second")
    };
    processes.apply(ProcessChange::Renamed, &exec);
    processes.apply(ProcessChange::Exec, &exec);
    let name = |processes: &mut Processes, at| processes.living(tgid, Nanos(at)).1.comm;
    assert_eq!(name(&mut processes, 9).as_deref(), Some("first"));
    assert_eq!(name(&mut processes, 10).as_deref(), Some("second"));
    let (life, task) = processes.leaving(tgid);
    assert_eq!(task.comm, None);
    assert!(processes.ended(life));
    processes.apply(ProcessChange::Exit, &seen(NOBODY, 0, b"second"));
    let (life, task) = processes.leaving(tgid);
    assert_eq!(task.comm.as_deref(), Some("second"));
    assert!(processes.ended(life));
    processes.apply(ProcessChange::Fork, &seen(NOBODY, 1, b"third"));
    let (life, task) = processes.leaving(tgid);
    assert_eq!(task.comm, None);
    assert!(processes.ended(life) && !processes.ended(processes.life(tgid)));
}

#[test]
fn the_kernel_says_who_is_wanted() {
    let (lineage, comm) = (membership::LINEAGE, membership::COMM);
    let (parent, child) = (Tgid(NOBODY), Tgid(NOBODY + 1));
    let mut processes = Processes::new(lineage | comm, BTreeMap::from([(parent, lineage | comm)]));
    let change = |membership, name| ProcessSeen {
        membership,
        ..seen(child.0, parent.0, name)
    };
    let fork = change(lineage | comm, b"wanted");
    assert!(processes.members.changes_wanted(ProcessChange::Fork, &fork));
    processes.apply(ProcessChange::Fork, &fork);
    assert!(processes.members.wants(child));
    let rename = change(lineage, b"other");
    assert!(processes.members.changes_wanted(ProcessChange::Renamed, &rename));
    processes.apply(ProcessChange::Renamed, &rename);
    assert!(!processes.members.wants(child));
    assert_eq!(named(&mut processes, child).comm.as_deref(), Some("other"));
    assert_eq!(processes.members.wanted().unwrap().collect::<Vec<_>>(), [parent]);
    assert!(!processes.members.changes_wanted(ProcessChange::Regrouped, &rename));
    assert!(
        processes
            .members
            .changes_wanted(ProcessChange::Exit, &seen(parent.0, 0, b""))
    );
    processes.apply(ProcessChange::Exit, &seen(parent.0, 0, b""));
    assert!(!processes.lineage_ended());
    processes.apply(ProcessChange::Exit, &change(0, b""));
    assert!(processes.lineage_ended());
}

#[test]
fn everybody_is_wanted_where_nothing_is_needed() {
    let processes = Processes::new(0, BTreeMap::new());
    assert!(
        processes.members.wants(Tgid(NOBODY)) && processes.members.wanted().is_none() && !processes.lineage_ended()
    );
}

/// A thread that can be read in /proc: this one.
fn own() -> (Tgid, Tid) {
    let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    (Tgid(std::process::id()), Tid(tid))
}

fn actor((tgid, tid): (Tgid, Tid), name: &[u8]) -> ProcessSeen {
    ProcessSeen {
        tid: tid.0,
        ..seen(tgid.0, 0, name)
    }
}

#[test]
fn a_name_holds_as_long_as_its_changes_are_told() {
    let (tgid, tid) = own();
    let name = |tid| proc::process::thread_comm(tgid, tid);
    let (real, first) = (name(tid), Tid(tgid.0));
    let mut everybody = Processes::new(0, BTreeMap::new());
    for (tid, aged) in [(tid, real.as_deref()), (first, Some("heard"))] {
        everybody.apply(ProcessChange::Actor, &actor((tgid, tid), b"heard"));
        assert_eq!(everybody.thread(tgid, tid).comm.as_deref(), Some("heard"));
        everybody.threads.age(tid);
        assert_eq!(everybody.thread(tgid, tid).comm.as_deref(), aged);
    }
    // The end of that process is not reported.
    let (tid, real) = (first, name(first));
    let mut some = Processes::new(membership::COMM, BTreeMap::new());
    some.apply(ProcessChange::Actor, &actor((tgid, tid), b"heard"));
    assert_eq!(some.thread(tgid, tid).comm.as_deref(), Some("heard"));
    some.threads.age(tid);
    assert_eq!(some.thread(tgid, tid).comm.as_deref(), real.as_deref());
    // The thread may have another name by now.
    let life = some.life(tgid);
    some.threads.name(tid, life, Some(Arc::from("read")), false);
    assert_eq!(some.thread(tgid, tid).comm.as_deref(), Some("read"));
    some.threads.age(tid);
    assert_eq!(some.thread(tgid, tid).comm.as_deref(), real.as_deref());
}

#[test]
fn a_thread_number_used_again_has_not_its_predecessors_name() {
    let mut processes = Processes::new(0, BTreeMap::new());
    let (tgid, tid) = (Tgid(NOBODY), Tid(NOBODY + 1));
    processes.apply(ProcessChange::Actor, &actor((tgid, tid), b"first"));
    assert_eq!(processes.thread(tgid, tid).comm.as_deref(), Some("first"));
    // The thread is another process's; or the same process's, made anew.
    assert_eq!(processes.thread(Tgid(NOBODY + 2), tid).comm, None);
    processes.apply(ProcessChange::Fork, &seen(NOBODY, 1, b"second"));
    assert_eq!(processes.thread(tgid, tid).comm, None);
}

#[test]
fn a_thread_that_has_ended_keeps_its_last_name() {
    let mut some = Processes::new(membership::COMM, BTreeMap::new());
    let (tgid, tid) = (Tgid(NOBODY), Tid(NOBODY));
    some.apply(ProcessChange::Actor, &actor((tgid, tid), b"last"));
    some.threads.age(tid);
    assert_eq!(some.thread(tgid, tid).comm.as_deref(), Some("last"));
}
