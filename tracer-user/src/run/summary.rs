//! How a run ended: what is known after its last event.
//! Input: the sums over the events, the closed books, and the cost of this process.

use crate::{
    run::{books::Books, kept::Kept, totals::Totals},
    units::Nanos,
};

/// What is known after the last event.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// From attaching to detaching.
    pub duration: Nanos,
    /// Sums over the events.
    pub totals: Totals,
    /// Conservation and losses.
    pub books: Books,
    /// CPU time of this process before the first event could come.
    pub startup_cpu: Nanos,
    /// CPU time of this process while tracing.
    pub cpu: Nanos,
    /// Most memory that this process had, bytes.
    pub max_rss: u64,
    /// What there is of the run, if it is read again.
    pub kept: Kept,
}

impl Summary {
    /// Events that are known to be lost, while tracing or from the recording.
    #[must_use]
    pub fn lost_events(&self) -> u64 {
        self.books.lost.events().saturating_add(self.kept.damaged.events)
    }
}
