//! A process or a thread, as events name it.
//! Made by `correlate`; read by every sink.

use std::sync::Arc;

use crate::{
    kernel::names::Reason,
    units::{Tgid, Tid},
};

/// A process or one of its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The process.
    pub tgid: Tgid,
    /// The thread; for an owner, the thread of the group leader.
    pub tid: Tid,
    /// Its name. None: it exited before the name could be read.
    pub comm: Option<Arc<str>>,
}

impl Task {
    /// Whether it is a worker that moves pages for a cpuset. System calls migrate in their caller. A worker does it for
    /// a write to cpuset.mems, or for a task that enters another cpuset (kernel/cgroup/cpuset.c,
    /// `cpuset_migrate_mm_workfn`, 6.1 to 7.3).
    #[must_use]
    pub fn moves_for_cpuset(&self, reason: Option<&Reason>) -> bool {
        let is_worker = self.comm.as_ref().is_some_and(|comm| comm.starts_with("kworker/"));
        is_worker && reason.and_then(|reason| reason.name.as_deref()) == Some("syscall_or_cpuset")
    }
}
