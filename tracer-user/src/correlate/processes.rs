//! Who is who: names of processes and threads, and which life of a reused PID is meant.
//! Input: process events in the order of the ring; /proc for those that were there before.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use tracer_common::{
    event::{ProcessChange, ProcessSeen},
    filter::membership,
};

use crate::{
    event::Task,
    units::{Nanos, Tgid, Tid},
};

/// Threads whose names are kept; beyond it all are forgotten and read again.
const MAX_THREADS: usize = 1 << 16;
/// How long a thread's name holds whose changes nobody tells.
const NAME_AGE: Duration = Duration::from_secs(1);

/// A process as it was at one moment: a PID that is used again, or that runs another program, has
/// another address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    /// The process.
    pub tgid: Tgid,
    /// Counts the forks and execs seen under this PID.
    pub generation: u32,
    /// When it was forked; zero: before anybody looked.
    pub born: Nanos,
}

#[derive(Default)]
struct Process {
    comm: Option<Arc<str>>,
    /// Its name before that, until `named_at`.
    comm_before: Option<Arc<str>>,
    /// When it got its name; zero: before anybody looked.
    named_at: Nanos,
    generation: u32,
    born: Nanos,
    exited: bool,
}

impl Process {
    /// Nothing happens where it is called so already.
    fn rename(&mut self, comm: Option<Arc<str>>, at: Nanos) {
        if self.comm != comm {
            self.comm_before = std::mem::replace(&mut self.comm, comm);
            self.named_at = at;
        }
    }
}

/// A thread's name.
struct Thread {
    comm: Arc<str>,
    /// Whose it is.
    tgid: Tgid,
    /// Of that process, as in [`Life`].
    generation: u32,
    /// The kernel side said it; else it is from /proc.
    heard: bool,
    /// When that was.
    since: Instant,
}

/// Every process and thread heard of.
#[derive(Default)]
pub struct Processes {
    by_tgid: HashMap<Tgid, Process>,
    threads: HashMap<Tid, Thread>,
    /// What a wanted owner fulfils, bits of [`membership`]; 0: everybody is wanted.
    need: u32,
    /// What each process fulfils, as the kernel side says; those that fulfil nothing are not in it.
    members: BTreeMap<Tgid, u32>,
}

impl Processes {
    /// `need`: what makes a process wanted, bits of [`membership`]; `members`: what each fulfils at the begin.
    #[must_use]
    pub fn new(need: u32, members: BTreeMap<Tgid, u32>) -> Self {
        Self {
            need,
            members,
            ..Self::default()
        }
    }

    /// Whether this change makes a process wanted that was not, or the other way round.
    #[must_use]
    pub fn changes_wanted(&self, change: ProcessChange, seen: &ProcessSeen) -> bool {
        match change {
            ProcessChange::Fork | ProcessChange::Exec | ProcessChange::Renamed | ProcessChange::Regrouped => {
                self.wants(Tgid(seen.tgid)) != self.suffices(seen.membership)
            }
            ProcessChange::Exit => self.need != 0 && self.wants(Tgid(seen.tgid)),
            ProcessChange::Actor => false,
        }
    }

    /// Takes in what happened to a process. Returns its PID if its address space is another one now.
    pub fn apply(&mut self, change: ProcessChange, seen: &ProcessSeen) -> Option<Tgid> {
        let (tgid, tid) = (Tgid(seen.tgid), Tid(seen.tid));
        let comm = text(&seen.comm);
        match change {
            ProcessChange::Fork => {
                let process = self.by_tgid.entry(tgid).or_default();
                *process = Process {
                    comm,
                    comm_before: None,
                    named_at: Nanos(seen.at),
                    generation: process.generation + 1,
                    born: Nanos(seen.at),
                    exited: false,
                };
                self.threads.remove(&tid);
                self.set_membership(tgid, seen.membership);
                Some(tgid)
            }
            ProcessChange::Exec => {
                let process = self.by_tgid.entry(tgid).or_default();
                // The kernel renames it first, and says so.
                process.rename(comm.clone(), Nanos(seen.at));
                process.generation += 1;
                process.exited = false;
                self.threads.remove(&tid);
                self.name_thread(tgid, tid, comm, true);
                self.set_membership(tgid, seen.membership);
                Some(tgid)
            }
            ProcessChange::Renamed => {
                if tid.0 == tgid.0 {
                    self.by_tgid
                        .entry(tgid)
                        .or_default()
                        .rename(comm.clone(), Nanos(seen.at));
                    self.set_membership(tgid, seen.membership);
                }
                self.name_thread(tgid, tid, comm, true);
                None
            }
            ProcessChange::Regrouped => {
                self.set_membership(tgid, seen.membership);
                None
            }
            ProcessChange::Exit => {
                let process = self.by_tgid.entry(tgid).or_default();
                process.exited = true;
                process.generation += 1;
                self.threads.remove(&tid);
                self.members.remove(&tgid);
                Some(tgid)
            }
            ProcessChange::Actor => {
                self.name_thread(tgid, tid, comm, true);
                None
            }
        }
    }

