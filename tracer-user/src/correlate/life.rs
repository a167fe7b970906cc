//! Which life of a PID is meant: a PID is used again, and runs one program after another.
//! Made by `processes`; kept with whatever belongs to an address space.

use crate::units::{Nanos, Tgid};

/// A process as it was at one moment: a PID that is used again, or that runs another program, has
/// another address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    /// The process.
    pub tgid: Tgid,
    /// Counts the forks and execs seen under this PID.
    pub generation: u32,
    /// When it was forked; zero: before anybody looked.
    pub born: Nanos,
}
