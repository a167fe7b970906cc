//! The account of a span of time: the kernel's count of moves, tracer's count, and other counts that must agree.
//! Input: two readings of both sides, at the begin and the end of the span.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tracer_common::counter::Counter;

use crate::{
    event::Names,
    kernel::vmstat::Vmstat,
    run::{counters::Counters, coverage::Coverage, outside::Outside},
    units::Nanos,
};

/// One reading of both sides.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When it was taken.
    pub at: Nanos,
    /// The counters that [`is_compared`] names.
    pub kernel: Vmstat,
    /// The kernel's counts of moves that do not go through migrate_pages.
    pub outside: Outside,
    /// The BPF side's counters.
    pub counters: Counters,
    /// Whether both were read while nothing changed; otherwise they may be of different moments.
    pub settled: bool,
}

const DEMOTED: &str = "pgdemote_";

/// Whether an account compares this counter of /proc/vmstat.
#[must_use]
pub fn is_compared(name: &str) -> bool {
    name.starts_with(DEMOTED)
        || matches!(
            name,
            "pgmigrate_success"
                | "pgmigrate_fail"
                | "thp_migration_success"
                | "thp_migration_fail"
                | "thp_migration_split"
                | "numa_pages_migrated"
        )
}

/// Another count of the kernel, and the same count from the hooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The kernel's name for it in /proc/vmstat; `pgdemote` is the sum of all counters that begin with it.
    pub name: Cow<'static, str>,
    /// The kernel's count: base pages; folios for a `thp_` counter.
    pub kernel: u64,
    /// The count from the hooks.
    pub seen: u64,
    /// A difference is an error; otherwise the kernel's own count may be late or wrong.
    pub exact: bool,
}

impl Check {
    /// The kernel's count minus the count from the hooks.
    #[must_use]
    pub fn difference(&self) -> i64 {
        self.kernel.wrapping_sub(self.seen).cast_signed()
    }
}

/// The properties of a run that its accounts depend on.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The source does not see folios that no process maps: `moved` lacks them.
    pub blind_to_unmapped: bool,
    numa: Option<u8>,
    demotion: Option<u8>,
}

impl Terms {
    /// The terms of a source, with the running kernel's numbers of its reasons.
    #[must_use]
    pub fn new(coverage: &Coverage, reasons: &Names) -> Self {
        Self {
            blind_to_unmapped: !coverage.unmapped,
            numa: reasons.number("numa_misplaced"),
            demotion: reasons.number("demotion"),
        }
    }
}

/// Both sides of a span of time, in base pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Its begin.
    pub begin: Nanos,
    /// Its end.
    pub end: Nanos,
    /// The kernel's count, the growth of `pgmigrate_success`; None if the kernel does not show it.
    pub kernel: Option<u64>,
    /// Pages of folios that were seen to move.
    pub moved: u64,
    /// Pages of folios that were freed before they moved, or are not on the LRU: the kernel counts them as success.
    pub released: u64,
    /// Pages in calls of migrate_pages that had begun before tracing, or whose context was lost.
    pub unseen: u64,
    /// Calls in which the kernel's count and tracer's differ.
    pub unbalanced_calls: u64,
    /// Other counts that must agree.
    pub checks: Vec<Check>,
    /// Begin and end were read at quiet moments; otherwise the sides may differ by pages that moved between the
    /// readings.
    pub settled: bool,
    /// [`Terms::blind_to_unmapped`].
    pub blind_to_unmapped: bool,
}

