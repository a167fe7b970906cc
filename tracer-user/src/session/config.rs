//! The configuration of a live run: whose moves are traced, which of them, and how.
//! Input: plain values, which the command line or a program sets.

use std::ffi::OsString;

use crate::{kernel::hooks::Kinds, run::backend::Backend, session::filters::Filters, source::bpf::ring::RingBytes};

/// Whose pages.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Those of every process.
    Everybody,
    /// Those of these processes, by number.
    Processes(Vec<u32>),
    /// Those of a program that the session starts.
    Command(Vec<OsString>),
    /// Those of every process while that program runs.
    EverybodyWhile(Vec<OsString>),
}

impl Scope {
    /// The words of the program to start.
    #[must_use]
    pub fn command(&self) -> Option<&[OsString]> {
        match self {
            Self::Everybody | Self::Processes(_) => None,
            Self::Command(words) | Self::EverybodyWhile(words) => Some(words),
        }
    }
}

/// What is traced, and how.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Whose pages.
    pub scope: Scope,
    /// Children of the processes in the scope are in it, too.
    pub follow: bool,
    /// Which of their moves.
    pub filters: Filters,
    /// The backends that may be tried, best first.
    pub backends: &'static [Backend],
    /// The kinds of moves to show.
    pub kinds: Kinds,
    /// Of those, the ones that are not to be done without.
    pub must: Kinds,
    /// The ring between the kernel and tracer.
    pub ring: RingBytes,
}

impl TraceConfig {
    /// The backends to try, in this order: a kind that is not to be done without is not traded for another backend.
    #[must_use]
    pub fn candidates(&self) -> Vec<Backend> {
        let sees = |backend: &Backend| backend.coverage().kinds.contains(self.must);
        self.backends.iter().copied().filter(sees).collect()
    }
}
