//! Names of processes and threads, and the lives of PIDs that are used again.
//! Input: process events in the order of the ring; /proc for those that were there before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tracer_common::event::{ProcessChange, ProcessSeen};

use crate::{
    correlate::{life::Life, members::Members, strings::Strings, threads::Threads},
    event::Task,
    proc,
    units::{Nanos, Tgid, Tid},
};

/// The limit of kept processes. When it is reached, those that have exited are forgotten.
const MAX_PROCESSES: usize = 1 << 16;

#[derive(Default)]
struct Process {
    comm: Option<Arc<str>>,
    /// Its name before that, until `named_at`.
    comm_before: Option<Arc<str>>,
    /// The time at which it got its name; zero if that was before the run.
    named_at: Nanos,
    generation: u32,
    born: Nanos,
    exited: bool,
}

impl Process {
    /// Nothing changes if it has that name already.
    fn rename(&mut self, comm: Option<Arc<str>>, at: Nanos) {
        if self.comm != comm {
            self.comm_before = std::mem::replace(&mut self.comm, comm);
            self.named_at = at;
        }
    }

    fn life(&self, tgid: Tgid) -> Life {
        Life {
            tgid,
            generation: self.generation,
            born: self.born,
        }
    }

    /// The name that it had at that time.
    fn comm_at(&self, at: Nanos) -> Option<&Arc<str>> {
        let comm = if at < self.named_at {
            &self.comm_before
        } else {
            &self.comm
        };
        comm.as_ref()
    }
}

/// Every known process and thread.
#[derive(Default)]
pub struct Processes {
    by_tgid: HashMap<Tgid, Process>,
    threads: Threads,
    pub(super) members: Members,
    strings: Strings,
}

impl Processes {
    /// `need` has the conditions of a wanted process, bits of [`tracer_common::filter::membership`]; `members` has
    /// those that each process fulfils at the begin.
    #[must_use]
    pub fn new(need: u32, members: BTreeMap<Tgid, u32>) -> Self {
        Self {
            members: Members::new(need, members),
            ..Self::default()
        }
    }

    /// Takes in a process event. Returns the PID if the process has another address space now.
    pub fn apply(&mut self, change: ProcessChange, seen: &ProcessSeen) -> Option<Tgid> {
        let (tgid, tid) = (Tgid(seen.tgid), Tid(seen.tid));
        let comm = self.strings.share_padded(&seen.comm);
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
                self.threads.forget(tid);
                self.members.set(tgid, seen.membership);
                Some(tgid)
            }
            ProcessChange::Exec => {
                let process = self.by_tgid.entry(tgid).or_default();
                // The kernel renames it first, and reports that.
                process.rename(comm.clone(), Nanos(seen.at));
                process.generation += 1;
                process.exited = false;
                self.threads.forget(tid);
                self.name_thread(tgid, tid, comm);
                self.members.set(tgid, seen.membership);
                Some(tgid)
            }
            ProcessChange::Renamed => {
                if tid.0 == tgid.0 {
                    let process = self.by_tgid.entry(tgid).or_default();
                    process.rename(comm.clone(), Nanos(seen.at));
                    self.members.set(tgid, seen.membership);
                }
                self.name_thread(tgid, tid, comm);
                None
            }
            ProcessChange::Regrouped => {
                self.members.set(tgid, seen.membership);
                None
            }
            ProcessChange::Exit => {
                let process = self.by_tgid.entry(tgid).or_default();
                process.exited = true;
                process.generation += 1;
                self.threads.forget(tid);
                self.members.remove(tgid);
                Some(tgid)
            }
            ProcessChange::Actor => {
                self.name_thread(tgid, tid, comm);
                None
            }
        }
    }

    fn name_thread(&mut self, tgid: Tgid, tid: Tid, comm: Option<Arc<str>>) {
        self.threads.name(tid, self.life(tgid), comm, true);
    }

    /// The processes that fulfil some of the requested conditions.
    pub fn members(&self) -> impl Iterator<Item = Tgid> {
        self.members.iter()
    }

    /// Drops a process whose end no event has reported.
    pub fn drop_member(&mut self, tgid: Tgid) {
        self.members.remove(tgid);
    }

    /// Whether processes were requested by number, and all of them have ended, with their children.
    #[must_use]
    pub fn lineage_ended(&self) -> bool {
        self.members.lineage_ended()
    }

    /// The present life of the PID.
    #[must_use]
    pub fn life(&self, tgid: Tgid) -> Life {
        let unknown = Life {
            tgid,
            generation: 0,
            born: Nanos(0),
        };
        self.by_tgid.get(&tgid).map_or(unknown, |process| process.life(tgid))
    }

    /// Whether this life is over.
    #[must_use]
    pub fn ended(&self, life: Life) -> bool {
        self.by_tgid
            .get(&life.tgid)
            .is_some_and(|process| process.generation != life.generation || process.exited)
    }

    /// The life whose address space has no owner any more, and its name. An address space may outlive its process, and
    /// its program, while something else holds it. If the PID has begun a new life meanwhile, or its end is about to be
    /// reported, the owner cannot be known.
    pub fn leaving(&mut self, tgid: Tgid) -> (Life, Task) {
        let process = self.known(tgid);
        let life = process.life(tgid);
        if process.exited || process.generation == 0 {
            return (life, task(tgid, process.comm.as_ref()));
        }
        let before = Life {
            generation: life.generation - 1,
            ..life
        };
        (before, task(tgid, None))
    }

    /// The present life of the PID, and the process with its name at that time.
    pub fn living(&mut self, tgid: Tgid, at: Nanos) -> (Life, Task) {
        let process = self.known(tgid);
        (process.life(tgid), task(tgid, process.comm_at(at)))
    }

    /// The process, with its name if that can be read.
    fn known(&mut self, tgid: Tgid) -> &Process {
        let process = self.by_tgid.entry(tgid).or_default();
        if process.comm.is_none() && !process.exited {
            let comm = proc::process::comm(tgid);
            process.comm = comm.map(|comm| self.strings.share(&comm));
        }
        process
    }

    /// The thread with its name.
    pub fn thread(&mut self, tgid: Tgid, tid: Tid) -> Task {
        let (life, followed) = (self.life(tgid), self.members.follows(tgid));
        let comm = self.threads.comm(tid, life, followed, &mut self.strings);
        Task { tgid, tid, comm }
    }

    /// Forgets the processes that have exited; their last moves have been named.
    pub fn bury(&mut self) {
        // A later life needs the generation of an earlier one, so processes are kept until the table is large.
        if self.by_tgid.len() > MAX_PROCESSES {
            self.by_tgid.retain(|_, process| !process.exited);
        }
    }
}

fn task(tgid: Tgid, comm: Option<&Arc<str>>) -> Task {
    Task {
        tgid,
        tid: Tid(tgid.0),
        comm: comm.cloned(),
    }
}

#[cfg(test)]
mod tests;
