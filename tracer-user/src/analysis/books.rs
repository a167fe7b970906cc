//! Conservation: what the kernel counted against what was seen, and every loss by its place.
//! Input: `pgmigrate_success` and the BPF side's counters, each read at the begin and at the end.

use tracer_common::counter::Counter;

use crate::{
    correlate::Losses,
    source::ring::{Backend, Counters, MissedRuns},
};

/// One reading of both sides at a moment when they agreed.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// `pgmigrate_success` of /proc/vmstat, base pages; None: this kernel does not show it.
    pub kernel_pages: Option<u64>,
    /// The BPF side's counters.
    pub counters: Counters,
    /// Both were read while nothing changed; else they may be of different moments.
    pub settled: bool,
}

/// The books of a run, in base pages.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// What the kernel added to `pgmigrate_success`; None: it does not show it.
    pub kernel: Option<u64>,
    /// Of it, in calls of migrate_pages that had begun before tracing, or whose context was lost.
    pub unseen: u64,
    /// Folios freed before they moved, or not of the LRU: the kernel counts them as success.
    pub released: u64,
    /// Folios seen to move.
    pub moved: u64,
    /// Of those, reported.
    pub reported: u64,
    /// Of those, filtered out: of processes, or for reasons and so on, that nobody asked for.
    pub filtered: u64,
    /// Of those, of a process that was being forked or torn down: it has no number to be reported by.
    pub unowned: u64,
    /// Of those, without any mapping.
    pub unmapped: u64,
    /// Calls in which the kernel's count and ours differ.
    pub unbalanced_calls: u64,
    /// The kernel's count and ours were read at quiet moments; else they may differ by what moved between the looks.
    pub settled: bool,
    /// What was lost.
    pub lost: Lost,
    /// The tracepoint backend sees mappings, not folios: what has none is missing from `moved`.
    pub blind_to_unmapped: bool,
}

/// Losses by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Mapping events that found the ring full, by CPU.
    pub mappings_by_cpu: Vec<u64>,
    /// Base pages in them.
    pub mapping_pages: u64,
    /// Process events that found the ring full.
    pub processes: u64,
    /// Calls of migrate_pages whose context could not be kept.
    pub calls: u64,
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
    /// Correlation: pages without an owner.
    pub unattributed_pages: u64,
}

impl Lost {
    /// Events that are missing altogether.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.mappings_by_cpu.iter().sum::<u64>()
            + self.processes
            + self.calls
            + self.targets
            + self.undecoded
            + self.missed_runs.moves
            + self.unsearched_pages
    }
}

impl Books {
    /// Closes the books.
    #[must_use]
    pub fn close(
        backend: Backend,
        begin: &Reading,
        end: &Reading,
        after_drain: &Counters,
        undecoded: u64,
        missed_runs: MissedRuns,
        correlation: Losses,
    ) -> Self {
        let between = end.counters.since(&begin.counters);
        let sum = |counter| between.sum(counter);
        // Losses count from the first hook on: the maps began at 0. Calls are lost only while both sides are looked at:
        // in the moments of detaching, begins come without their ends.
        let lost = after_drain;
        let exact = backend == Backend::Exact;
        Self {
            kernel: end
                .kernel_pages
                .zip(begin.kernel_pages)
                .map(|(end, begin)| end.saturating_sub(begin)),
            unseen: sum(Counter::KernelSucceededUnseen),
            released: sum(Counter::ReleasedPages),
            moved: sum(Counter::MovedPages),
            reported: if exact {
                sum(Counter::ReportedPages)
            } else {
                correlation.reported_pages
            },
            // By owner the tracepoint backend filters in correlation, by all else where the exact one does.
            filtered: sum(Counter::FilteredPages) + correlation.filtered_pages,
            unowned: sum(Counter::UnownedPages),
            unmapped: sum(Counter::UnmappedPages),
            unbalanced_calls: sum(Counter::UnbalancedCalls),
            settled: begin.settled && end.settled,
            lost: Lost {
                mappings_by_cpu: lost.by_cpu(Counter::LostMappings).to_vec(),
                mapping_pages: lost.sum(Counter::LostMappingPages),
                processes: lost.sum(Counter::LostProcesses),
                calls: end.counters.sum(Counter::LostCalls),
                targets: lost.sum(Counter::LostTargets),
                unpaired: lost.sum(Counter::UnpairedMappings),
                undecoded,
                missed_runs,
                not_asked_pages: correlation.not_asked_pages,
                unsearched_pages: correlation.unsearched_pages,
                unattributed_pages: correlation.unattributed_pages,
            },
            blind_to_unmapped: !exact,
        }
    }

    /// What the kernel counted and tracer cannot account for; 0 when the books balance. None: the
    /// kernel shows no count.
    #[must_use]
    pub fn imbalance(&self) -> Option<i64> {
        let accounted = self.moved + self.released + self.unseen;
        Some(i64::try_from(self.kernel?).ok()? - i64::try_from(accounted).ok()?)
    }

    /// Whether the books balance, as far as this backend can see, and as far as the two counts can be compared.
    #[must_use]
    pub fn balanced(&self) -> bool {
        // Each call's own count is compared when it ends, whatever the machine does meanwhile.
        let calls = self.unbalanced_calls == 0 || self.blind_to_unmapped;
        let sums = match self.imbalance() {
            None | Some(0) => true,
            Some(_) if !self.settled => true,
            // Unmapped folios are missing, and nothing else may be.
            Some(missing) => self.blind_to_unmapped && missing > 0,
        };
        calls && sums
    }
}
