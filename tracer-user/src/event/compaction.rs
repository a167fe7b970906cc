//! A pass of compaction over one zone.
//! Made by `correlate`; read by every sink.

use std::sync::Arc;

use crate::{
    event::task::Task,
    units::{Nanos, NodeId, Order},
};

/// One zone was compacted, from begin to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// When it ended.
    pub at: Nanos,
    /// How long it took. Where it is direct, the actor waited so long for its memory.
    pub duration: Nanos,
    /// Who ran it.
    pub actor: Task,
    /// The order that an allocation wants; None: the whole zone was to be compacted.
    pub order: Option<Order>,
    /// Node of the zone.
    pub node: Option<NodeId>,
    /// "Normal", "DMA32", "Movable".
    pub zone: Arc<str>,
    /// An allocation of the actor waited for it.
    pub direct: bool,
    /// It may wait for locks and writeback.
    pub sync: bool,
    /// kcompactd's own initiative.
    pub proactive: bool,
    /// `enum compact_result`, lower case and without "compact_".
    pub result: Arc<str>,
    /// Base pages that moved in it.
    pub moved: u64,
    /// Base pages that could not be moved.
    pub failed: u64,
    /// Where it ended.
    pub cpu: u16,
}
