//! Sums over events: by reason and node pair, by verdict, and the time that accesses waited.
//! Input: every event of a run.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::{
    event::{
        Event, Move, Reason, Verdict,
        compaction::Compaction,
        failure::{Cause, Failure},
        unmapped::UnmappedMove,
    },
    run::{failure::Failed, folios::Folios},
    units::{Nanos, NodeId},
};

/// Durations, in nanoseconds: all of them to two significant digits, and the longest.
#[derive(Clone, Debug)]
pub struct Durations {
    all: Histogram<u64>,
    longest: Nanos,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            // 2 digits are within the accepted 0 to 5: this never fails.
            all: Histogram::new(2).unwrap_or_else(|_| unreachable!("2 significant digits are valid")),
            longest: Nanos(0),
        }
    }
}

impl Durations {
    /// Counts `times` equal durations.
    pub fn add(&mut self, duration: Nanos, times: u64) {
        // Resizes as needed; only a duration of centuries does not fit.
        let _ = self.all.record_n(duration.0, times);
        self.longest = self.longest.max(duration);
    }

    /// The number of durations.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The duration that `quantile` (0 to 1) of them do not exceed; None if there are none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Nanos> {
        // Two digits are rounded up, but not beyond the longest.
        (!self.is_empty()).then(|| Nanos(self.all.value_at_quantile(quantile)).min(self.longest))
    }

    /// Counts by powers of two: `[lower, upper)` and the number, without empty ones.
    pub fn buckets(&self) -> impl Iterator<Item = (Nanos, Nanos, u64)> {
        let mut buckets: BTreeMap<u32, u64> = BTreeMap::new();
        for recorded in self.all.iter_recorded() {
            // The recorded digits never span a power of two.
            let bits = u64::BITS - recorded.value_iterated_to().leading_zeros();
            *buckets.entry(bits).or_default() += recorded.count_at_value();
        }
        let power = |bits: u32| Nanos(1u64.checked_shl(bits).unwrap_or(u64::MAX));
        buckets.into_iter().map(move |(bits, count)| {
            let lower = bits.checked_sub(1).map_or(Nanos(0), power);
            (lower, power(bits), count)
        })
    }

    /// Adds all durations of another set.
    pub fn merge(&mut self, other: &Self) {
        // It resizes as needed, and both have the same precision: this never fails.
        let _ = self.all.add(&other.all);
        self.longest = self.longest.max(other.longest);
    }

    /// The longest duration; None if there are none.
    #[must_use]
    pub fn max(&self) -> Option<Nanos> {
        (!self.is_empty()).then_some(self.longest)
    }
}

/// The old node and the new one; None if a frame's node is not known.
pub type NodePair = (Option<NodeId>, Option<NodeId>);

/// The sums of one reason.
#[derive(Clone, Debug, Default)]
pub struct ReasonTotals {
    /// Base pages that moved, once each, mapped or not.
    pub pages: u64,
    /// Mappings of base pages that were pointed at another frame: a page that three processes map has three.
    pub mappings: u64,
    /// [`Self::pages`] by node pair.
    pub by_nodes: BTreeMap<NodePair, u64>,
    /// Blackouts, one for each event whose start was seen.
    pub blackout: Durations,
}

/// The sums of a run.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Moves of mapped pages, one for each extent of neighbouring pages in each mapping.
    pub events: u64,
    /// Base pages that moved, once each, mapped or not.
    pub pages: u64,
    /// Pages in [`Self::pages`] that no process maps.
    pub unmapped: u64,
    /// Mappings of base pages that were pointed at another frame: a page that three processes map has three.
    pub mappings: u64,
    /// Sums by reason; the reason is None if the source does not see reasons.
    pub by_reason: BTreeMap<Option<Reason>, ReasonTotals>,
    /// Mappings by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Mappings whose old frame is one of several candidates.
    pub ambiguous: u64,
    /// Folios that could not be moved, by reason and cause.
    pub failures: BTreeMap<(Reason, Cause), FailureTotals>,
    /// Passes of compaction.
    pub compaction: CompactionTotals,
    /// The folio whose events are being counted.
    folios: Folios,
    /// The folios that could not be moved so far.
    failed: Failed<(Reason, Cause)>,
}

/// The most names of reasons and the most pairs of nodes that have sums of their own. The kernel has a dozen reasons and
/// up to 64 nodes; a recording may contain any. Further reasons are known by their number only, and further pairs as
/// unknown.
const MOST_REASONS: usize = 1 << 8;
const MOST_PAIRS: usize = 1 << 12;

/// A recording may contain page counts of any size.
fn add(sum: &mut u64, pages: u64) {
    *sum = sum.saturating_add(pages);
}

/// Folios that could not be moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureTotals {
    /// The number of times that a call left a folio where it was; a folio that ten calls try fails ten times.
    pub failures: u64,
    /// The kernel's attempts to move a folio in those calls: several in one call, or none.
    pub attempts: u64,
    /// Folios, once each however often they were tried.
    pub folios: u64,
    /// Base pages in them.
    pub pages: u64,
}

impl FailureTotals {
    /// Adds a failure, of a folio that has failed before if it is `known`.
    pub fn add(&mut self, failure: &Failure, known: bool) {
        self.failures += 1;
        add(&mut self.attempts, failure.attempts.into());
        if !known {
            self.folios += 1;
            add(&mut self.pages, failure.order.pages());
        }
    }
}

