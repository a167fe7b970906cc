//! Per-CPU counters: losses, and the kernel's own sums that the events are checked against.
//! Written by every probe, read by `source::ring`.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Index into the per-CPU map `COUNTERS`; each value counts up from 0.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Counter { $($(#[$doc])* $name),* }

        impl Counter {
            /// Every counter, in the order of its index.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

counters! {
    /// Mapping events that found no room in the ring.
    LostMappings,
    /// Base pages in those mapping events.
    LostMappingPages,
    /// Process events (fork, exec, exit, first sight) that found no room in their ring.
    LostProcesses,
    /// Renames that were not reported because the task was renamed too often: its last name counts.
    MergedRenames,
    /// Calls of migrate_pages, collapses, and page faults and unmappings for swap whose moves are not reported: they
    /// nest too deep, there is no room for the task, or their end was missed. Collapses whose frames are not certain
    /// count too.
    LostCalls,
    /// Children of targets that are not followed for lack of room.
    LostTargets,
    /// Sum of `succeeded` over all calls of migrate_pages that ended: what the kernel adds to
    /// `pgmigrate_success`. Base pages.
    KernelSucceeded,
    /// Part of `KernelSucceeded` from calls that have no events: they began before the counters were first read, or
    /// after the begins of calls were last checked, or were lost.
    KernelSucceededUnseen,
    /// Base pages of folios seen to move, in calls that ended.
    MovedPages,
    /// Part of `MovedPages`: at least one of the folio's mappings was reported (or lost).
    ReportedPages,
    /// Part of `MovedPages`: mapped, but no owner passed the filter.
    FilteredPages,
    /// Part of `MovedPages`: mapped, not reported, and the owner of a mapping was not known: a process that was
    /// being forked or torn down.
    UnownedPages,
    /// Part of `MovedPages`: no mapping was restored (page cache nobody maps, or unmapped
    /// meanwhile).
    UnmappedPages,
    /// Part of `UnmappedPages`: filtered out, so not reported as folios.
    FilteredUnmappedPages,
    /// Base pages that moved outside migrate_pages, filtered out by reason, order, address or node. Moves that the
    /// owner or the actor excludes are never examined.
    FilteredOutsidePages,
    /// Base pages that the kernel counts as success without moving them: the folio was freed
    /// before its turn came, or is not a folio of the LRU (balloon, zsmalloc).
    ReleasedPages,
    /// Calls whose `succeeded` differs from the pages seen in them.
    UnbalancedCalls,
    /// Mappings that were restored without a start that was seen (tracepoint backend): they are not reported.
    UnpairedMappings,
    /// Mappings whose old frame is one of several candidates (tracepoint backend).
    AmbiguousMappings,
    /// Sum of `failed` over all calls of migrate_pages that ended: what the kernel adds to `pgmigrate_fail`. Base
    /// pages.
    KernelFailed,
    /// Base pages of folios that a call left on its list, which did not move. For calls that are filtered out, or whose
    /// list was not seen, this is the kernel's count.
    FailedPages,
    /// Part of `FailedPages`: reported as failures.
    ReportedFailedPages,
    /// Part of `FailedPages`: filtered out.
    FilteredFailedPages,
    /// Part of `FailedPages`: no room in the ring was found for them, or their call's list was not seen.
    LostFailedPages,
    /// Base pages of folios that NUMA balancing refused to move, filtered out. On 6.1, if `--reason` or `--actor`
    /// excludes them, also those that it could not move.
    FilteredRefusedPages,
    /// Failures that found no room in the ring, and calls with failures whose list was not seen: each counts as one.
    LostFailures,
    /// Calls with more failed folios than are reported.
    CutFailures,
    /// Folios moved without a mapping, or names of their files, that found no room in the ring.
    LostFolios,
    /// Base pages in those folios.
    LostFolioPages,
    /// Runs of compaction that found no room in the ring.
    LostCompactions,
    /// Times that compaction was put off because it had failed shortly before (`compaction_deferred`).
    CompactionDeferred,
    /// Sum of `thp_failed` over all calls: what the kernel adds to `thp_migration_fail`. Folios.
    KernelThpFailed,
    /// Sum of `thp_split` over all calls: what the kernel adds to `thp_migration_split`. Folios.
    KernelThpSplit,
    /// Transparent huge pages seen to move or to be released, and those of calls that count as unseen: what the
    /// kernel adds to `thp_migration_success`. Folios.
    ThpMoved,
    /// Base pages of events in calls that count as lost because their end was missed: they are in no other counter.
    UnbookedPages,
    /// Runs of a program that the kernel skipped, and that its second copy did instead.
    StoodIn,
}

/// Sums by migrate reason that follow the counters; `enum migrate_reason` had 10 or 11 values from 5.15 to 7.3.
pub const REASONS: usize = 16;

/// Length of the map's only value: the counters, then the base pages that moved, were released, or are unseen, by
/// reason.
pub const SLOTS: usize = Counter::ALL.len() + REASONS;
