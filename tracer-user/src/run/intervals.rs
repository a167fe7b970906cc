//! The books by the second: each interval between two quiet moments gets its own account.
//! Input: a reading about once a second.

use serde::{Deserialize, Serialize};

use crate::{
    run::account::{Account, Reading, Terms},
    units::Nanos,
};

/// A closed interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Both sides of the interval.
    pub account: Account,
    /// Events lost in it.
    pub lost: u64,
}

/// The sums of a run's intervals, without intervals in which nothing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntervalTotals {
    /// The number of intervals.
    pub closed: u64,
    /// The number of intervals that do not balance.
    pub unbalanced: u64,
    /// The interval with the greatest imbalance, in base pages; the first one if several are equal.
    pub worst: Option<Account>,
}

impl IntervalTotals {
    fn add(&mut self, account: &Account) {
        self.closed += 1;
        if account.balanced() {
            return;
        }
        self.unbalanced += 1;
        let size = |account: &Account| account.imbalance().unwrap_or(0).unsigned_abs();
        if self.worst.as_ref().is_none_or(|worst| size(worst) < size(account)) {
            self.worst = Some(account.clone());
        }
    }
}

/// The sums of a recording's intervals: the only books if the end of the run was not recorded.
#[derive(Clone, Debug, Default)]
pub struct SoFar {
    /// The begin of the first one.
    pub from: Nanos,
    /// The end of the last one.
    pub until: Nanos,
    /// Base pages that the kernel counted in the intervals.
    pub kernel: u64,
    /// Base pages that were seen to move in the intervals.
    pub moved: u64,
    /// Whether they balance.
    pub totals: IntervalTotals,
}

impl SoFar {
    /// Adds the next interval.
    pub fn add(&mut self, interval: &Interval) {
        let account = &interval.account;
        if self.totals.closed == 0 {
            self.from = account.begin;
        }
        self.until = self.until.max(account.end);
        self.kernel = self.kernel.saturating_add(account.kernel.unwrap_or(0));
        self.moved = self.moved.saturating_add(account.moved);
        self.totals.add(account);
    }
}

/// Closes intervals as readings come.
pub struct Intervals {
    terms: Terms,
    /// The reading at which the open interval begins; None until there was a quiet moment.
    open: Option<Reading>,
    /// Events lost before it.
    lost: u64,
    /// Whether the last reading would have closed it with an imbalance.
    doubted: bool,
    /// Base pages that the kernel counted in the interval before and its backend did not see, which is excused.
    excused: i64,
    /// The sums of the closed intervals.
    pub totals: IntervalTotals,
}

impl Intervals {
    /// The first interval begins with the first settled reading.
    #[must_use]
    pub fn new(begin: Reading, terms: Terms) -> Self {
        Self {
            terms,
            open: begin.settled.then_some(begin),
            lost: 0,
            doubted: false,
            excused: 0,
            totals: IntervalTotals::default(),
        }
    }

    /// Whether a reading equals the one at which the open interval begins, so that nothing has happened since. The
    /// interval then begins at the reading's time.
    pub fn is_unchanged(&mut self, look: &Reading) -> bool {
        match &mut self.open {
            Some(open) if !self.doubted && open.kernel == look.kernel && open.counters == look.counters => {
                open.at = look.at;
                true
            }
            _ => false,
        }
    }

    /// Takes a reading and closes the interval with it, if possible; `lost` counts all events lost so far. It returns
    /// the closed interval if something happened in it.
    ///
    /// An unsettled reading closes no interval. A reading that shows an imbalance closes one only if the next reading
    /// shows it too: the kernel counts a moment before or after it calls the hooks, and a task can be preempted in
    /// between.
    pub fn close(&mut self, reading: Reading, lost: u64) -> Option<Interval> {
        if !reading.settled {
            return None;
        }
        let Some(begin) = &self.open else {
            self.open = Some(reading);
            self.lost = lost;
            return None;
        };
        let account = self.account(begin, &reading);
        self.doubted = !account.balanced() && !self.doubted;
        if self.doubted {
            return None;
        }
        self.open = Some(reading);
        self.tell(account, lost)
    }

    /// Closes the last interval; the run's last reading need not be settled.
    pub fn end(&mut self, reading: &Reading, lost: u64) -> Option<Interval> {
        let begin = self.open.take()?;
        let account = self.account(&begin, reading);
        self.tell(account, lost)
    }

    /// The account of an interval. If tracer saw more pages in it than the kernel counted, and missed at least as many
    /// in the one before, the moment between them was not quiet: a task was preempted between the count and the hook.
    fn account(&self, begin: &Reading, reading: &Reading) -> Account {
        let mut account = Account::between(begin, reading, self.terms);
        let late = account.imbalance().unwrap_or(0).saturating_neg();
        account.settled &= late <= 0 || late > self.excused;
        account
    }

    fn tell(&mut self, account: Account, lost: u64) -> Option<Interval> {
        self.excused = account.imbalance().filter(|_| account.balanced()).unwrap_or(0);
        let lost = lost.saturating_sub(std::mem::replace(&mut self.lost, lost));
        if account.is_quiet() && lost == 0 {
            return None;
        }
        self.totals.add(&account);
        Some(Interval { account, lost })
    }

    /// The terms of the run.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::account::made_up::{reading, terms};

    fn intervals() -> Intervals {
        Intervals::new(reading(0, 100, 0), terms(false))
    }