/// Passes of compaction, one for each zone that was scanned.
#[derive(Clone, Debug, Default)]
pub struct CompactionTotals {
    /// The number of runs.
    pub runs: u64,
    /// Time spent in them, also by several tasks at once.
    pub time: Nanos,
    /// Base pages that moved in them.
    pub moved: u64,
    /// Base pages that could not be moved in them.
    pub failed: u64,
    /// Passes that an allocation waited for.
    pub direct: Durations,
    /// Time that tasks waited in those passes.
    pub direct_time: Nanos,
}

impl Totals {
    /// Adds an event.
    pub fn add(&mut self, event: &Event) {
        match event {
            Event::Move(moved) => self.add_move(moved),
            Event::Unmapped(moved) => self.add_unmapped(moved),
            Event::Failure(failure) => {
                let mut key = (failure.reason.clone(), failure.cause);
                if self.failures.len() >= MOST_REASONS && !self.failures.contains_key(&key) {
                    key.0 = nameless(&key.0);
                }
                let known = self.failed.failed(&key, failure);
                self.failures.entry(key).or_default().add(failure, known);
            }
            Event::Compaction(pass) => self.compaction.add(pass),
        }
    }

    fn add_move(&mut self, moved: &Move) {
        let pages = self.folios.pages(moved);
        self.failed.came(moved.new_pfn, moved.pages);
        self.events += 1;
        add(&mut self.pages, pages);
        add(&mut self.mappings, moved.pages);
        add(self.verdicts.entry(moved.verdict).or_default(), moved.pages);
        if moved.ambiguous {
            add(&mut self.ambiguous, moved.pages);
        }
        let without_name = |reason: &Option<Reason>| reason.as_ref().map(nameless);
        of_key(&mut self.by_reason, &moved.reason, without_name, |sums| {
            sums.add((moved.old_node, moved.new_node), pages);
            add(&mut sums.mappings, moved.pages);
            if let Some(blackout) = moved.blackout {
                sums.blackout.add(blackout, 1);
            }
        });
    }

    fn add_unmapped(&mut self, moved: &UnmappedMove) {
        let pages = moved.order.pages();
        self.failed.came(moved.new_pfn, pages);
        add(&mut self.pages, pages);
        add(&mut self.unmapped, pages);
        let without_name = |reason: &Option<Reason>| reason.as_ref().map(nameless);
        of_key(&mut self.by_reason, &Some(moved.reason.clone()), without_name, |sums| {
            sums.add((moved.old_node, moved.new_node), pages);
        });
    }
}

/// Changes the sums of a key, which is looked up once and is copied only on its first use. There are no sums for more
/// than [`MOST_REASONS`] keys: those of `nameless` take their place.
fn of_key<K: Ord + Clone>(
    sums: &mut BTreeMap<K, ReasonTotals>,
    key: &K,
    nameless: impl FnOnce(&K) -> K,
    change: impl FnOnce(&mut ReasonTotals),
) {
    if let Some(known) = sums.get_mut(key) {
        change(known);
    } else {
        let has_room = sums.len() < MOST_REASONS;
        let key = if has_room { key.clone() } else { nameless(key) };
        change(sums.entry(key).or_default());
    }
}

/// The reason, known by its number only.
fn nameless(reason: &Reason) -> Reason {
    Reason {
        name: None,
        ..reason.clone()
    }
}

impl ReasonTotals {
    /// Counts pages that moved, once each.
    fn add(&mut self, nodes: NodePair, pages: u64) {
        if pages > 0 {
            add(&mut self.pages, pages);
            let has_room = self.by_nodes.len() < MOST_PAIRS || self.by_nodes.contains_key(&nodes);
            let nodes = if has_room { nodes } else { (None, None) };
            add(self.by_nodes.entry(nodes).or_default(), pages);
        }
    }
}

impl CompactionTotals {
    fn add(&mut self, pass: &Compaction) {
        self.runs += 1;
        self.time.0 = self.time.0.saturating_add(pass.duration.0);
        self.moved = self.moved.saturating_add(pass.moved);
        self.failed = self.failed.saturating_add(pass.failed);
        if pass.direct {
            self.direct.add(pass.duration, 1);
            self.direct_time.0 = self.direct_time.0.saturating_add(pass.duration.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn durations(nanos: &[u64]) -> Durations {
        let mut durations = Durations::default();
        for &nanos in nanos {
            durations.add(Nanos(nanos), 1);
        }
        durations
    }

    #[test]
    fn buckets_are_powers_of_two() {
        let mut both = durations(&[0, 1, 2, 3, 4, 1023]);
        both.merge(&durations(&[1024, 1 << 40, (1 << 40) + 5]));
        let expected = [
            (0, 1, 1),
            (1, 2, 1),
            (2, 4, 2),
            (4, 8, 1),
            (512, 1024, 1),
            (1024, 2048, 1),
            (1 << 40, 1 << 41, 2),
        ];
        let expected = expected.map(|(lower, upper, count)| (Nanos(lower), Nanos(upper), count));
        assert_eq!(both.buckets().collect::<Vec<_>>(), expected);
        assert_eq!(Durations::default().buckets().count(), 0);
    }

    proptest! {
        #[test]
        fn each_duration_is_in_its_bucket(nanos in 0..1u64 << 50) {
            let buckets: Vec<_> = durations(&[nanos]).buckets().collect();
            let [(lower, upper, 1)] = buckets[..] else { panic!("{buckets:?}") };
            prop_assert!(lower.0 <= nanos && nanos < upper.0, "{nanos} in {lower:?}..{upper:?}");
        }
    }
}
