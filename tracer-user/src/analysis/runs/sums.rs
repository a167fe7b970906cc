//! The sums of a run: by reason and node pair, blackouts, failures, compaction.
//! Input: the totals of a run.

use crate::{
    cells,
    event::Residence,
    run::totals::{Durations, Totals},
    section::{Cell, Column, Note, Section, joined},
    units::PAGE_SIZE,
};

/// Width of the longest name of a reason, in characters: it aligns the tables by reason.
const REASON: usize = 17;

/// The sums for people, without empty tables.
pub(super) fn sections(totals: &Totals, deferred: u64) -> Vec<Section> {
    let mut sections = Vec::new();
    if !totals.by_reason.is_empty() {
        sections.push(reasons(totals));
    }
    sections.extend(blackouts(totals));
    if !totals.failures.is_empty() {
        sections.push(failures(totals));
    }
    sections.extend(compaction(totals, deferred));
    sections
}

/// The sums for programs, complete. `deferred` is the number of times that compaction was deferred, if it is known.
#[must_use]
pub fn record(totals: &Totals, deferred: Option<Cell>) -> Section {
    let verdicts = totals
        .verdicts
        .iter()
        .map(|(verdict, mappings)| (verdict.name(), (*mappings).into()));
    let compaction = &totals.compaction;
    let put_off = deferred.map(|times| ("deferred", times));
    let before = [
        ("runs", compaction.runs.into()),
        ("time_ns", compaction.time.into()),
        ("moved_pages", compaction.moved.into()),
        ("failed_pages", compaction.failed.into()),
    ];
    let compaction = Section::record(
        "",
        before.into_iter().chain(put_off).chain([
            ("direct", compaction.direct.len().into()),
            ("direct_time_ns", compaction.direct_time.into()),
            ("direct_p50_ns", compaction.direct.quantile(0.5).into()),
            ("direct_max_ns", compaction.direct.max().into()),
        ]),
    );
    Section::record(
        "",
        [
            ("events", totals.events.into()),
            ("pages", totals.pages.into()),
            ("unmapped_pages", totals.unmapped.into()),
            ("mappings", totals.mappings.into()),
            ("ambiguous_mappings", totals.ambiguous.into()),
            ("reasons", reasons(totals).into()),
            ("verdicts", Section::record("", verdicts).into()),
            ("failures", failures(totals).into()),
            ("compaction", compaction.into()),
        ],
    )
}

/// Moves by reason and node pair.
fn reasons(totals: &Totals) -> Section {
    let columns = vec![
        Column::name().key("reason").heading("REASON").least(REASON),
        Column::count().key("pages").heading("PAGES"),
        Column::bytes().heading("SIZE"),
        Column::count().key("mappings").heading("MAPPINGS"),
        Column::count().key("nodes").heading("NODES"),
        Column::duration().key("blackout_p50_ns").heading("BLACKOUT p50"),
        Column::duration().key("blackout_p99_ns").heading("p99"),
        Column::duration().key("blackout_max_ns").heading("max"),
        Column::name().key("blackout_histogram"),
    ];
    let mut section = Section::table("reasons", columns);
    for (reason, sums) in &totals.by_reason {
        let by_nodes = sums.by_nodes.iter();
        let by_nodes = by_nodes.map(|((old, new), pages)| (Residence::both(reason.as_ref(), *old, *new), *pages));
        section.row(cells![
            reason.clone().map_or(Cell::Unknown, Cell::Reason),
            sums.pages,
            Cell::Bytes(sums.pages.saturating_mul(PAGE_SIZE)),
            sums.mappings,
            Cell::ByNodes(by_nodes.collect()),
            sums.blackout.quantile(0.5),
            sums.blackout.quantile(0.99),
            sums.blackout.max(),
            Cell::Histogram(sums.blackout.buckets().collect()),
        ]);
    }
    section
}

