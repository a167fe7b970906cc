//! When events were lost: the intervals of a run in which any were.
//! Input: the intervals of a run's books.

use crate::{run::intervals::Interval, units::Nanos};

/// A stretch of time in which events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Its begin, from that of the run.
    pub begin: Nanos,
    /// Its end, from the begin of the run.
    pub end: Nanos,
    /// Events.
    pub events: u64,
}

/// The time line of a run's losses, in the order in which the intervals came.
#[derive(Clone, Debug, Default)]
pub struct Losses(pub Vec<Loss>);

impl Losses {
    /// Takes in an interval of the run that began at `begun`.
    pub fn add(&mut self, interval: &Interval, begun: Nanos) {
        if interval.lost > 0 {
            self.0.push(Loss {
                begin: interval.account.begin.since(begun),
                end: interval.account.end.since(begun),
                events: interval.lost,
            });
        }
    }

    /// All events of it.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.iter().fold(0, |sum, loss| sum.saturating_add(loss.events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up;

    #[test]
    fn only_intervals_with_losses_are_in_it() {
        let mut losses = Losses::default();
        let quiet = Interval {
            lost: 0,
            ..made_up::interval()
        };
        for interval in [&quiet, &made_up::interval(), &quiet, &made_up::interval()] {
            losses.add(interval, Nanos(4_900_000_000));
        }
        let loss = Loss {
            begin: Nanos(100_000_000),
            end: Nanos(1_101_000_000),
            events: 60,
        };
        assert_eq!(losses.0, [loss; 2]);
        assert_eq!(losses.events(), 120);
    }
}