    fn set_membership(&mut self, tgid: Tgid, bits: u32) {
        if bits == 0 {
            self.members.remove(&tgid);
        } else {
            self.members.insert(tgid, bits);
        }
    }

    fn suffices(&self, bits: u32) -> bool {
        bits & self.need == self.need
    }

    /// Whether this process's moves are wanted.
    #[must_use]
    pub fn wants(&self, tgid: Tgid) -> bool {
        self.suffices(self.members.get(&tgid).copied().unwrap_or(0))
    }

    /// The wanted processes that live; None: everybody.
    #[must_use]
    pub fn wanted(&self) -> Option<impl Iterator<Item = Tgid>> {
        (self.need != 0).then(|| {
            let members = self.members.iter();
            members.filter(|(_, bits)| self.suffices(**bits)).map(|(tgid, _)| *tgid)
        })
    }

    /// The processes that fulfil something of what is needed.
    pub fn members(&self) -> impl Iterator<Item = Tgid> {
        self.members.keys().copied()
    }

    /// Whether processes were asked for by number, and all of them have ended, with their children.
    #[must_use]
    pub fn lineage_ended(&self) -> bool {
        self.need & membership::LINEAGE != 0 && !self.members.values().any(|bits| bits & membership::LINEAGE != 0)
    }

    /// Drops a process that is gone without an event having said so.
    pub fn drop_member(&mut self, tgid: Tgid) {
        self.members.remove(&tgid);
    }

    /// The life that the PID stands for now.
    #[must_use]
    pub fn life(&self, tgid: Tgid) -> Life {
        let process = self.by_tgid.get(&tgid);
        Life {
            tgid,
            generation: process.map_or(0, |process| process.generation),
            born: process.map_or(Nanos(0), |process| process.born),
        }
    }

    /// Whether this life is over.
    #[must_use]
    pub fn ended(&self, life: Life) -> bool {
        self.by_tgid
            .get(&life.tgid)
            .is_some_and(|process| process.generation != life.generation || process.exited)
    }

    /// The life whose address space has no owner any more, and its name. An address space may outlive its process, and its
    /// program, while somebody else holds it: under a PID that has begun anew meanwhile, or will be said to have ended in
    /// a moment, nobody can say whose it was.
    pub fn leaving(&mut self, tgid: Tgid) -> (Life, Task) {
        let life = self.life(tgid);
        let task = self.process(tgid);
        match self.by_tgid.get(&tgid) {
            Some(process) if !process.exited && process.generation > 0 => {
                let before = Life {
                    generation: life.generation - 1,
                    ..life
                };
                (before, Task { comm: None, ..task })
            }
            _ => (life, task),
        }
    }

    /// The process by the name that it had then.
    pub fn process_at(&mut self, tgid: Tgid, at: Nanos) -> Task {
        let task = self.process(tgid);
        match self.by_tgid.get(&tgid) {
            Some(process) if at < process.named_at => Task {
                comm: process.comm_before.clone(),
                ..task
            },
            _ => task,
        }
    }

    /// The process by name.
    pub fn process(&mut self, tgid: Tgid) -> Task {
        let process = self.by_tgid.entry(tgid).or_default();
        if process.comm.is_none() && !process.exited {
            process.comm = read_comm(&format!("/proc/{tgid}/comm"));
        }
        Task {
            tgid,
            tid: Tid(tgid.0),
            comm: process.comm.clone(),
        }
    }

    /// The thread by name.
    pub fn thread(&mut self, tgid: Tgid, tid: Tid) -> Task {
        let Life { generation, .. } = self.life(tgid);
        // What is not a process's first thread, or of a process that nobody follows, ends without a word, and its number may
        // be another's.
        let followed = tid.0 == tgid.0 && (self.need == 0 || self.members.contains_key(&tgid));
        let known = self.threads.get_mut(&tid);
        let known = known.filter(|thread| thread.tgid == tgid && thread.generation == generation);
        let holds = |thread: &&mut Thread| (thread.heard && followed) || thread.since.elapsed() < NAME_AGE;
        let comm = match known {
            Some(thread) if holds(&thread) => Some(thread.comm.clone()),
            known => match read_comm(&format!("/proc/{tgid}/task/{tid}/comm")) {
                Some(comm) => {
                    self.name_thread(tgid, tid, Some(comm.clone()), false);
                    Some(comm)
                }
                // It has ended: that was its last name.
                None => known.map(|thread| {
                    thread.since = Instant::now();
                    thread.comm.clone()
                }),
            },
        };
        Task { tgid, tid, comm }
    }

    fn name_thread(&mut self, tgid: Tgid, tid: Tid, comm: Option<Arc<str>>, heard: bool) {
        let Some(comm) = comm else { return };
        if self.threads.len() >= MAX_THREADS {
            self.threads.clear();
        }
        let thread = Thread {
            comm,
            tgid,
            generation: self.life(tgid).generation,
            heard,
            since: Instant::now(),
        };
        self.threads.insert(tid, thread);
    }