    fn unsettled(reading: Reading) -> Reading {
        Reading {
            settled: false,
            ..reading
        }
    }

    #[test]
    fn each_second_has_its_own_account() {
        let mut intervals = intervals();
        for second in 1..4 {
            let interval = intervals
                .close(reading(second, 100 + 10 * second, 10 * second), 0)
                .unwrap();
            let account = &interval.account;
            assert_eq!(
                (account.begin.0, account.end.0),
                ((second - 1) * 1_000_000_000, second * 1_000_000_000)
            );
            assert_eq!((account.kernel, account.moved, interval.lost), (Some(10), 10, 0));
        }
        assert_eq!((intervals.totals.closed, intervals.totals.unbalanced), (3, 0));
    }

    #[test]
    fn quiet_seconds_are_not_told_and_belong_to_no_interval() {
        let mut intervals = intervals();
        assert!(intervals.is_unchanged(&reading(1, 100, 0)));
        assert!(intervals.close(reading(2, 100, 0), 0).is_none());
        let interval = intervals.close(reading(3, 101, 1), 0).unwrap();
        assert_eq!(interval.account.begin.0, 2_000_000_000);
        assert!(!intervals.is_unchanged(&reading(4, 102, 2)));
        assert_eq!(intervals.totals.closed, 1);
    }

    #[test]
    fn what_is_lost_is_told_once_and_where_nothing_moved_too() {
        let mut intervals = intervals();
        assert_eq!(intervals.close(reading(1, 100, 0), 7).unwrap().lost, 7);
        assert_eq!(intervals.close(reading(2, 101, 1), 9).unwrap().lost, 2);
        assert_eq!(intervals.end(&reading(3, 102, 2), 9).unwrap().lost, 0);
    }

    #[test]
    fn an_unsettled_reading_extends_the_interval() {
        let mut intervals = intervals();
        assert!(intervals.close(unsettled(reading(1, 150, 49)), 0).is_none());
        let interval = intervals.close(reading(2, 160, 60), 0).unwrap();
        assert_eq!((interval.account.begin.0, interval.account.kernel), (0, Some(60)));
    }

    #[test]
    fn an_unsettled_begin_waits_for_a_quiet_moment() {
        let mut intervals = Intervals::new(unsettled(reading(0, 100, 0)), terms(false));
        assert!(intervals.close(reading(1, 150, 49), 3).is_none());
        let interval = intervals.close(reading(2, 160, 59), 3).unwrap();
        assert_eq!(
            (interval.account.begin.0, interval.account.kernel, interval.lost),
            (1_000_000_000, Some(10), 0)
        );
    }

    #[test]
    fn an_imbalance_counts_when_the_next_second_shows_it_too() {
        let mut intervals = intervals();
        // A call is between its count and its hook, which comes later.
        assert!(intervals.close(reading(1, 132, 0), 0).is_none());
        assert!(!intervals.is_unchanged(&reading(2, 132, 0)));
        assert!(intervals.close(reading(2, 132, 32), 0).unwrap().account.balanced());
        // This hook never comes.
        assert!(intervals.close(reading(3, 140, 36), 0).is_none());
        let interval = intervals.close(reading(4, 140, 36), 0).unwrap();
        assert_eq!(interval.account.imbalance(), Some(4));
        // The next interval is judged by itself.
        assert!(intervals.close(reading(5, 141, 37), 0).unwrap().account.balanced());
        let totals = &intervals.totals;
        assert_eq!((totals.closed, totals.unbalanced), (3, 1));
        assert_eq!(totals.worst.as_ref().map(|worst| worst.begin.0), Some(2_000_000_000));
    }

    #[test]
    fn the_worst_is_the_largest_either_way() {
        let mut intervals = intervals();
        for (second, kernel, moved) in [(1, 102, 0), (2, 103, 5), (3, 106, 5)] {
            assert!(intervals.close(reading(second * 10, kernel, moved), 0).is_none());
            assert!(intervals.close(reading(second * 10 + 1, kernel, moved), 0).is_some());
        }
        let worst = intervals.totals.worst.as_ref().and_then(Account::imbalance);
        assert_eq!(worst, Some(-4));
    }

    #[test]
    fn what_a_blind_backend_sees_late_is_no_error() {
        let mut intervals = Intervals::new(reading(0, 100, 0), terms(true));
        let mut close = |second, kernel, moved| intervals.close(reading(second, kernel, moved), 0);
        // For 32 counted pages the hook comes in the next second.
        assert!(close(1, 150, 18).unwrap().account.balanced());
        let account = close(2, 160, 60).unwrap().account;
        assert_eq!((account.imbalance(), account.balanced()), (Some(-32), true));
        assert!(!account.settled);
        // No other second is excused, and no larger difference.
        assert!(close(3, 160, 70).is_none());
        assert!(!close(4, 160, 70).unwrap().account.balanced());
        assert!(close(5, 165, 70).unwrap().account.balanced());
        assert!(close(6, 165, 76).is_none());
        assert!(!close(7, 165, 76).unwrap().account.balanced());
    }

    #[test]
    fn the_end_closes_whatever_is_open() {
        let mut intervals = intervals();
        assert!(intervals.close(reading(1, 104, 0), 0).is_none());
        assert_eq!(
            intervals.end(&reading(2, 104, 0), 0).unwrap().account.imbalance(),
            Some(4)
        );
        assert!(intervals.end(&reading(3, 104, 0), 0).is_none());
    }
}
