//! One life of a PID: a PID is used again, and runs one program after another.
//! Made by `processes`; kept with everything that belongs to an address space.

use crate::units::{Nanos, Tgid};

/// A process as it was at one moment: a PID that is used again, or that runs another program, has
/// another address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    /// The process.
    pub tgid: Tgid,
    /// Counts the forks and execs seen under this PID.
    pub generation: u32,
    /// The time of the fork; zero if the process is older than the run.
    pub born: Nanos,
}
