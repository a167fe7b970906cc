//! The facts of the machine that every event needs: nodes of frames, names of numbers.
//! Input: the topology, and the kernel's names.

use crate::{
    kernel::{names::KernelNames, topology::Topology},
    units::{NodeId, Pfn},
};

/// The machine that events happen on.
#[derive(Clone, Copy)]
pub(super) struct Machine<'a> {
    topology: &'a Topology,
    pub names: &'a KernelNames,
}

impl<'a> Machine<'a> {
    pub fn new(topology: &'a Topology, names: &'a KernelNames) -> Self {
        Self { topology, names }
    }

    /// The node of a frame; None if it is not known.
    pub fn node(&self, pfn: Option<Pfn>) -> Option<NodeId> {
        pfn.and_then(|pfn| self.topology.node_of(pfn))
    }
}

/// The frame that lies `pages` after a frame of the wire, in which 0 means none.
pub(super) fn frame(first: u64, pages: u64) -> Option<Pfn> {
    (first != 0).then(|| Pfn(first).plus(pages))
}