/// Blackouts of all reasons, one row for each power of two; None if all are in one row.
fn blackouts(totals: &Totals) -> Option<Section> {
    let mut blackouts = Durations::default();
    for sums in totals.by_reason.values() {
        blackouts.merge(&sums.blackout);
    }
    let buckets: Vec<_> = blackouts.buckets().collect();
    let most = buckets.iter().map(|(.., count)| *count).max()?;
    if buckets.len() < 2 {
        return None;
    }
    let columns = vec![
        Column::name().heading("BLACKOUT").least(18),
        Column::count().heading("MOVES TIMED"),
        Column::name().heading(""),
    ];
    let mut section = Section::table("", columns);
    let mut next = buckets[0].0;
    for (lower, upper, count) in buckets {
        if lower != next {
            section.row(cells![Cell::Omitted, "", ""]);
        }
        section.row(cells![Cell::Between(lower, upper), count, Cell::Bar(count, most)]);
        next = upper;
    }
    Some(section)
}

/// Failures by reason and cause.
fn failures(totals: &Totals) -> Section {
    let columns = vec![
        Column::name().key("reason").heading("NOT MOVED").least(REASON),
        // People read the cause last.
        Column::name().key("cause"),
        Column::count().key("failures"),
        Column::count().key("attempts"),
        Column::count().key("folios").heading("FOLIOS"),
        Column::count().key("pages"),
        Column::bytes().heading("SIZE"),
        Column::count().heading("FAILURES"),
        Column::count().heading("ATTEMPTS"),
        Column::name().heading("CAUSE"),
    ];
    let mut section = Section::table("failures", columns);
    for ((reason, cause), sums) in &totals.failures {
        section.row(cells![
            Cell::Reason(reason.clone()),
            Cell::Cause(*cause, reason.clone()),
            sums.failures,
            sums.attempts,
            sums.folios,
            sums.pages,
            Cell::Bytes(sums.pages.saturating_mul(PAGE_SIZE)),
            sums.failures,
            sums.attempts,
            Cell::Cause(*cause, reason.clone()),
        ]);
    }
    section
}

/// The sums of compaction; None if there was none.
fn compaction(totals: &Totals, deferred: u64) -> Option<Section> {
    let sums = &totals.compaction;
    if sums.runs == 0 && deferred == 0 {
        return None;
    }
    let done = cells![
        Cell::Counted(sums.runs, "pass", "passes"),
        " over a zone in ",
        sums.time,
        ": ",
        Cell::Counted(sums.moved, "page", "pages"),
        " moved, ",
        sums.failed,
        " failed"
    ];
    let deferred = (deferred > 0).then(|| cells!["put off ", Cell::Counted(deferred, "time", "times")]);
    let mut notes = vec![Note::about(
        "compaction",
        joined([done].into_iter().chain(deferred), " · "),
    )];
    if let (Some(median), Some(longest)) = (sums.direct.quantile(0.5), sums.direct.max()) {
        notes.push(Note::more(cells![
            sums.direct.len(),
            " of them direct, allocations waited ",
            sums.direct_time,
            ": ",
            median,
            " p50, ",
            longest,
            " max"
        ]));
    }
    Some(Section::notes(notes).apart())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Reason, render::text::plain, run::totals::ReasonTotals, units::Nanos};

    fn text(counts: &[(u64, u64)]) -> String {
        let mut sums = ReasonTotals::default();
        for &(nanos, times) in counts {
            sums.blackout.add(Nanos(nanos), times);
        }
        let reason = Reason { number: 0, name: None };
        let mut totals = Totals::default();
        totals.by_reason.insert(Some(reason), sums);
        blackouts(&totals).map_or_else(String::new, |section| plain(&[section]))
    }

    #[test]
    fn bars() {
        let text = text(&[
            (0, 1),
            (9_000, 12),
            (20_000, 1_234_567),
            (30_000, 300_000),
            (40_000, 600_000),
            (5_000_000, 3),
        ]);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn nothing_to_compare() {
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[(9_000, 12), (10_000, 5)]), "");
    }
}
