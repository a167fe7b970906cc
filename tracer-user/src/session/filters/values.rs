//! The values of filters, and how they are shown.
//! Input: whoever sets a filter; the command line parses them in `cli::values`.

use std::fmt;

use crate::{
    escape::Printable,
    units::{NodeId, VirtAddr},
};

/// Who moves pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Any thread of this process.
    Pid(u32),
    /// Any thread of such a name.
    Name(String),
}

/// Old and new node; None: any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePair {
    /// Where the page was.
    pub from: Option<NodeId>,
    /// Where it goes.
    pub to: Option<NodeId>,
}

/// Virtual addresses, from the first to before the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: VirtAddr,
    /// The first behind it.
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
