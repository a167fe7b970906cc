//! Causes of failures as people read them.
//! Input: the cause, and the reason why the page was to move.

use crate::event::{Reason, failure::Cause};

/// The cause in a few words.
#[must_use]
pub fn cause(cause: Cause, reason: &Reason) -> &'static str {
    // Compaction takes target pages from the end of the zone (its free scanner) and pages to move from the beginning
    // (its other scanner). The run ends when they meet, however much memory is free. Before that, no page of a large
    // folio's size may be left (mm/compaction.c, `compaction_alloc`, `compact_scanners_met`, 6.1 to 7.3).
    let compaction = reason.name.as_deref() == Some("compaction");
    match cause {
        Cause::Unknown => "unknown",
        Cause::References => "in use: extra references",
        Cause::Error => "the copy failed",
        Cause::NoTarget if compaction => "compaction's scanner found no free page for it",
        Cause::NoTarget => "no free page on the target",
        Cause::StillMapped => "a mapping was left",
        Cause::Locked => "locked by somebody (inferred)",
        Cause::Writeback => "under writeback (inferred)",
        Cause::NotTried if compaction => "not tried: compaction's scanner had found no free page (inferred)",
        Cause::NotTried => "not tried: no free page on the target (inferred)",
        Cause::NumaRefused => "refused by NUMA balancing",
        Cause::Pinned => "pinned by a device or direct I/O (inferred)",
    }
}
