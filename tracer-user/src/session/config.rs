//! The configuration of a live run: the traced processes, the filters, and the backends.
//! Input: plain values, which the command line or a program sets.

use std::ffi::OsString;

use crate::{kernel::hooks::Kinds, run::backend::Backend, session::filters::Filters, source::bpf::ring::RingBytes};

/// The traced processes.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Every process.
    Everybody,
    /// These processes, by number.
    Processes(Vec<u32>),
    /// A program that the session starts.
    Command(Vec<OsString>),
    /// Every process while that program runs.
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

/// The configuration of a run.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// The traced processes.
    pub scope: Scope,
    /// Whether children of these processes are traced, too.
    pub follow: bool,
    /// The filters of their moves.
    pub filters: Filters,
    /// The backends that may be tried, best first.
    pub backends: &'static [Backend],
    /// The kinds of moves to show.
    pub kinds: Kinds,
    /// The kinds that are required: a backend without them is not tried.
    pub must: Kinds,
    /// The size of the ring between the kernel and tracer.
    pub ring: RingBytes,
}

impl TraceConfig {
    /// The backends to try, in this order: those that lack a required kind are left out.
    #[must_use]
    pub fn candidates(&self) -> Vec<Backend> {
        let sees = |backend: &Backend| backend.coverage().kinds.contains(self.must);
        self.backends.iter().copied().filter(sees).collect()
    }
}
