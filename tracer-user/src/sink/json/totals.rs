//! What moved, in sums, as JSON: of a run, or of what is asked for of one.
//! Input: sums over events.

use serde::Serialize;

use crate::{event::failure::cause_name, run::totals::Totals};

#[derive(Serialize)]
struct FailureCount {
    reason: String,
    cause: &'static str,
    attempts: u64,
    folios: u64,
    pages: u64,
}

#[derive(Serialize)]
struct CompactionSums {
    runs: u64,
    time_ns: u64,
    moved_pages: u64,
    failed_pages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deferred: Option<u64>,
    direct: u64,
    direct_time_ns: u64,
    direct_p50_ns: Option<u64>,
    direct_max_ns: Option<u64>,
}

#[derive(Serialize)]
struct NodesLine {
    old_node: Option<u32>,
    new_node: Option<u32>,
    pages: u64,
}

#[derive(Serialize)]
struct ReasonLine {
    reason: String,
    pages: u64,
    mappings: u64,
    nodes: Vec<NodesLine>,
    blackout_p50_ns: Option<u64>,
    blackout_p99_ns: Option<u64>,
    blackout_max_ns: Option<u64>,
    /// Lower bound, upper bound, count.
    blackout_histogram: Vec<(u64, u64, u64)>,
}

/// The keys of sums over events.
#[derive(Serialize)]
pub struct TotalsKeys {
    events: u64,
    pages: u64,
    unmapped_pages: u64,
    mappings: u64,
    ambiguous_mappings: u64,
    reasons: Vec<ReasonLine>,
    verdicts: serde_json::Map<String, serde_json::Value>,
    failures: Vec<FailureCount>,
    compaction: CompactionSums,
}

impl TotalsKeys {
    /// `deferred`: how often compaction was put off; None where that is not told.
    #[must_use]
    pub fn new(totals: &Totals, deferred: Option<u64>) -> Self {
        let reasons = totals.by_reason.iter().map(|(reason, sums)| ReasonLine {
            reason: reason.to_string(),
            pages: sums.pages,
            mappings: sums.mappings,
            nodes: sums
                .by_nodes
                .iter()
                .map(|(&(old, new), &pages)| NodesLine {
                    old_node: old.map(|node| node.0),
                    new_node: new.map(|node| node.0),
                    pages,
                })
                .collect(),
            blackout_p50_ns: sums.blackout.quantile(0.5).map(|nanos| nanos.0),
            blackout_p99_ns: sums.blackout.quantile(0.99).map(|nanos| nanos.0),
            blackout_max_ns: sums.blackout.max().map(|nanos| nanos.0),
            blackout_histogram: sums
                .blackout
                .buckets()
                .map(|(lower, upper, count)| (lower.0, upper.0, count))
                .collect(),
        });
        Self {
            events: totals.events,
            pages: totals.pages,
            unmapped_pages: totals.unmapped,
            mappings: totals.mappings,
            ambiguous_mappings: totals.ambiguous,
            reasons: reasons.collect(),
            verdicts: totals
                .verdicts
                .iter()
                .map(|(v, &pages)| (v.name().to_owned(), pages.into()))
                .collect(),
            failures: totals
                .failures
                .iter()
                .map(|((reason, cause), sums)| FailureCount {
                    reason: reason.to_string(),
                    cause: cause_name(*cause),
                    attempts: sums.attempts,
                    folios: sums.folios,
                    pages: sums.pages,
                })
                .collect(),
            compaction: CompactionSums {
                runs: totals.compaction.runs,
                time_ns: totals.compaction.time.0,
                moved_pages: totals.compaction.moved,
                failed_pages: totals.compaction.failed,
                deferred,
                direct: totals.compaction.direct.len(),
                direct_time_ns: totals.compaction.direct_time.0,
                direct_p50_ns: totals.compaction.direct.quantile(0.5).map(|nanos| nanos.0),
                direct_max_ns: totals.compaction.direct.max().map(|nanos| nanos.0),
            },
        }
    }
}
