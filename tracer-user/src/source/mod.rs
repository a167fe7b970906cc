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
        ending::Ending,
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

/// Calls of migrate_pages whose begin a source has observed, and not their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Their number.
    pub calls: u64,
    /// Base pages of their events so far, once each. No reading contains them before the calls end.
    pub pages: u64,
}

/// Observes moves from [`Source::begin`] until it is stopped. Events and readings cover the same calls of migrate_pages:
/// those that begin between `begin` and `close` and end before the last reading.
pub trait Source {
    /// The facts that it can know.
    fn coverage(&self) -> Coverage;

    /// The terms of the accounts that do not change between two readings.
    fn terms(&self) -> Terms;

    /// Waits for nobody for long once `ending` is here. It is called once, before [`Source::begin`].
    ///
    /// # Errors
    /// When it cannot see how much has arrived.
    fn heed(&mut self, ending: Ending) -> io::Result<()>;

    /// Records calls that begin from now on. It is called once, right after the first reading.
    ///
    /// # Errors
    /// When recording cannot begin.
    fn begin(&mut self) -> io::Result<()>;

    /// Records no more calls that begin. Calls under way are recorded until they end or the source is stopped.
    ///
    /// # Errors
    /// When the begins of calls cannot be ignored.
    fn close(&mut self) -> io::Result<()>;

    /// Returns the calls that have begun and not ended.
    ///
    /// # Errors
    /// When they cannot be read.
    fn under_way(&self) -> io::Result<UnderWay>;

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
