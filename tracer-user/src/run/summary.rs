//! The facts about a run that are known after its last event.
//! Input: the sums over the events, the closed books, and the cost of this process.

use crate::{
    run::{books::Books, kept::Kept, totals::Totals},
    units::Nanos,
};

/// The facts about a run that are known after its last event.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// The time from attaching to detaching.
    pub duration: Nanos,
    /// Sums over the events.
    pub totals: Totals,
    /// The books, with all losses.
    pub books: Books,
    /// CPU time of this process before the first event was possible.
    pub startup_cpu: Nanos,
    /// CPU time of this process while tracing.
    pub cpu: Nanos,
    /// Peak memory of this process, bytes.
    pub max_rss: u64,
    /// The part of the run that was read, if it is replayed.
    pub kept: Kept,
}

impl Summary {
    /// Events that are known to be lost, while tracing or from the recording.
    #[must_use]
    pub fn lost_events(&self) -> u64 {
        self.books.lost.events().saturating_add(self.kept.damaged.events)
    }
}