impl Account {
    /// The account between two readings.
    #[must_use]
    pub fn between(begin: &Reading, end: &Reading, terms: Terms) -> Self {
        let counters = end.counters.since(&begin.counters);
        let sum = |counter| counters.sum(counter);
        let kernel = |name: &str| {
            let delta = end.kernel.delta(&begin.kernel, name)?;
            Some(u64::try_from(delta).unwrap_or(0))
        };
        let check = |name, seen| {
            Some(Check {
                name: Cow::Borrowed(name),
                kernel: kernel(name)?,
                seen,
                exact: true,
            })
        };
        // migrate_misplaced_folio adds the pages that migrate_pages moved for it (mm/migrate.c,
        // `migrate_misplaced_page` on 6.1).
        let numa = terms
            .numa
            .and_then(|reason| check("numa_pages_migrated", counters.moved_for(reason)));
        // On 6.1 this is a vm event. Since 6.8 it is a node's statistic, to which each CPU adds its part about once a
        // second. Releases around 6.13 miss pages that the multi-generational LRU demotes (mm/vmscan.c,
        // `demote_folio_list`, `evict_folios`).
        let demoted = end.kernel.iter().filter(|(name, _)| name.starts_with(DEMOTED));
        let demoted = demoted.filter_map(|(name, _)| kernel(name)).reduce(|sum, n| sum + n);
        let demotion = terms.demotion.zip(demoted).map(|(reason, kernel)| Check {
            name: Cow::Borrowed("pgdemote"),
            kernel,
            seen: counters.moved_for(reason),
            exact: false,
        });
        Self {
            begin: begin.at,
            end: end.at,
            kernel: kernel("pgmigrate_success"),
            moved: sum(Counter::MovedPages),
            released: sum(Counter::ReleasedPages),
            unseen: sum(Counter::KernelSucceededUnseen),
            unbalanced_calls: sum(Counter::UnbalancedCalls),
            checks: [
                check("pgmigrate_fail", sum(Counter::KernelFailed)),
                check("thp_migration_success", sum(Counter::ThpMoved)),
                check("thp_migration_fail", sum(Counter::KernelThpFailed)),
                check("thp_migration_split", sum(Counter::KernelThpSplit)),
                numa,
                demotion,
            ]
            .into_iter()
            .flatten()
            .collect(),
            settled: begin.settled && end.settled,
            blind_to_unmapped: terms.blind_to_unmapped,
        }
    }

    /// The part of the kernel's count that tracer cannot account for; 0 when the account balances. None if the kernel
    /// shows no count.
    #[must_use]
    pub fn imbalance(&self) -> Option<i64> {
        let accounted = self.moved.saturating_add(self.released).saturating_add(self.unseen);
        Some(self.kernel?.wrapping_sub(accounted).cast_signed())
    }

    /// The checks that found an error.
    pub fn differing(&self) -> impl Iterator<Item = &Check> {
        let wrong = |check: &&Check| check.exact && !self.is_excused(check.difference());
        self.checks.iter().filter(wrong)
    }

    /// Whether this backend, or these readings, cannot avoid the difference.
    fn is_excused(&self, difference: i64) -> bool {
        // Only unmapped folios may be missing.
        difference == 0 || !self.settled || (self.blind_to_unmapped && difference > 0)
    }

    /// Whether the account balances, as far as the backend sees pages and the two sides can be compared.
    #[must_use]
    pub fn balanced(&self) -> bool {
        // Each call's own count is compared when it ends, and other calls do not affect it.
        let calls = self.unbalanced_calls == 0 || self.blind_to_unmapped;
        calls && self.imbalance().is_none_or(|missing| self.is_excused(missing)) && self.differing().next().is_none()
    }

    /// Whether the account is proven to balance: no difference is excused.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.unbalanced_calls == 0
            && self.imbalance() == Some(0)
            && self.checks.iter().all(|check| !check.exact || check.difference() == 0)
    }

    /// Whether nothing happened that the account counts. A late count belongs to the past and is ignored.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.kernel.unwrap_or(0) == 0
            && [self.moved, self.released, self.unseen] == [0; 3]
            && self
                .checks
                .iter()
                .all(|check| check.seen == 0 && (check.kernel == 0 || !check.exact))
    }
}

#[cfg(test)]
pub(crate) mod made_up {
    use super::*;

    /// The exact backend's terms, on a kernel with the usual numbers of reasons.
    pub fn terms(blind_to_unmapped: bool) -> Terms {
        Terms {
            blind_to_unmapped,
            numa: Some(5),
            demotion: Some(8),
        }
    }

