//! Names of processes and threads, and the lives of PIDs that are used again.
//! Input: process events in the order of their time; /proc for those that were there before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tracer_common::{
    event::{ProcessChange, ProcessSeen, process_flags},
    filter::membership,
    renames::WINDOW,
};

use crate::{
    correlate::{life::Life, members::Members, strings::Strings, threads::Threads},
    event::Task,
    proc,
    units::{Nanos, Tgid, Tid},
};

/// The limit of kept processes. When it is reached, those that have exited are forgotten.
const MAX_PROCESSES: usize = 1 << 16;
/// A name that could not be read is not asked for again for events of this time: nanoseconds.
const UNNAMED: u64 = 1_000_000_000;

#[derive(Default)]
struct Process {
    comm: Option<Arc<str>>,
    /// Its name before that, until `named_at`.
    comm_before: Option<Arc<str>>,
    /// The time at which it got its name; zero if that was before the run.
    named_at: Nanos,
    /// The time of the event for which its name could not be read.
    unnamed_at: Option<Nanos>,
    /// Until this time its renames may not be reported: then its name is read.
    merges_until: Option<Nanos>,
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

    /// Whether there is no name, and one may be found for an event of that time.
    fn lacks_name(&self, at: Nanos) -> bool {
        let asked = self
            .unnamed_at
            .is_some_and(|asked| at.0 <= asked.0.saturating_add(UNNAMED));
        self.comm.is_none() && !asked
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
    /// Processes whose renames may not be reported until that time, and with them the conditions that they fulfil.
    merging: Vec<(Nanos, Tgid)>,
    /// The number of processes that were kept when those that have exited were forgotten last.
    kept: usize,
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
                    unnamed_at: None,
                    merges_until: None,
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
                self.name_thread(seen, comm);
                self.members.set(tgid, seen.membership);
                Some(tgid)
            }
            ProcessChange::Renamed => {
                if tid.0 == tgid.0 {
                    let until = merges(seen).then(|| Nanos(seen.at.saturating_add(WINDOW)));
                    let process = self.by_tgid.entry(tgid).or_default();
                    process.rename(comm.clone(), Nanos(seen.at));
                    process.merges_until = until;
                    self.members.set(tgid, seen.membership);
                    let judged = until.filter(|_| self.members.wanted().is_some());
                    self.merging.extend(judged.map(|until| (until, tgid)));
                }
                self.name_thread(seen, comm);
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
                self.name_thread(seen, comm);
                None
            }
        }
    }

    /// Takes in the name of a thread. If its changes may not be reported, it is like one from /proc.
    fn name_thread(&mut self, seen: &ProcessSeen, comm: Option<Arc<str>>) {
        let tgid = Tgid(seen.tgid);
        let process = self.by_tgid.get(&tgid).filter(|_| seen.tid == seen.tgid);
        let until = process.and_then(|process| process.merges_until);
        let heard = !merges(seen) && until.is_none_or(|until| until.0 <= seen.at);
        self.threads.name(Tid(seen.tid), self.life(tgid), comm, heard);
    }

    /// Begins again with what is known of processes, because events about some were lost. `members` has the conditions that
    /// each process fulfils now.
    pub fn begin_again(&mut self, members: BTreeMap<Tgid, u32>) {
        for process in self.by_tgid.values_mut() {
            *process = Process {
                generation: process.generation + 1,
                ..Process::default()
            };
        }
        self.members.replace(members);
        self.merging.clear();
    }

    /// Takes out the processes whose renames have not been reported, all of which were before `now`: what they fulfil
    /// may have changed.
    pub fn merged(&mut self, now: Nanos) -> impl Iterator<Item = Tgid> + use<> {
        let over = self.merging.extract_if(.., |(until, _)| *until <= now);
        over.map(|(_, tgid)| tgid).collect::<Vec<_>>().into_iter()
    }

    /// Takes in the conditions that a process fulfils, as the kernel side has them, unless it is ending.
    pub fn set_member(&mut self, tgid: Tgid, bits: u32) {
        if bits & membership::EXITED == 0 {
            self.members.set(tgid, bits);
        }
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
        let process = self.known(tgid, Nanos(0));
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
        let process = self.known(tgid, at);
        (process.life(tgid), task(tgid, process.comm_at(at)))
    }

    /// The process, with the name that it had at that time if that can be read.
    fn known(&mut self, tgid: Tgid, at: Nanos) -> &Process {
        let process = self.by_tgid.entry(tgid).or_default();
        let merged = process.merges_until.take_if(|until| *until <= at);
        if (process.lacks_name(at) || merged.is_some()) && !process.exited {
            // A process that was not heard of may have ended since, and another one have its number.
            let read = match (merged, at) {
                (Some(_), _) | (None, Nanos(0)) => proc::process::comm(tgid),
                (None, at) => proc::process::comm_of_life(tgid, at),
            };
            let comm = read.map(|comm| self.strings.share(&comm));
            if let Some(until) = merged {
                // The last name remains to a process that is gone.
                process.rename(comm.or(process.comm.clone()), until);
            } else {
                process.unnamed_at = comm.is_none().then_some(at);
                process.comm = comm;
            }
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
        // A later life needs the generation of an earlier one, so processes are kept until the table is large; and as
        // many again if most of them live, because to go through them takes time.
        if self.by_tgid.len() > MAX_PROCESSES.max(2 * self.kept) {
            self.by_tgid
                .retain(|_, process| !process.exited && process.comm.is_some());
            self.kept = self.by_tgid.len();
        }
    }
}

/// Whether the next renames of the thread may not be reported.
fn merges(seen: &ProcessSeen) -> bool {
    seen.flags & process_flags::MERGES != 0
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
