//! A pass of compaction over one zone.
//! Made by `correlate`; read by every sink.

use std::sync::Arc;

use crate::{
    event::task::Task,
    units::{Nanos, NodeId, Order},
};

/// One zone was compacted, from start to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The time when it ended.
    pub at: Nanos,
    /// The time that it took. If it is direct, the actor waited this long for its memory.
    pub duration: Nanos,
    /// The task that ran it.
    pub actor: Task,
    /// The order that an allocation wants. None: the whole zone was to be compacted.
    pub order: Option<Order>,
    /// The node of the zone.
    pub node: Option<NodeId>,
    /// "Normal", "DMA32", "Movable".
    pub zone: Arc<str>,
    /// Whether an allocation of the actor waited for it.
    pub direct: bool,
    /// Whether it may wait for locks and writeback.
    pub sync: bool,
    /// Whether kcompactd started it on its own initiative.
    pub proactive: bool,
    /// The `enum compact_result`, in lower case and without "compact_".
    pub result: Arc<str>,
    /// Base pages that moved in it.
    pub moved: u64,
    /// Base pages that could not be moved.
    pub failed: u64,
    /// The CPU on which it ended.
    pub cpu: u16,
}