    /// A settled reading at a second, with these pages on each side.
    pub fn reading(second: u64, kernel: u64, moved: u64) -> Reading {
        Reading {
            at: Nanos(second * 1_000_000_000),
            kernel: Vmstat::parse(format!("pgmigrate_success {kernel}").as_bytes()),
            counters: Counters::made_up(&[(Counter::MovedPages, moved)]),
            settled: true,
            ..Reading::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        made_up::{reading, terms},
        *,
    };

    fn account(begin: &Reading, end: &Reading) -> Account {
        Account::between(begin, end, terms(false))
    }

    #[test]
    fn what_the_kernel_counts_must_be_seen() {
        let even = account(&reading(1, 100, 0), &reading(2, 112, 12));
        assert!(even.balanced() && even.proven() && !even.is_quiet());
        let missing = account(&reading(1, 100, 0), &reading(2, 112, 10));
        assert_eq!(missing.imbalance(), Some(2));
        assert!(!missing.balanced() && !missing.proven());
        let invented = account(&reading(1, 100, 0), &reading(2, 110, 12));
        assert_eq!(invented.imbalance(), Some(-2));
        assert!(!invented.balanced());
        assert!(account(&reading(1, 100, 5), &reading(2, 100, 5)).is_quiet());
    }

    #[test]
    fn no_count_proves_nothing() {
        let silent = |second| Reading {
            kernel: Vmstat::default(),
            ..reading(second, 0, 0)
        };
        let unknown = account(&silent(1), &silent(2));
        assert!(unknown.balanced() && !unknown.proven());
        assert_eq!(unknown.checks, []);
    }

    #[test]
    fn an_unsettled_reading_is_no_error_and_no_proof() {
        let end = Reading {
            settled: false,
            ..reading(2, 112, 10)
        };
        let account = account(&reading(1, 100, 0), &end);
        assert!(account.balanced() && !account.proven());
    }

    #[test]
    fn tracepoints_may_see_less_but_not_more() {
        let blind = |kernel, moved| Account::between(&reading(1, 0, 0), &reading(2, kernel, moved), terms(true));
        assert!(blind(12, 10).balanced() && !blind(12, 10).proven());
        assert!(!blind(10, 12).balanced());
        assert!(blind(12, 12).proven());
    }

    #[test]
    fn calls_that_differ_are_an_error_even_if_their_sum_does_not() {
        let mut end = reading(2, 12, 0);
        end.counters = Counters::made_up(&[(Counter::MovedPages, 12), (Counter::UnbalancedCalls, 2)]);
        let account = account(&reading(1, 0, 0), &end);
        assert!(!account.balanced() && !account.proven());
    }

    #[test]
    fn other_counts_must_agree_where_they_are_exact() {
        let text = |n: u64| {
            format!(
                "pgmigrate_success 0\npgmigrate_fail {n}\nthp_migration_success {n}\nthp_migration_fail {n}\n\
                 thp_migration_split {n}\nnuma_pages_migrated {n}\npgdemote_kswapd {n}\npgdemote_direct {n}"
            )
        };
        let at = |second, n| Reading {
            kernel: Vmstat::parse(text(n).as_bytes()),
            ..reading(second, 0, 0)
        };
        let wrong = account(&at(1, 1), &at(2, 3));
        let names: Vec<_> = wrong
            .differing()
            .map(|check| (check.name.as_ref(), check.difference()))
            .collect();
        let expected = [
            "pgmigrate_fail",
            "thp_migration_success",
            "thp_migration_fail",
            "thp_migration_split",
            "numa_pages_migrated",
        ];
        assert_eq!(names, expected.map(|name| (name, 2)));
        assert!(!wrong.balanced() && !wrong.proven());
        let demoted = wrong.checks.iter().find(|check| check.name == "pgdemote");
        assert_eq!(demoted.map(|check| (check.kernel, check.exact)), Some((4, false)));

        let mut right = at(2, 3);
        right.counters = Counters::made_up(&[
            (Counter::KernelFailed, 2),
            (Counter::ThpMoved, 2),
            (Counter::KernelThpFailed, 2),
            (Counter::KernelThpSplit, 2),
        ])
        .with_moved_for(5, 2);
        // The kernel's count of demotion is late, or wrong.
        assert!(account(&at(1, 1), &right).proven());
    }
}
