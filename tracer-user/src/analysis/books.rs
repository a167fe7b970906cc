//! The books of a run: the kernel's count, tracer's count, and what is wrong where they differ.
//! Input: accounts of the run and of its intervals.

use crate::{
    cells,
    run::{
        account::Account,
        books::{Books, Unasked},
        intervals::{IntervalTotals, SoFar},
    },
    section::{Cell, Note, joined},
    units::Nanos,
};

/// Names what is wrong with an account that does not balance; empty for one that balances.
#[must_use]
pub fn complaints(account: &Account) -> Vec<Vec<Cell>> {
    let mut complaints = Vec::new();
    if account.balanced() {
        return complaints;
    }
    let excused = account.blind_to_unmapped || !account.settled;
    match account.imbalance() {
        Some(missing) if missing < 0 || (missing > 0 && !excused) => {
            let pages = if missing.unsigned_abs() == 1 {
                " page is"
            } else {
                " pages are"
            };
            complaints.push(cells![Cell::Difference(missing), pages, " not accounted for"]);
        }
        _ if account.unbalanced_calls > 0 && !account.blind_to_unmapped => complaints.push(cells![
            "in ",
            Cell::Counted(account.unbalanced_calls, "call", "calls"),
            " of migrate_pages the kernel's count differs from what was seen"
        ]),
        _ => {}
    }
    complaints.extend(account.differing().map(|check| {
        cells![
            Cell::Text(check.name.clone()),
            ": the kernel counted ",
            check.kernel,
            ", tracer saw ",
            check.seen
        ]
    }));
    complaints
}

/// How many of the run's intervals do not balance, and by how much; None if all balance.
#[must_use]
pub fn unbalanced(intervals: &IntervalTotals, begin: Nanos) -> Option<Vec<Cell>> {
    let worst = intervals.worst.as_ref()?;
    let mut words = cells![
        intervals.unbalanced,
        " of ",
        Cell::Counted(intervals.closed, "interval", "intervals"),
        if intervals.unbalanced == 1 { " does" } else { " do" },
        " not balance, the worst ",
        worst.begin.since(begin),
        " after the begin: "
    ];
    words.extend(joined(complaints(worst), "; "));
    Some(words)
}

/// Why `--strict` rejects books although nothing is known to be wrong with them.
#[must_use]
pub fn unproven(books: &Books) -> Vec<Cell> {
    let account = &books.whole;
    if books.unbooked > 0 && account.proven() {
        return cells![
            pages(books.unbooked),
            " in rows of calls that had not ended at the last reading"
        ];
    }
    match account.imbalance() {
        None => cells!["the kernel shows no count of moved pages"],
        Some(missing) if missing > 0 && account.blind_to_unmapped => {
            cells![pages(missing.unsigned_abs()), " moved that this backend cannot see"]
        }
        Some(0) => cells!["a count was not met, or was read while pages moved"],
        Some(missing) => cells![
            Cell::Difference(missing),
            if missing.unsigned_abs() == 1 { " page" } else { " pages" },
            " while the counts were read: pages moved all the time"
        ],
    }
}

fn pages(pages: u64) -> Cell {
    Cell::Counted(pages, "page", "pages")
}

/// The books of a run that does not say how it ended, as far as they go. They are `whole` unless files of the run are
/// missing before the last interval.
pub(super) fn so_far(so_far: &SoFar, begun: Nanos, whole: bool) -> Note {
    let until = so_far.until.since(begun);
    let mut words = if whole {
        cells!["until ", until, " after the begin"]
    } else {
        let intervals = Cell::Counted(so_far.totals.closed, "interval", "intervals");
        let from = so_far.from.since(begun);
        cells!["in ", intervals, " between ", from, " and ", until, " after the begin"]
    };
    words.extend(cells![
        " the kernel counted ",
        so_far.kernel,
        ", tracer saw ",
        so_far.moved,
        "; how it ended is not known"
    ]);
    Note::about("books", words)
}

