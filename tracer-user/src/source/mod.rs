//! Sources of a live run's events: one trait, and an implementation for each source.
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

/// The result of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing had arrived.
    Empty,
    /// Everything that had arrived was taken.
    All,
    /// As much as one turn takes was taken: more may wait.
    Full,
}

/// Observes moves from its creation until it is stopped.
pub trait Source {
    /// The facts that it can know.
    fn coverage(&self) -> Coverage;

    /// The terms of the accounts that do not change between two readings.
    fn terms(&self) -> Terms;

    /// Appends the events since the last turn, in the order in which sinks receive them.
    ///
    /// # Errors
    /// When it cannot be read.
    fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<Turn>;

    /// Looks for changes that no event reports: targets whose end was lost, memory that was plugged in. Called about
    /// once a second.
    fn census(&mut self);

    /// Whether there were targets and all of them have exited.
    fn targets_gone(&self) -> bool;

    /// A descriptor that becomes readable when something arrives after [`Source::arm`]. None: the clock alone decides
    /// when the next turn is due.
    ///
    /// # Errors
    /// When it cannot be duplicated.
    fn waker(&self) -> io::Result<Option<OwnedFd>>;

    /// Requests to be woken once by the next event. One more turn must follow before the caller sleeps.
    ///
    /// # Errors
    /// When the request cannot be made.
    fn arm(&mut self) -> io::Result<()>;

    /// Reads the kernel's counts and its own, which may be of different moments.
    ///
    /// # Errors
    /// When either cannot be read.
    fn look(&self) -> io::Result<Reading>;

    /// Everything lost up to a reading.
    ///
    /// # Errors
    /// When a count cannot be read.
    fn lost(&self, reading: &Reading) -> io::Result<Lost>;

    /// The results of the search for owners so far.
    fn attribution(&self) -> Losses;

    /// Observes nothing new from now on. Further turns return what was observed before, until one is empty for good.
    ///
    /// # Errors
    /// The first failure; the rest is stopped nevertheless.
    fn stop(&mut self) -> io::Result<()>;
}

/// The requirements of a source on the process that runs it.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// The purpose of the capabilities, as the beginning of a sentence.
    pub purpose: &'static str,
    /// The required capabilities. CAP_SYS_ADMIN replaces all of them.
    pub capabilities: &'static [Capability],
    /// Whether the kernel's process numbers must be those of this process's PID namespace.
    pub initial_pid_namespace: bool,
}
