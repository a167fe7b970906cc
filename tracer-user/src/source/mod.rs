//! Where the events of a live run come from: one trait, and behind it each source.
//! Input: the running kernel.

pub mod bpf;

use std::{io, os::fd::OwnedFd};

use crate::{
    event::Event,
    kernel::capabilities::Capability,
    run::{
        account::{Reading, Terms},
        attribution::Losses,
        books::Lost,
        coverage::Coverage,
    },
};

/// What one turn has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing had come.
    Empty,
    /// All that had come.
    All,
    /// As much as one turn takes: more may wait.
    Full,
}

/// Sees pages move from when it is made until it is stopped.
pub trait Source {
    /// What it can know.
    fn coverage(&self) -> Coverage;

    /// What does not change in the accounts between two of its readings.
    fn terms(&self) -> Terms;

    /// Appends what has come since the last turn, in the order in which sinks are to get it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<Turn>;

    /// Looks for what no event reports: targets whose end was lost, memory that was plugged in. Called about once a
    /// second.
    fn census(&mut self);

    /// Whether there were targets and all of them are gone.
    fn targets_gone(&self) -> bool;

    /// A descriptor that becomes readable when something comes after [`Source::arm`]. None: the clock alone decides when
    /// the next turn is due.
    ///
    /// # Errors
    /// When it cannot be duplicated.
    fn waker(&self) -> io::Result<Option<OwnedFd>>;

    /// Requests to be woken once by what comes next. One more turn must follow before the caller sleeps.
    ///
    /// # Errors
    /// When the request cannot be made.
    fn arm(&mut self) -> io::Result<()>;

    /// One look at the kernel's counts and at its own, which may be of different moments.
    ///
    /// # Errors
    /// When either cannot be read.
    fn look(&self) -> io::Result<Reading>;

    /// Everything lost until a reading.
    ///
    /// # Errors
    /// When a count cannot be read.
    fn lost(&self, reading: &Reading) -> io::Result<Lost>;

    /// What has become of the search for owners so far.
    fn attribution(&self) -> Losses;

    /// Sees nothing new from now on. What it has seen is given by further turns, until one is empty for good.
    ///
    /// # Errors
    /// The first thing that failed; the rest is stopped all the same.
    fn stop(&mut self) -> io::Result<()>;
}

/// What a source requires of the process that runs it.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// What the capabilities are for, as the begin of a sentence.
    pub purpose: &'static str,
    /// All of these. CAP_SYS_ADMIN stands for every one.
    pub capabilities: &'static [Capability],
    /// Process numbers of the kernel are those of this process's PID namespace.
    pub initial_pid_namespace: bool,
}
