//! The account of a span of time: what the kernel counted against what was seen, and other counts that must agree.
//! Input: two readings of both sides, at its begin and its end.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tracer_common::counter::Counter;

use crate::{
    event::Names,
    kernel::vmstat::Vmstat,
    run::{counters::Counters, coverage::Coverage, elsewhere::Elsewhere},
    units::Nanos,
};

/// One reading of both sides.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When.
    pub at: Nanos,
    /// The counters that [`is_compared`] names.
    pub kernel: Vmstat,
    /// The kernel's counts of what does not go through migrate_pages.
    pub elsewhere: Elsewhere,
    /// The BPF side's counters.
    pub counters: Counters,
    /// Both were read while nothing changed; else they may be of different moments.
    pub settled: bool,
}

const DEMOTED: &str = "pgdemote_";

/// Whether an account looks at this counter of /proc/vmstat.
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

/// Another count that the kernel keeps, and the same from the hooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The kernel's name for it in /proc/vmstat; `pgdemote` is the sum of all that begin so.
    pub name: Cow<'static, str>,
    /// What the kernel added to it: base pages, of `thp_` folios.
    pub kernel: u64,
    /// What was seen.
    pub seen: u64,
    /// A difference is an error; else the kernel's own count may be late or wrong.
    pub exact: bool,
}

impl Check {
    /// What the kernel counted more than was seen.
    #[must_use]
    pub fn difference(&self) -> i64 {
        self.kernel.wrapping_sub(self.seen).cast_signed()
    }
}

/// What does not change in a run.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The source does not see folios that nobody maps: they are missing from `moved`.
    pub blind_to_unmapped: bool,
    numa: Option<u8>,
    demotion: Option<u8>,
}

impl Terms {
    /// With the running kernel's numbers of its reasons.
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
    /// What the kernel added to `pgmigrate_success`; None: it does not show it.
    pub kernel: Option<u64>,
    /// Folios seen to move.
    pub moved: u64,
    /// Folios freed before they moved, or not of the LRU: the kernel counts them as success.
    pub released: u64,
    /// In calls of migrate_pages that had begun before tracing, or whose context was lost.
    pub unseen: u64,
    /// Calls in which the kernel's count and ours differ.
    pub unbalanced_calls: u64,
    /// Other counts that must agree.
    pub checks: Vec<Check>,
    /// Begin and end were read at quiet moments; else both sides may differ by what moved between the looks.
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
        // migrate_misplaced_folio adds what migrate_pages gave it (mm/migrate.c, `migrate_misplaced_page` on 6.1).
        let numa = terms
            .numa
            .and_then(|reason| check("numa_pages_migrated", counters.moved_for(reason)));
        // A vm event on 6.1. Since 6.8 a node's statistic, which each CPU folds in about once a second; and releases
        // around 6.13 miss what the multi-generational LRU demotes (mm/vmscan.c, `demote_folio_list`, `evict_folios`).
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

    /// What the kernel counted and tracer cannot account for; 0 when the account balances. None: the kernel shows no
    /// count.
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

    /// A difference that this backend, or these readings, cannot but have.
    fn is_excused(&self, difference: i64) -> bool {
        // Unmapped folios are missing, and nothing else may be.
        difference == 0 || !self.settled || (self.blind_to_unmapped && difference > 0)
    }

    /// Whether the account balances, as far as this backend can see, and as far as the two sides can be compared.
    #[must_use]
    pub fn balanced(&self) -> bool {
        // Each call's own count is compared when it ends, whatever the machine does meanwhile.
        let calls = self.unbalanced_calls == 0 || self.blind_to_unmapped;
        calls && self.imbalance().is_none_or(|missing| self.is_excused(missing)) && self.differing().next().is_none()
    }

    /// Whether the account is shown to balance: nothing is excused.
    #[must_use]
    pub fn proven(&self) -> bool {
        self.unbalanced_calls == 0
            && self.imbalance() == Some(0)
            && self.checks.iter().all(|check| !check.exact || check.difference() == 0)
    }

    /// Whether nothing happened that an account tells of; a count that is late tells of the past.
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

    /// The exact backend's terms, on a kernel that numbers its reasons as all do.
    pub fn terms(blind_to_unmapped: bool) -> Terms {
        Terms {
            blind_to_unmapped,
            numa: Some(5),
            demotion: Some(8),
        }
    }

    /// A settled reading at a second, after so many pages on each side.
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
        // What the kernel says of demotion is late, or wrong.
        assert!(account(&at(1, 1), &right).proven());
    }
}
