//! The lines of `tracer --json`, with the keys that the cases need.
//! Input: stdout of tracer; docs/json.md describes every key.

use anyhow::{Result, ensure};
use serde::Deserialize;

/// A line of `kind` "move", with the keys that the cases need.
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct MoveLine {
    pub ts_ns: u64,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub vaddr: Hex,
    pub pages: u64,
    pub order: u8,
    pub old_pfn: Option<Hex>,
    pub new_pfn: Option<Hex>,
    pub old_node: Option<u32>,
    pub new_node: Option<u32>,
    pub reason: String,
    pub actor_pid: u32,
    pub actor_tid: u32,
    pub actor_comm: Option<String>,
    pub blackout_ns: Option<u64>,
    pub vma: Option<VmaObject>,
    pub verdict: String,
    pub owner_source: Option<String>,
    pub nth: Option<u8>,
    pub cpu: u16,
}

/// A line of `kind` "unmapped_move".
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct UnmappedLine {
    pub ts_ns: u64,
    pub pages: u64,
    pub order: u8,
    pub old_pfn: Option<Hex>,
    pub new_pfn: Option<Hex>,
    pub reason: String,
    pub file: Option<FileObject>,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct FileObject {
    pub dev: String,
    pub inode: u64,
    pub offset: u64,
    pub name: Option<String>,
}

/// A line of `kind` "failure".
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct FailureLine {
    pub ts_ns: u64,
    pub pages: u64,
    pub order: u8,
    pub pfn: Option<Hex>,
    pub node: Option<u32>,
    pub reason: String,
    pub mode: String,
    pub cause: String,
    pub inferred: bool,
    pub errno: Option<u32>,
    pub attempts: u32,
    pub refs: Option<u32>,
    pub expected_refs: Option<u32>,
    pub map_count: Option<u32>,
    pub flags: Vec<String>,
    pub owners: Vec<PlaceObject>,
    pub actor_pid: u32,
}

/// The mapping of a folio that could not be moved.
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct PlaceObject {
    pub pid: u32,
    pub vaddr: Hex,
    pub vma: Option<VmaObject>,
    pub inferred: bool,
}

/// A line of `kind` "compaction".
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct CompactionLine {
    pub ts_ns: u64,
    pub duration_ns: u64,
    pub order: Option<u8>,
    pub node: Option<u32>,
    pub zone: String,
    pub direct: bool,
    pub sync: bool,
    pub proactive: bool,
    pub result: String,
    pub moved_pages: u64,
    pub failed_pages: u64,
    pub actor_pid: u32,
    pub actor_comm: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct VmaObject {
    pub start: Hex,
    pub end: Hex,
    pub perms: String,
    pub name: String,
}

/// "0x7f..." as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Hex(pub u64);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text
            .strip_prefix("0x")
            .ok_or_else(|| format!("{text:?} does not start with 0x"))?;
        u64::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|e| format!("{text:?}: {e}"))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct SummaryLine {
    pub backend: String,
    pub pages: u64,
    pub compaction: Compactions,
    pub lost: Lost,
    pub books: Books,
}

/// Sums of the passes of compaction.
#[derive(Clone, Debug, Deserialize)]
pub struct Compactions {
    pub deferred: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct Lost {
    pub events: u64,
    pub mapping_pages: u64,
    pub failures: u64,
    pub failure_pages: u64,
    pub cut_failures: u64,
    pub folios: u64,
    pub compactions: u64,
    pub process_events: u64,
    #[serde(default)]
    pub merged_renames: u64,
    pub targets: u64,
    pub calls: u64,
    pub undecoded: u64,
    pub missed_runs: u64,
    pub missed_detail_runs: u64,
    pub stood_in_runs: u64,
    pub not_asked_pages: u64,
    pub unattributed_pages: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct Books {
    pub kernel_pages: Option<u64>,
    pub moved_pages: u64,
    pub unmapped_pages: u64,
    pub unmapped_filtered_pages: u64,
    pub unbooked_pages: u64,
    pub outside_pages: u64,
    pub released_pages: u64,
    pub failed_seen_pages: u64,
    pub failed_reported_pages: u64,
    pub failed_filtered_pages: u64,
    pub unbalanced_calls: u64,
    pub settled: bool,
    pub reported_pages: u64,
    pub filtered_pages: u64,
    pub outside_filtered_pages: u64,
    pub imbalance: Option<i64>,
    pub checks: Vec<Check>,
    pub unattributed: Unattributed,
    pub intervals: Intervals,
    pub balanced: bool,
    pub proven: bool,
}

/// Pages without an owner.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Unattributed {
    pub unsearched_pages: u64,
    pub not_found_pages: u64,
}

/// A count of the kernel, and tracer's own count of the same.
#[derive(Clone, Debug, Deserialize)]
pub struct Check {
    pub name: String,
    pub kernel: u64,
    pub seen: u64,
    pub difference: i64,
    pub exact: bool,
}

/// A line of `kind` "books": a second of the books.
#[derive(Clone, Debug, Deserialize)]
pub struct BooksLine {
    pub begin_ns: u64,
    pub end_ns: u64,
    pub kernel_pages: Option<u64>,
    pub imbalance: Option<i64>,
    pub settled: bool,
    pub lost_events: u64,
    pub checks: Vec<Check>,
    pub balanced: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code, reason = "a failure's message shows every field")]
pub struct Intervals {
    pub closed: u64,
    pub unbalanced: u64,
}

impl SummaryLine {
    /// Checks that the kernel's counts equal tracer's, to the page, per call and per second, for every kind of run.
    /// Only the exact backend can do that. If the kernel skipped programs, which is reported, it sees fewer pages, like
    /// the tracepoint backend. If pages moved during the first or last look of a run, the counts may differ by these.
    pub fn ensure_conservation(&self) -> Result<()> {
        let books = &self.books;
        let skipped = self.lost.missed_runs > 0;
        let fits = |difference: i64| difference == 0 || skipped && difference > 0;
        let balanced = if self.backend == "exact" {
            let checks = books.checks.iter().filter(|check| check.exact);
            let whole = books.imbalance.is_none_or(fits) && checks.map(|check| check.difference).all(fits);
            let parts = books.unbalanced_calls == 0 && books.intervals.unbalanced == 0;
            (parts || skipped) && (whole || !books.settled)
        } else {
            !books.settled || books.imbalance.is_none_or(|pages| pages >= 0)
        };
        ensure!(
            balanced,
            "the {} backend's books do not balance: {books:?}",
            self.backend
        );
        Ok(())
    }
}

/// A line, by its `kind`.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Line {
    Move(MoveLine),
    UnmappedMove(UnmappedLine),
    Failure(FailureLine),
    Compaction(CompactionLine),
    Books(BooksLine),
    Summary(SummaryLine),
}
