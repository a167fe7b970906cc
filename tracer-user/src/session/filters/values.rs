//! The values of filters, and their presentation.
//! Input: values that the command line parses in `cli::values`, or that a program sets.

use std::fmt;

use crate::{
    escape::Printable,
    units::{NodeId, VirtAddr},
};

/// The process or threads that move pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Any thread of this process.
    Pid(u32),
    /// Any thread whose name matches.
    Name(String),
}

/// Old and new node; None: any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePair {
    /// The old node.
    pub from: Option<NodeId>,
    /// The new node.
    pub to: Option<NodeId>,
}

/// A range of virtual addresses, without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub start: VirtAddr,
    /// The first address after it.
    pub end: VirtAddr,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => pid.fmt(f),
            Self::Name(name) => Printable(name).fmt(f),
        }
    }
}

impl fmt::Display for NodePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = |node: Option<NodeId>| node.map_or_else(|| "any".to_owned(), |node| node.to_string());
        write!(f, "{}->{}", node(self.from), node(self.to))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start.0, self.end.0)
    }
}
