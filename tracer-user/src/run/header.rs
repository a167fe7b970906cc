//! How a run was made: what is known before its first event.
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

/// What is known before the first event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// tracer's own.
    pub version: String,
    /// uname -n.
    pub host: String,
    /// /proc/sys/kernel/random/boot_id: times of the same boot are of the same clock.
    pub boot_id: String,
    /// uname -r.
    pub kernel: String,
    /// NUMA nodes.
    pub nodes: usize,
    /// Which frames are of which node.
    pub frames: Vec<NodeFrames>,
    /// How tracer was called.
    pub command_line: Vec<String>,
    /// When it began to trace.
    pub begun: Nanos,
    /// How events are captured.
    pub backend: BackendName,
    /// The kinds of moves that were asked for; the backend may not see them all.
    pub kinds: KindNames,
    /// Better backends that were refused, and why.
    pub fallbacks: Vec<String>,
    /// Hooks of this backend that were refused.
    pub refused: Vec<MissingHook>,
    /// Who is traced, in words.
    pub targets: String,
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`, nanoseconds, at the begin.
    pub clock_offset: i128,
}

impl Header {
    /// Whether both are of one run: nothing else began on that machine at that nanosecond.
    #[must_use]
    pub fn same_run(&self, other: &Self) -> bool {
        (&self.host, &self.boot_id, self.begun) == (&other.host, &other.boot_id, other.begun)
    }

    /// Of a recording that has lost it.
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

/// Frames of a node, from the first to before the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFrames {
    /// The first.
    pub first: Pfn,
    /// The first behind them.
    pub end: Pfn,
    /// Their node.
    pub node: NodeId,
}

/// A hook that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingHook {
    /// `fentry/remove_migration_pte`.
    pub hook: String,
    /// What the kernel said.
    pub reason: String,
    /// What is missing from the rows.
    pub loses: String,
}
