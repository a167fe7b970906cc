//! Names of threads, and how long each is valid.
//! Input: names in process events; /proc/PID/task/TID/comm where those say nothing.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    correlate::{life::Life, strings::Strings},
    proc::process,
    units::Tid,
};

/// The limit of threads whose names are kept. When it is reached, all are forgotten and read again.
const MAX_THREADS: usize = 1 << 16;
/// How long a name is valid if the kernel side does not report its changes.
const NAME_AGE: Duration = Duration::from_secs(1);

/// A thread's name.
struct Thread {
    comm: Arc<str>,
    /// The process that it belongs to.
    of: Life,
    /// Whether the kernel side reported the name; else it is from /proc.
    heard: bool,
    /// The time of the report, or of reading.
    since: Instant,
}

/// The names of threads.
#[derive(Default)]
pub(super) struct Threads(HashMap<Tid, Thread>);

impl Threads {
    /// Takes in a name; `heard` means that the kernel side reported it.
    pub fn name(&mut self, tid: Tid, of: Life, comm: Option<Arc<str>>, heard: bool) {
        let Some(comm) = comm else { return };
        if self.0.len() >= MAX_THREADS {
            self.0.clear();
        }
        let since = Instant::now();
        self.0.insert(tid, Thread { comm, of, heard, since });
    }

    /// Forgets a thread.
    pub fn forget(&mut self, tid: Tid) {
        self.0.remove(&tid);
    }

    /// The name of a thread. `followed` means that the kernel side reports the end of its process. The end of a thread
    /// that is not its process's first, or whose process is not followed, is not reported, and its number may be used
    /// again.
    pub fn comm(&mut self, tid: Tid, of: Life, followed: bool, strings: &mut Strings) -> Option<Arc<str>> {
        let reported = followed && tid.0 == of.tgid.0;
        let known = self.0.get_mut(&tid).filter(|thread| thread.of == of);
        let holds = |thread: &Thread| (thread.heard && reported) || thread.since.elapsed() < NAME_AGE;
        if let Some(thread) = known.as_ref().filter(|thread| holds(thread)) {
            return Some(thread.comm.clone());
        }
        match process::thread_comm(of.tgid, tid) {
            Some(comm) => {
                let comm = strings.share(&comm);
                self.name(tid, of, Some(comm.clone()), false);
                Some(comm)
            }
            // The thread has ended, and keeps its last name.
            None => known.map(|thread| {
                thread.since = Instant::now();
                thread.comm.clone()
            }),
        }
    }

    #[cfg(test)]
    pub fn age(&mut self, tid: Tid) {
        let thread = self.0.get_mut(&tid).unwrap();
        thread.since = thread.since.checked_sub(NAME_AGE).unwrap();
    }
}
