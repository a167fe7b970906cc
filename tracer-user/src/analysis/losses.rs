//! The intervals of a run in which events were lost.
//! Input: the intervals of a run's books.

use crate::{
    cells,
    run::intervals::Interval,
    section::{Cell, Column, Note, Section},
    units::Nanos,
};

/// A stretch of time in which events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Its begin, from the begin of the run.
    pub begin: Nanos,
    /// Its end, from the begin of the run.
    pub end: Nanos,
    /// Events that were lost.
    pub events: u64,
}

/// The losses of a run, in the order of its intervals.
#[derive(Clone, Debug, Default)]
pub struct Losses(pub Vec<Loss>);

impl Losses {
    /// Adds an interval of the run that began at `begun`.
    pub fn add(&mut self, interval: &Interval, begun: Nanos) {
        if interval.lost > 0 {
            self.0.push(Loss {
                begin: interval.account.begin.since(begun),
                end: interval.account.end.since(begun),
                events: interval.lost,
            });
        }
    }

    /// All lost events.
    #[must_use]
    pub fn events(&self) -> u64 {
        sum(&self.0)
    }

    /// A sentence for each of the first `most` losses, and one for the rest.
    #[must_use]
    pub fn notes(&self, most: usize) -> Vec<Note> {
        let (shown, rest) = self.0.split_at(most.min(self.0.len()));
        let between = |loss: &Loss| {
            let (begin, end) = (loss.begin, loss.end);
            cells![loss.events, " between ", begin, " and ", end, " after the begin"]
        };
        let rest = (!rest.is_empty()).then(|| {
            cells![
                sum(rest),
                " at ",
                Cell::Counted(rest.len() as u64, "other time", "other times")
            ]
        });
        shown.iter().map(between).chain(rest).map(Note::more).collect()
    }

    /// Every loss, for programs.
    #[must_use]
    pub fn section(&self) -> Section {
        let keys = ["begin_ns", "end_ns", "events"];
        let mut section = Section::table("losses", keys.map(|key| Column::count().key(key)).to_vec());
        for loss in &self.0 {
            section.row(cells![loss.begin, loss.end, loss.events]);
        }
        section
    }
}

fn sum(losses: &[Loss]) -> u64 {
    losses.iter().fold(0, |sum, loss| sum.saturating_add(loss.events))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, render::text::plain};

    #[test]
    fn the_rest_is_summed_up() {
        let loss = |second: u64, events| Loss {
            begin: Nanos(second * 1_000_000_000),
            end: Nanos((second + 1) * 1_000_000_000),
            events,
        };
        let losses = Losses(vec![loss(0, 1234), loss(7, 5), loss(8, 6)]);
        let text = plain(&[Section::notes(losses.notes(1))]);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            ["1,234 between 0 ns and 1.0 s after the begin", "11 at 2 other times"]
        );
    }

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
