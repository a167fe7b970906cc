//! The facts about a run that are known after its last event.
//! Input: the sums over the events, the closed books, and the cost of this process.

use crate::{
    run::{books::Books, totals::Totals},
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
    /// CPU time of this process before the first event could come.
    pub startup_cpu: Nanos,
    /// CPU time of this process while tracing.
    pub cpu: Nanos,
    /// Peak memory of this process, bytes.
    pub max_rss: u64,
}
