//! A process or a thread, as events name it.
//! Made by `correlate`; read by every sink.

use std::sync::Arc;

use crate::units::{Tgid, Tid};

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
