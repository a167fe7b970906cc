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
fn a_name_whose_changes_are_merged_is_read_when_they_are_over() {
    let (tgid, _) = own();
    let real = proc::process::comm(tgid);
    let mut everybody = Processes::new(0, BTreeMap::new());
    let last = |tgid: Tgid, at| ProcessSeen {
        at,
        flags: process_flags::MERGES,
        ..seen(tgid.0, 0, b"last")
    };
    everybody.apply(ProcessChange::Renamed, &last(tgid, 50));
    let over = 50 + WINDOW;
    let name = |processes: &mut Processes, tgid, at| processes.living(tgid, Nanos(at)).1.comm;
    assert_eq!(name(&mut everybody, tgid, over - 1).as_deref(), Some("last"));
    assert_eq!(name(&mut everybody, tgid, over).as_deref(), real.as_deref());
    // A move of before comes late.
    assert_eq!(name(&mut everybody, tgid, over - 1).as_deref(), Some("last"));
    // A later rename is reported.
    everybody.apply(ProcessChange::Renamed, &last(tgid, over));
    let again = ProcessSeen {
        at: over + WINDOW,
        ..seen(tgid.0, 0, b"again")
    };
    everybody.apply(ProcessChange::Renamed, &again);
    assert_eq!(name(&mut everybody, tgid, u64::MAX).as_deref(), Some("again"));
    // A program that starts meanwhile may be renamed, too.
    everybody.apply(ProcessChange::Renamed, &last(tgid, over));
    everybody.apply(ProcessChange::Exec, &ProcessSeen { at: over + 1, ..again });
    assert_eq!(name(&mut everybody, tgid, u64::MAX).as_deref(), real.as_deref());
    // A process that is gone keeps the last name that is known.
    everybody.apply(ProcessChange::Renamed, &last(Tgid(NOBODY), 50));
    assert_eq!(name(&mut everybody, Tgid(NOBODY), u64::MAX).as_deref(), Some("last"));
}

#[test]
fn the_name_of_a_thread_whose_renames_are_merged_is_read_again() {
    let (tgid, tid) = own();
    let first = Tid(tgid.0);
    let mut everybody = Processes::new(0, BTreeMap::new());
    let last = ProcessSeen {
        at: 50,
        flags: process_flags::MERGES,
        ..seen(tgid.0, 0, b"last")
    };
    everybody.apply(ProcessChange::Renamed, &last);
    everybody.apply(ProcessChange::Renamed, &ProcessSeen { tid: tid.0, ..last });
    // It moves pages for the first time while its renames are merged.
    everybody.apply(ProcessChange::Actor, &actor((tgid, first), b"first"));
    for (tid, known) in [(first, "first"), (tid, "last")] {
        assert_eq!(everybody.thread(tgid, tid).comm.as_deref(), Some(known));
        everybody.threads.age(tid);
        let real = proc::process::thread_comm(tgid, tid);
        assert_eq!(everybody.thread(tgid, tid).comm.as_deref(), real.as_deref());
    }
}

#[test]
fn conditions_whose_changes_are_merged_are_read_when_they_are_over() {
    let comm = membership::COMM;
    let tgid = Tgid(NOBODY);
    let mut processes = Processes::new(comm, BTreeMap::from([(tgid, comm)]));
    let last = ProcessSeen {
        at: 50,
        flags: process_flags::MERGES,
        ..seen(NOBODY, 0, b"other")
    };
    processes.apply(ProcessChange::Renamed, &last);
    assert!(!processes.members.wants(tgid));
    let over = 50 + WINDOW;
    assert_eq!(processes.merged(Nanos(over - 1)).count(), 0);
    assert_eq!(processes.merged(Nanos(over)).collect::<Vec<_>>(), [tgid]);
    assert_eq!(processes.merged(Nanos(over)).count(), 0);
    processes.set_member(tgid, comm);
    assert!(processes.members.wants(tgid));
    processes.apply(ProcessChange::Exit, &seen(NOBODY, 0, b"other"));
    processes.set_member(tgid, comm | membership::EXITED);
    assert!(!processes.members.wants(tgid));
    // Nobody asks for conditions that are not requested.
    let mut everybody = Processes::new(0, BTreeMap::new());
    everybody.apply(ProcessChange::Renamed, &last);
    assert_eq!(everybody.merged(Nanos(u64::MAX)).count(), 0);
}

#[test]
fn after_a_loss_nothing_of_before_is_believed() {
    let (tgid, tid) = own();
    let real = proc::process::comm(tgid);
    let comm = membership::COMM;
    let mut processes = Processes::new(comm, BTreeMap::from([(Tgid(NOBODY), comm)]));
    processes.apply(ProcessChange::Renamed, &seen(tgid.0, 0, b"heard"));
    processes.apply(ProcessChange::Actor, &actor((tgid, tid), b"heard"));
    processes.apply(ProcessChange::Exit, &seen(NOBODY, 0, b"gone"));
    let lives = [tgid, Tgid(NOBODY)].map(|tgid| processes.life(tgid));
    processes.begin_again(BTreeMap::from([(tgid, comm)]));
    assert!(lives.iter().all(|life| processes.ended(*life)));
    assert_eq!(named(&mut processes, tgid).comm.as_deref(), real.as_deref());
    let thread = proc::process::thread_comm(tgid, tid);
    assert_eq!(processes.thread(tgid, tid).comm.as_deref(), thread.as_deref());
    // A process may have the number of one that has ended.
    let now = processes.life(Tgid(NOBODY));
    assert!(!processes.ended(now));
    assert_eq!(processes.members().collect::<Vec<_>>(), [tgid]);
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
