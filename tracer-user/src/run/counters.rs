//! The counts of the BPF side and of the kernel while the hooks ran.
//! Input: the values of the map `COUNTERS`, by CPU; `recursion_misses` of each program.

use serde::{Deserialize, Serialize};
use tracer_common::counter::{Counter, REASONS};

use crate::kernel::hooks::{Hook, Skipped};

/// Runs of BPF programs that the kernel skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MissedRuns {
    /// Runs of programs without which events may be missing.
    pub events: u64,
    /// Runs of programs without which a detail of an event, or a line of the books, may be missing.
    pub details: u64,
    /// Runs that the program's second copy replaced: nothing is missing.
    pub stood_in: u64,
}

impl MissedRuns {
    /// Adds skipped runs of that hook's program.
    pub fn add(&mut self, hook: &Hook, times: u64) {
        match hook.skipped {
            Skipped::Events => self.events += times,
            Skipped::Details => self.details += times,
        }
    }
}

/// The BPF side's counters, then its sums by reason, each with one value per CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(Vec<Vec<u64>>);

impl Counters {
    /// Takes the slots of the map, each with a value per possible CPU.
    #[must_use]
    pub fn new(by_slot: Vec<Vec<u64>>) -> Self {
        Self(by_slot)
    }

    /// The sum of a counter over all CPUs.
    #[must_use]
    pub fn sum(&self, counter: Counter) -> u64 {
        self.by_cpu(counter).iter().sum()
    }

    /// A counter's values, one per possible CPU.
    #[must_use]
    pub fn by_cpu(&self, counter: Counter) -> &[u64] {
        self.0.get(counter as usize).map_or(&[], Vec::as_slice)
    }

    /// Base pages that moved, were released, or are unseen, for the reason with that number; over all CPUs.
    #[must_use]
    pub fn moved_for(&self, reason: u8) -> u64 {
        let slot = Counter::ALL.len() + usize::from(reason) % REASONS;
        self.0.get(slot).map_or(0, |by_cpu| by_cpu.iter().sum())
    }

    /// Counters of a single CPU, for tests: these values, and 0 for the others.
    #[cfg(test)]
    pub(crate) fn made_up(values: &[(Counter, u64)]) -> Self {
        let mut slots = vec![vec![0]; tracer_common::counter::SLOTS];
        for &(counter, value) in values {
            slots[counter as usize] = vec![value];
        }
        Self(slots)
    }

    /// The same counters, with a reason's pages.
    #[cfg(test)]
    pub(crate) fn with_moved_for(mut self, reason: u8, pages: u64) -> Self {
        self.0[Counter::ALL.len() + usize::from(reason)] = vec![pages];
        self
    }

    /// Base pages of events in calls that have ended since `earlier`, or were given up, once each.
    #[must_use]
    pub fn shown_since(&self, earlier: &Self) -> u64 {
        let shown = |counters: &Self| {
            let pages = [
                Counter::ReportedPages,
                Counter::UnmappedPages,
                Counter::ReportedFailedPages,
            ];
            let sum: u64 = pages.map(|counter| counters.sum(counter)).iter().sum();
            sum.wrapping_sub(counters.sum(Counter::FilteredUnmappedPages))
        };
        shown(self).wrapping_sub(shown(earlier))
    }

    /// The growth since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |(now, before): (&Vec<u64>, &Vec<u64>)| {
            now.iter()
                .zip(before)
                .map(|(now, before)| now.wrapping_sub(*before))
                .collect()
        };
        Self(self.0.iter().zip(&earlier.0).map(difference).collect())
    }
}
