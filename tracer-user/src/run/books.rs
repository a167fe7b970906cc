//! Conservation: what the kernel counted against what was seen, and every loss by its place.
//! Input: `pgmigrate_success` and the BPF side's counters, each read at the begin and at the end.

use serde::{Deserialize, Serialize};
use tracer_common::counter::Counter;

use crate::run::{
    account::Account,
    attribution::{Losses, Unattributed},
    counters::{Counters, MissedRuns},
    elsewhere::Elsewhere,
    intervals::IntervalTotals,
};

/// The books of a run, in base pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Books {
    /// The whole run.
    pub whole: Account,
    /// The run by the second.
    pub intervals: IntervalTotals,
    /// Of the pages that moved, reported.
    pub reported: u64,
    /// Of those, filtered out: of processes, or for reasons and so on, that nobody asked for.
    pub filtered: u64,
    /// Of those, of a process that was being forked or torn down: it has no number to be reported by.
    pub unowned: u64,
    /// Of those, without any mapping.
    pub unmapped: u64,
    /// Base pages of folios that calls left on their lists; the kernel counts some twice, or those that it splits.
    pub failed_seen: u64,
    /// Of those, reported.
    pub failed_reported: u64,
    /// What else the kernel side filtered out.
    pub unasked: Unasked,
    /// Times that compaction was put off because it had failed shortly before.
    pub compaction_deferred: u64,
    /// What the kernel counted of moves outside migrate_pages.
    pub elsewhere: Elsewhere,
    /// What was lost.
    pub lost: Lost,
}

/// Base pages that did not move, or not by a mapping, filtered out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unasked {
    /// Part of [`Books::failed_seen`].
    pub failed: u64,
    /// Of folios that NUMA balancing refused to move.
    pub refused: u64,
    /// Part of [`Books::unmapped`].
    pub unmapped: u64,
    /// Moved outside migrate_pages, and kept out by another filter than those by owner and actor.
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
    /// Process events that found the ring full.
    pub processes: u64,
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
    /// Calls with more failures than are told of.
    pub cut_failures: u64,
    /// Runs of compaction that found the ring full.
    pub compactions: u64,
    /// Mappings whose start was not seen (tracepoint backend).
    pub unpaired: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Children of the traced processes that there was no room to follow.
    pub targets: u64,
    /// Runs of BPF programs that the kernel skipped.
    pub missed_runs: MissedRuns,
    /// Correlation: pages whose owner nobody looked for, because reading had fallen behind (tracepoint backend).
    pub unsearched_pages: u64,
    /// Correlation: pages that nobody asked pagemap about.
    pub not_asked_pages: u64,
    /// Correlation: pages of mappings without an owner.
    pub unattributed: Unattributed,
}

impl Lost {
    /// Everything lost so far.
    #[must_use]
    pub fn new(counters: &Counters, undecoded: u64, missed_runs: MissedRuns, correlation: Losses) -> Self {
        let sum = |counter| counters.sum(counter);
        Self {
            mappings_by_cpu: counters.by_cpu(Counter::LostMappings).to_vec(),
            mapping_pages: sum(Counter::LostMappingPages),
            processes: sum(Counter::LostProcesses),
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

    /// Events that are missing altogether.
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
        // Those of a recording may be as many as can be written.
        let all = self.mappings_by_cpu.iter().chain(&others);
        all.fold(0, |sum, events| sum.saturating_add(*events))
    }
}

impl Books {
    /// Closes the books: `whole` is the run's account, `counters` what was added in it.
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
            // By owner the tracepoint backend filters in correlation, by all else where the exact one does.
            filtered: counters.sum(Counter::FilteredPages) + correlation.filtered_pages,
            unowned: counters.sum(Counter::UnownedPages),
            unmapped: counters.sum(Counter::UnmappedPages),
            failed_seen: counters.sum(Counter::FailedPages),
            failed_reported: counters.sum(Counter::ReportedFailedPages),
            unasked: Unasked::new(counters),
            compaction_deferred: counters.sum(Counter::CompactionDeferred),
            elsewhere: Elsewhere::default(),
            whole,
            intervals,
            lost,
        }
    }

    /// Whether the run and each interval balance, as far as this backend can see.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.whole.balanced() && self.intervals.unbalanced == 0
    }

    /// Whether the run and each interval are shown to balance: nothing that moved is excused for not being seen.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.whole.proven() && self.intervals.unbalanced == 0
    }
}
