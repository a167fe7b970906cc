//! The books as JSON: the accounts of the run and of its intervals.
//! Input: closed accounts.

use std::borrow::Cow;

use serde::Serialize;

use crate::run::{
    account::{Account, Check},
    books::Books,
    intervals::Interval,
};

#[derive(Serialize)]
struct CheckLine {
    name: Cow<'static, str>,
    kernel: u64,
    seen: u64,
    difference: i64,
    exact: bool,
}

impl From<&Check> for CheckLine {
    fn from(check: &Check) -> Self {
        Self {
            name: check.name.clone(),
            kernel: check.kernel,
            seen: check.seen,
            difference: check.difference(),
            exact: check.exact,
        }
    }
}

/// The keys of every account: the run's and an interval's.
#[derive(Serialize)]
struct AccountKeys {
    begin_ns: u64,
    end_ns: u64,
    kernel_pages: Option<u64>,
    moved_pages: u64,
    released_pages: u64,
    unseen_pages: u64,
    unbalanced_calls: u64,
    imbalance: Option<i64>,
    settled: bool,
    checks: Vec<CheckLine>,
}

impl From<&Account> for AccountKeys {
    fn from(account: &Account) -> Self {
        Self {
            begin_ns: account.begin.0,
            end_ns: account.end.0,
            kernel_pages: account.kernel,
            moved_pages: account.moved,
            released_pages: account.released,
            unseen_pages: account.unseen,
            unbalanced_calls: account.unbalanced_calls,
            imbalance: account.imbalance(),
            settled: account.settled,
            checks: account.checks.iter().map(CheckLine::from).collect(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct IntervalLine {
    kind: &'static str,
    #[serde(flatten)]
    account: AccountKeys,
    lost_events: u64,
    balanced: bool,
}

impl From<&Interval> for IntervalLine {
    fn from(interval: &Interval) -> Self {
        Self {
            kind: "books",
            account: AccountKeys::from(&interval.account),
            lost_events: interval.lost,
            balanced: interval.account.balanced(),
        }
    }
}

/// Pages that moved and could not be attributed, by the missing fact.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "keys say their unit")]
struct UnattributedLine {
    unowned_pages: u64,
    unmapped_pages: u64,
    unsearched_pages: u64,
    not_found_pages: u64,
}

#[derive(Serialize)]
struct IntervalsLine {
    closed: u64,
    unbalanced: u64,
    worst: Option<AccountKeys>,
}

#[derive(Serialize)]
pub(super) struct BooksLine {
    #[serde(flatten)]
    whole: AccountKeys,
    reported_pages: u64,
    filtered_pages: u64,
    unowned_pages: u64,
    unmapped_pages: u64,
    unbooked_pages: u64,
    outside_pages: Option<u64>,
    failed_seen_pages: u64,
    failed_reported_pages: u64,
    failed_filtered_pages: u64,
    refused_filtered_pages: u64,
    unmapped_filtered_pages: u64,
    outside_filtered_pages: u64,
    unattributed: UnattributedLine,
    intervals: IntervalsLine,
    balanced: bool,
    proven: bool,
}

impl From<&Books> for BooksLine {
    fn from(books: &Books) -> Self {
        let without_owner = &books.lost.unattributed;
        Self {
            whole: AccountKeys::from(&books.whole),
            reported_pages: books.reported,
            filtered_pages: books.filtered,
            unowned_pages: books.unowned,
            unmapped_pages: books.unmapped,
            unbooked_pages: books.unbooked,
            outside_pages: books.outside,
            failed_seen_pages: books.failed_seen,
            failed_reported_pages: books.failed_reported,
            failed_filtered_pages: books.unasked.failed,
            refused_filtered_pages: books.unasked.refused,
            unmapped_filtered_pages: books.unasked.unmapped,
            outside_filtered_pages: books.unasked.outside,
            unattributed: UnattributedLine {
                unowned_pages: books.unowned.saturating_add(without_owner.unnamed),
                unmapped_pages: books.unmapped,
                unsearched_pages: books.lost.unsearched_pages.saturating_add(without_owner.unsearched),
                not_found_pages: without_owner.not_found,
            },
            intervals: IntervalsLine {
                closed: books.intervals.closed,
                unbalanced: books.intervals.unbalanced,
                worst: books.intervals.worst.as_ref().map(AccountKeys::from),
            },
            balanced: books.balanced(),
            proven: books.proven(),
        }
    }
}