    /// Forgets the processes that have exited; their last moves have been named.
    pub fn bury(&mut self) {
        // The generation must survive as long as a later life may come: kept until the table is large.
        if self.by_tgid.len() > MAX_THREADS {
            self.by_tgid.retain(|_, process| !process.exited);
        }
    }
}

/// A NUL-padded name of the wire; None: it is empty.
pub(super) fn text(bytes: &[u8]) -> Option<Arc<str>> {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    (!text.is_empty()).then(|| Arc::from(String::from_utf8_lossy(text)))
}

fn read_comm(path: &str) -> Option<Arc<str>> {
    let bytes = fs::read(path).ok()?;
    Some(Arc::from(String::from_utf8_lossy(
        bytes.strip_suffix(b"\n").unwrap_or(&bytes),
    )))
}

#[cfg(test)]
mod tests {
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
        assert_eq!(processes.process(Tgid(NOBODY)).comm.as_deref(), Some("second"));
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
        let name = |processes: &mut Processes, at| processes.process_at(tgid, Nanos(at)).comm;
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
        assert!(processes.changes_wanted(ProcessChange::Fork, &fork));
        processes.apply(ProcessChange::Fork, &fork);
        assert!(processes.wants(child));
        let rename = change(lineage, b"other");
        assert!(processes.changes_wanted(ProcessChange::Renamed, &rename));
        processes.apply(ProcessChange::Renamed, &rename);
        assert!(!processes.wants(child));
        assert_eq!(processes.process(child).comm.as_deref(), Some("other"));
        assert_eq!(processes.wanted().unwrap().collect::<Vec<_>>(), [parent]);
        assert!(!processes.changes_wanted(ProcessChange::Regrouped, &rename));
        assert!(processes.changes_wanted(ProcessChange::Exit, &seen(parent.0, 0, b"")));
        processes.apply(ProcessChange::Exit, &seen(parent.0, 0, b""));
        assert!(!processes.lineage_ended());
        processes.apply(ProcessChange::Exit, &change(0, b""));
        assert!(processes.lineage_ended());
    }

    #[test]
    fn everybody_is_wanted_where_nothing_is_needed() {
        let processes = Processes::new(0, BTreeMap::new());
        assert!(processes.wants(Tgid(NOBODY)) && processes.wanted().is_none() && !processes.lineage_ended());
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

    impl Processes {
        fn age(&mut self, tid: Tid) {
            let thread = self.threads.get_mut(&tid).unwrap();
            thread.since = thread.since.checked_sub(NAME_AGE).unwrap();
        }
    }

    #[test]
    fn a_name_holds_as_long_as_its_changes_are_told() {
        let (tgid, tid) = own();
        let name = |tid| read_comm(&format!("/proc/{tgid}/task/{tid}/comm"));
        let (real, first) = (name(tid), Tid(tgid.0));
        let mut everybody = Processes::new(0, BTreeMap::new());
        for (tid, aged) in [(tid, real.as_deref()), (first, Some("heard"))] {
            everybody.apply(ProcessChange::Actor, &actor((tgid, tid), b"heard"));
            assert_eq!(everybody.thread(tgid, tid).comm.as_deref(), Some("heard"));
            everybody.age(tid);
            assert_eq!(everybody.thread(tgid, tid).comm.as_deref(), aged);
        }
        // Nobody says when that process ends.
        let (tid, real) = (first, name(first));
        let mut some = Processes::new(membership::COMM, BTreeMap::new());
        some.apply(ProcessChange::Actor, &actor((tgid, tid), b"heard"));
        assert_eq!(some.thread(tgid, tid).comm.as_deref(), Some("heard"));
        some.age(tid);
        assert_eq!(some.thread(tgid, tid).comm, real);
        // What was read may be another name by now.
        some.name_thread(tgid, tid, Some(Arc::from("read")), false);
        assert_eq!(some.thread(tgid, tid).comm.as_deref(), Some("read"));
        some.age(tid);
        assert_eq!(some.thread(tgid, tid).comm, real);
    }

    #[test]
    fn a_thread_number_used_again_has_not_its_predecessors_name() {
        let mut processes = Processes::new(0, BTreeMap::new());
        let (tgid, tid) = (Tgid(NOBODY), Tid(NOBODY + 1));
        processes.apply(ProcessChange::Actor, &actor((tgid, tid), b"first"));
        assert_eq!(processes.thread(tgid, tid).comm.as_deref(), Some("first"));
        // Of another process; of the same, which was made anew.
        assert_eq!(processes.thread(Tgid(NOBODY + 2), tid).comm, None);
        processes.apply(ProcessChange::Fork, &seen(NOBODY, 1, b"second"));
        assert_eq!(processes.thread(tgid, tid).comm, None);
    }

    #[test]
    fn a_thread_that_has_ended_keeps_its_last_name() {
        let mut some = Processes::new(membership::COMM, BTreeMap::new());
        let (tgid, tid) = (Tgid(NOBODY), Tid(NOBODY));
        some.apply(ProcessChange::Actor, &actor((tgid, tid), b"last"));
        some.age(tid);
        assert_eq!(some.thread(tgid, tid).comm.as_deref(), Some("last"));
    }
}
