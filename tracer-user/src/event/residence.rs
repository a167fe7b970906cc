//! The place of a page: memory of a node, or swap.
//! Input: the nodes of a move's frames, and its reason.

use std::fmt;

use tracer_common::event::outside;

use crate::{kernel::names::Reason, units::NodeId};

/// The place of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Residence {
    /// Not known.
    Unknown,
    /// In memory of this node.
    Node(NodeId),
    /// On swap.
    Swap,
}

impl Residence {
    /// The place of a page in memory.
    #[must_use]
    pub fn of(node: Option<NodeId>) -> Self {
        node.map_or(Self::Unknown, Self::Node)
    }

    /// The places before and after a move for that reason. None: the place is not known.
    #[must_use]
    pub fn both(reason: Option<&Reason>, old: Option<NodeId>, new: Option<NodeId>) -> (Self, Self) {
        let on_swap = |at, node| match node {
            None if reason.is_some_and(|reason| reason.number == at) => Self::Swap,
            node => Self::of(node),
        };
        (on_swap(outside::SWAP_IN, old), on_swap(outside::SWAP_OUT, new))
    }

    /// The node. None: the page has none, or it is not known.
    #[must_use]
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(node),
            Self::Unknown | Self::Swap => None,
        }
    }
}

impl fmt::Display for Residence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Swap => f.pad("swap"),
            Self::Unknown => f.pad("?"),
        }
    }
}
