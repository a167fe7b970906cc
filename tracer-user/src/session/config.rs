//! The configuration of a live run: the traced processes, the filters, and the backends.
//! Input: plain values, which the command line or a program sets.

use std::ffi::OsString;

use crate::{
    kernel::hooks::Kinds,
    run::{backend::Backend, coverage::Coverage},
    session::filters::Filters,
    source::bpf::rings::RingBytes,
};

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
    /// The command line, for the run's header.
    pub command_line: Vec<String>,
    /// The size of the ring between the kernel and tracer.
    pub ring: RingBytes,
}

impl TraceConfig {
    /// The backends to try, in this order: those that lack a required kind, or do not know what a filter is about, are left
    /// out.
    #[must_use]
    pub fn candidates(&self) -> Vec<Backend> {
        let serves = |backend: &Backend| self.is_served_by(backend.coverage());
        self.backends.iter().copied().filter(serves).collect()
    }

    fn is_served_by(&self, coverage: Coverage) -> bool {
        coverage.kinds.contains(self.must)
            && (coverage.reasons || self.filters.reason.is_empty())
            && (coverage.actors || self.filters.actor.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_must_know_what_a_filter_is_about() {
        let mut config = TraceConfig {
            scope: Scope::Everybody,
            follow: true,
            filters: Filters::default(),
            backends: &Backend::ALL,
            kinds: Kinds::DEFAULT,
            must: Kinds::NONE,
            command_line: Vec::new(),
            ring: RingBytes::DEFAULT,
        };
        let compares = Coverage {
            reasons: false,
            ..Backend::Exact.coverage()
        };
        assert!(config.is_served_by(compares));
        config.filters.reason.push("compaction".to_owned());
        assert!(!config.is_served_by(compares));
        assert_eq!(config.candidates(), Backend::ALL);
        config.must = Kinds::SWAP;
        assert_eq!(config.candidates(), [Backend::Exact]);
    }
}
