//! Who is who: names of processes and threads, and which life of a reused PID is meant.
//! Input: process events in the order of the ring; /proc for those that were there before.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    sync::Arc,
};

use tracer_common::event::{ProcessChange, ProcessSeen};

use crate::{
    event::Task,
    units::{Nanos, Tgid, Tid},
};

/// Threads whose names are kept; beyond it all are forgotten and read again.
const MAX_THREADS: usize = 1 << 16;

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
    generation: u32,
    born: Nanos,
    exited: bool,
}

/// Every process and thread heard of.
#[derive(Default)]
pub struct Processes {
    by_tgid: HashMap<Tgid, Process>,
    threads: HashMap<Tid, Arc<str>>,
    /// Processes whose moves are wanted; None: everybody's.
    targets: Option<BTreeSet<Tgid>>,
    follow: bool,
}

impl Processes {
    /// `targets`: whose moves are wanted, with (`follow`) the children they fork from now on.
    #[must_use]
    pub fn new(targets: Option<BTreeSet<Tgid>>, follow: bool) -> Self {
        Self {
            targets,
            follow,
            ..Self::default()
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
                    generation: process.generation + 1,
                    born: Nanos(seen.at),
                    exited: false,
                };
                let parent = Tgid(seen.parent_tgid);
                if let Some(targets) = self
                    .targets
                    .as_mut()
                    .filter(|targets| self.follow && targets.contains(&parent))
                {
                    targets.insert(tgid);
                }
                Some(tgid)
            }
            ProcessChange::Exec => {
                let process = self.by_tgid.entry(tgid).or_default();
                *process = Process {
                    comm: comm.clone(),
                    generation: process.generation + 1,
                    born: process.born,
                    exited: false,
                };
                self.threads.remove(&tid);
                if let Some(comm) = comm {
                    self.threads.insert(tid, comm);
                }
                Some(tgid)
            }
            ProcessChange::Exit => {
                let process = self.by_tgid.entry(tgid).or_default();
                process.exited = true;
                process.generation += 1;
                self.threads.remove(&tid);
                if let Some(targets) = &mut self.targets {
                    targets.remove(&tgid);
                }
                Some(tgid)
            }
            ProcessChange::Actor => {
                if self.threads.len() >= MAX_THREADS {
                    self.threads.clear();
                }
                if let Some(comm) = comm {
                    self.threads.insert(tid, comm);
                }
                None
            }
        }
    }

    /// One more wanted process.
    pub fn add_target(&mut self, tgid: Tgid) {
        if let Some(targets) = &mut self.targets {
            targets.insert(tgid);
        }
    }

    /// The wanted processes that live; None: everybody.
    #[must_use]
    pub fn targets(&self) -> Option<&BTreeSet<Tgid>> {
        self.targets.as_ref()
    }

    /// Drops a target that is gone without an event having said so.
    pub fn drop_target(&mut self, tgid: Tgid) {
        if let Some(targets) = &mut self.targets {
            targets.remove(&tgid);
        }
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
        if !self.threads.contains_key(&tid)
            && let Some(comm) = read_comm(&format!("/proc/{tgid}/task/{tid}/comm"))
        {
            self.threads.insert(tid, comm);
        }
        Task {
            tgid,
            tid,
            comm: self.threads.get(&tid).cloned(),
        }
    }

    /// Forgets the processes that have exited; their last moves have been named.
    pub fn bury(&mut self) {
        // The generation must survive as long as a later life may come: kept until the table is large.
        if self.by_tgid.len() > MAX_THREADS {
            self.by_tgid.retain(|_, process| !process.exited);
        }
    }
}

/// A name as the kernel sends it: bytes up to the first NUL.
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
        let mut processes = Processes::new(None, true);
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
    fn targets_follow_forks_only_when_asked() {
        let parent = Tgid(NOBODY);
        let fork = seen(NOBODY + 1, NOBODY, b"child");
        for follow in [true, false] {
            let mut processes = Processes::new(Some(BTreeSet::from([parent])), follow);
            processes.apply(ProcessChange::Fork, &fork);
            assert_eq!(
                processes.targets().is_some_and(|t| t.contains(&Tgid(NOBODY + 1))),
                follow
            );
        }
    }
}