/// Both sides of the books, the parts of the difference, and what is wrong.
pub(super) fn notes(books: &Books) -> Vec<Note> {
    let whole = &books.whole;
    let kernel = whole
        .kernel
        .map_or_else(|| "nothing (no pgmigrate_success)".into(), Cell::Count);
    let mut notes = vec![Note::about(
        "books",
        cells!["the kernel counted ", kernel, ", tracer saw ", whole.moved],
    )];
    let split = [books.filtered, books.unowned, books.unmapped] != [0; 3];
    let unattributed = books.lost.unattributed;
    let parts = [
        (if split { books.reported } else { 0 }, "requested"),
        (books.filtered, "not requested"),
        (books.unowned, "of a process that was being forked or torn down"),
        (
            books.unmapped,
            "of nobody (page cache without a mapping, a driver's, or unmapped meanwhile)",
        ),
        (
            whole.released,
            "counted by the kernel, but freed before they moved, or a driver's (zram, balloon)",
        ),
        (
            whole.unseen,
            "in calls without rows: they began before the first reading, or when the run ended",
        ),
        (
            books.unbooked,
            "more in rows of calls that had not ended at the last reading: in none of these sums",
        ),
        (
            unattributed.unnamed,
            "without an owner: of a process that was being forked or torn down",
        ),
        (
            unattributed.unsearched,
            "without an owner: tracer had fallen behind, and nobody looked for one",
        ),
        (
            unattributed.not_found,
            "found in no traced process when pagemap was read",
        ),
        (
            books.lost.not_asked_pages,
            "not checked against pagemap: tracer had fallen behind",
        ),
    ];
    notes.extend(
        parts
            .into_iter()
            .filter(|(pages, _)| *pages > 0)
            .map(|(pages, what)| Note::more(cells![pages, " ", what])),
    );
    notes.extend(outside(books));
    if books.lost.unpaired > 0 {
        let mappings = Cell::Counted(books.lost.unpaired, "mapping", "mappings");
        notes.push(Note::more(cells![mappings, " restored whose start was not seen"]));
    }
    if books.lost.merged_renames > 0 {
        let renames = Cell::Counted(books.lost.merged_renames, "rename", "renames");
        notes.push(Note::more(cells![
            renames,
            " merged: the name of a task that is renamed many times in 10 ms may be that old"
        ]));
    }
    match whole.imbalance() {
        Some(missing) if missing > 0 && whole.blind_to_unmapped => notes.push(Note::more(cells![
            missing.unsigned_abs(),
            " not visible to this backend: no mapping, or freed before they moved"
        ])),
        Some(missing) if missing != 0 && !whole.settled => notes.push(Note::more(cells![
            Cell::Difference(missing),
            " while the counts were read: pages moved all the time"
        ])),
        _ => {}
    }
    let intervals = &books.intervals;
    if intervals.closed > 0 && intervals.unbalanced == 0 && !whole.blind_to_unmapped {
        notes.push(Note::more(cells![
            "balanced in each of ",
            Cell::Counted(intervals.closed, "interval", "intervals")
        ]));
    }
    notes.extend(complaints(whole).into_iter().map(|complaint| {
        let words = cells!["the books do not balance: "].into_iter().chain(complaint);
        Note::alarm("WARNING", words.collect())
    }));
    notes.extend(unbalanced(intervals, whole.begin).map(|words| Note::alarm("WARNING", words)));
    notes
}

/// The reported pages that the books cannot have, because the kernel moved them in other ways; empty if there are none.
pub(super) fn outside(books: &Books) -> Option<Note> {
    let outside = books.outside.filter(|pages| *pages > 0)?;
    Some(Note::more(cells![
        pages(outside),
        " in rows of moves outside migrate_pages: in none of these sums"
    ]))
}

/// Filtered pages that are not moves of mapped pages; empty if there are none.
pub(super) fn filtered(unasked: &Unasked) -> Vec<Note> {
    let mut label = "filtered";
    let parts = [
        (unasked.unmapped, " that nobody maps"),
        (unasked.failed, " that could not be moved"),
        (unasked.refused, " that NUMA balancing refused to move"),
        (unasked.outside, " that moved outside migrate_pages"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts
        .map(|(count, what)| Note::about(std::mem::take(&mut label), cells![pages(count), what]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, render::text::plain, section::Section};

    #[test]
    fn intervals_that_are_not_here_are_in_no_sum() {
        let mut intervals = SoFar::default();
        intervals.add(&made_up::interval());
        let text = |whole| plain(&[Section::notes(vec![so_far(&intervals, Nanos(0), whole)])]);
        let sums = " after the begin the kernel counted 1,000, tracer saw 900; how it ended is not known\n";
        let until = intervals.until;
        assert_eq!(text(true), format!("books     until {}{sums}", nanos(until)));
        let from = intervals.from;
        let between = format!("between {} and {}", nanos(from), nanos(until));
        assert_eq!(text(false), format!("books     in 1 interval {between}{sums}"));
    }

    fn nanos(at: Nanos) -> String {
        plain(&[Section::notes(vec![Note::plain(cells![at])])])
            .trim()
            .to_owned()
    }
}
