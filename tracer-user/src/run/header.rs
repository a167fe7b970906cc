//! The facts about a run that are known before its first event.
//! Input: the machine, the source that was attached, and the arguments.

use serde::{Deserialize, Serialize};

use crate::{
    kernel::hooks::Kinds,
    run::{
        backend::{Backend, BackendName},
        kinds::KindNames,
    },
    units::{Nanos, NodeId, Pfn},
};

/// The facts about a run that are known before its first event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of tracer.
    pub version: String,
    /// The host name, `uname -n`.
    pub host: String,
    /// /proc/sys/kernel/random/boot_id: times of one boot are on one clock.
    pub boot_id: String,
    /// The kernel's release, `uname -r`.
    pub kernel: String,
    /// The number of NUMA nodes.
    pub nodes: usize,
    /// The frames of each node.
    pub frames: Vec<NodeFrames>,
    /// The command line of tracer.
    pub command_line: Vec<String>,
    /// The time at which tracing began.
    pub begun: Nanos,
    /// How events are captured.
    pub backend: BackendName,
    /// The kinds of moves that were requested; the backend may not see them all.
    pub kinds: KindNames,
    /// Better backends that were refused, and why.
    pub fallbacks: Vec<String>,
    /// Hooks of this backend that were refused.
    pub refused: Vec<MissingHook>,
    /// The traced processes, in words.
    pub targets: String,
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`, nanoseconds, at the begin.
    pub clock_offset: i128,
}

impl Header {
    /// The values that identify a run: no two runs begin on one machine in the same nanosecond.
    #[must_use]
    pub fn identity(&self) -> (&str, &str, Nanos) {
        (&self.host, &self.boot_id, self.begun)
    }

    /// Whether both belong to one run.
    #[must_use]
    pub fn same_run(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// The kinds of moves that were requested and that the backend sees.
    #[must_use]
    pub fn seen(&self) -> Kinds {
        let seen = self.backend.coverage().map_or(Kinds::ALL, |coverage| coverage.kinds);
        self.kinds.known().both(seen)
    }

    /// The header of a recording that has lost it.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            version: String::new(),
            host: String::new(),
            boot_id: String::new(),
            kernel: "unknown".to_owned(),
            nodes: 0,
            frames: Vec::new(),
            command_line: Vec::new(),
            begun: Nanos(0),
            backend: Backend::Exact.into(),
            kinds: Kinds::ALL.into(),
            fallbacks: Vec::new(),
            refused: Vec::new(),
            targets: "unknown".to_owned(),
            clock_offset: 0,
        }
    }
}

/// The frames of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFrames {
    /// The first frame.
    pub first: Pfn,
    /// The first frame after them.
    pub end: Pfn,
    /// Their node.
    pub node: NodeId,
}

/// A hook that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingHook {
    /// `fentry/remove_migration_pte`.
    pub hook: String,
    /// The kernel's error.
    pub reason: String,
    /// The data that is missing without it.
    pub loses: String,
}
