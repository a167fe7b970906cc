//! The books of a run: the kernel's count, tracer's count, and every loss by its place.
//! Input: `pgmigrate_success` and the BPF side's counters, each read at the begin and at the end.

use serde::{Deserialize, Serialize};
use tracer_common::counter::Counter;

use crate::run::{
    account::Account,
    attribution::{Losses, Unattributed},
    counters::{Counters, MissedRuns},
    intervals::IntervalTotals,
    outside::Outside,
};

/// The books of a run, in base pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Books {
    /// The whole run.
    pub whole: Account,
    /// The run, second by second.
    pub intervals: IntervalTotals,
    /// Moved pages that were reported.
    pub reported: u64,
    /// Moved pages that were filtered out: by process, reason, or another filter.
    pub filtered: u64,
    /// Moved pages of a process that was being forked or torn down: it has no number to be reported by.
    pub unowned: u64,
    /// Moved pages without any mapping.
    pub unmapped: u64,
    /// Pages of events in calls that had not ended at the last reading, or whose end was missed. Neither side of the
    /// books has them.
    pub unbooked: u64,
    /// Reported pages that moved outside migrate_pages. Neither side of the books has them. None: the recording is of a
    /// version that did not count them.
    pub outside: Option<u64>,
    /// Base pages of folios that calls left on their lists; the kernel counts some twice, and folios that it splits.
    pub failed_seen: u64,
    /// Pages of [`Self::failed_seen`] that were reported.
    pub failed_reported: u64,
    /// Other pages that the BPF side filtered out.
    pub unasked: Unasked,
    /// The number of times that compaction was deferred because it had failed shortly before.
    pub compaction_deferred: u64,
    /// The kernel's counts of moves outside migrate_pages, on the whole machine.
    #[serde(rename = "elsewhere")]
    pub machine_outside: Outside,
    /// Events that were lost.
    pub lost: Lost,
}

/// Filtered base pages that did not move, or that moved without a mapping or outside migrate_pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unasked {
    /// Part of [`Books::failed_seen`].
    pub failed: u64,
    /// Pages of folios that NUMA balancing refused to move.
    pub refused: u64,
    /// Part of [`Books::unmapped`].
    pub unmapped: u64,
    /// Pages that moved outside migrate_pages and were filtered out by something other than owner and actor.
    pub outside: u64,
}

impl Unasked {
    fn new(counters: &Counters) -> Self {
        Self {
            failed: counters.sum(Counter::FilteredFailedPages),
            refused: counters.sum(Counter::FilteredRefusedPages),
            unmapped: counters.sum(Counter::FilteredUnmappedPages),
            outside: counters.sum(Counter::FilteredOutsidePages),
        }
    }
}

/// Losses by place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lost {
    /// Mapping events that found the ring full, by CPU.
    pub mappings_by_cpu: Vec<u64>,
    /// Base pages in them.
    pub mapping_pages: u64,
    /// Process events that found their ring full.
    pub processes: u64,
    /// Renames that were not reported because the process or thread was renamed too often. Its last name counts.
    pub merged_renames: u64,
    /// Calls of migrate_pages whose context could not be kept.
    pub calls: u64,
    /// Folios moved without a mapping that found the ring full.
    pub folios: u64,
    /// Base pages in them.
    pub folio_pages: u64,
    /// Failures that found the ring full.
    pub failures: u64,
    /// Base pages in them; without those that NUMA balancing refused, as in [`Books::failed_seen`].
    pub failure_pages: u64,
    /// Calls with more failures than are reported.
    pub cut_failures: u64,
    /// Passes of compaction that found the ring full.
    pub compactions: u64,
    /// Mappings whose start was not seen (tracepoint backend).
    pub unpaired: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Children of the traced processes that are not followed, because there was no room.
    pub targets: u64,
    /// Runs of BPF programs that the kernel skipped.
    pub missed_runs: MissedRuns,
    /// Correlation: pages whose owner was not searched for, because reading had fallen behind (tracepoint backend).
    pub unsearched_pages: u64,
    /// Correlation: pages that were not checked against pagemap.
    pub not_asked_pages: u64,
    /// Correlation: pages of mappings without an owner.
    pub unattributed: Unattributed,
}

impl Lost {
    /// All losses up to this moment.
    #[must_use]
    pub fn new(counters: &Counters, undecoded: u64, missed_runs: MissedRuns, correlation: Losses) -> Self {
        let sum = |counter| counters.sum(counter);
        Self {
            mappings_by_cpu: counters.by_cpu(Counter::LostMappings).to_vec(),
            mapping_pages: sum(Counter::LostMappingPages),
            processes: sum(Counter::LostProcesses),
            merged_renames: sum(Counter::MergedRenames),
            folios: sum(Counter::LostFolios),
            folio_pages: sum(Counter::LostFolioPages),
            failures: sum(Counter::LostFailures),
            failure_pages: sum(Counter::LostFailedPages),
            cut_failures: sum(Counter::CutFailures),
            compactions: sum(Counter::LostCompactions),
            calls: sum(Counter::LostCalls),
            targets: sum(Counter::LostTargets),
            unpaired: sum(Counter::UnpairedMappings),
            undecoded,
            missed_runs,
            unsearched_pages: correlation.unsearched_pages,
            not_asked_pages: correlation.not_asked_pages,
            unattributed: correlation.unattributed,
        }
    }

    /// Events that were lost as a whole.
    #[must_use]
    pub fn events(&self) -> u64 {
        let others = [
            self.processes,
            self.folios,
            self.failures,
            self.cut_failures,
            self.compactions,
            self.calls,
            self.targets,
            self.undecoded,
            self.missed_runs.events,
            self.unsearched_pages,
        ];
        // A recording may contain counts of any size.
        let all = self.mappings_by_cpu.iter().chain(&others);
        all.fold(0, |sum, events| sum.saturating_add(*events))
    }
}

impl Lost {
    /// Whether [`Self::events`] is an estimate: a lost call, or a skipped run of a program, counts as one event, and may
    /// have had any number of them.
    #[must_use]
    pub fn is_estimate(&self) -> bool {
        [self.cut_failures, self.calls, self.targets, self.missed_runs.events] != [0; 4]
    }
}

impl Books {
    /// Closes the books: `whole` is the run's account, `counters` the growth of the counters in it.
    #[must_use]
    pub fn close(
        whole: Account,
        counters: &Counters,
        intervals: IntervalTotals,
        lost: Lost,
        correlation: Losses,
    ) -> Self {
        Self {
            reported: correlation
                .reported_pages
                .unwrap_or_else(|| counters.sum(Counter::ReportedPages)),
            // The tracepoint backend filters owners in correlation, and all else on the BPF side like the exact one.
            filtered: counters.sum(Counter::FilteredPages) + correlation.filtered_pages,
            unowned: counters.sum(Counter::UnownedPages),
            unmapped: counters.sum(Counter::UnmappedPages),
            unbooked: 0,
            outside: Some(correlation.outside_pages),
            failed_seen: counters.sum(Counter::FailedPages),
            failed_reported: counters.sum(Counter::ReportedFailedPages),
            unasked: Unasked::new(counters),
            compaction_deferred: counters.sum(Counter::CompactionDeferred),
            machine_outside: Outside::default(),
            whole,
            intervals,
            lost,
        }
    }

    /// Whether the run and each interval balance, as far as the backend sees pages.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.whole.balanced() && self.intervals.unbalanced == 0
    }

    /// Whether the run and each interval are proven to balance and contain every page that has an event: no difference is
    /// excused.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.whole.proven() && self.intervals.unbalanced == 0 && self.unbooked == 0
    }
}
