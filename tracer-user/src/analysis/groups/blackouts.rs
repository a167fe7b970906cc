//! How long accesses waited for the moves of one group, in little memory: there may be a million groups.
//! Input: the blackout of each move.

use crate::{run::totals::Durations, units::Nanos};

/// The blackouts of a group's moves.
#[derive(Clone, Debug, Default)]
pub struct Blackouts {
    /// The number of blackouts.
    count: u64,
    longest: Nanos,
    /// All of them; None if there are fewer than two, which `longest` describes, or if there was no room.
    all: Option<Box<Durations>>,
}

impl Blackouts {
    /// Adds a blackout. `room` is the number of groups that may still keep all theirs.
    pub(super) fn add(&mut self, blackout: Nanos, room: &mut usize) {
        if self.count == 1 && *room > 0 {
            *room -= 1;
            self.all = Some(Box::new(one(self.longest)));
        }
        self.count += 1;
        self.longest = self.longest.max(blackout);
        if let Some(all) = &mut self.all {
            all.add(blackout, 1);
        }
    }

    /// Adds the blackouts of another group.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.are_cut() || other.are_cut() {
            self.all = None;
        } else if self.count == 0 {
            self.all.clone_from(&other.all);
        } else if other.count > 0 {
            let mut all = self.all.take().unwrap_or_else(|| Box::new(one(self.longest)));
            match &other.all {
                Some(others) => all.merge(others),
                None => all.add(other.longest, 1),
            }
            self.all = Some(all);
        }
        self.count = self.count.saturating_add(other.count);
        self.longest = self.longest.max(other.longest);
    }

    /// Whether there was no room for all blackouts: then only the longest is known.
    #[must_use]
    pub fn are_cut(&self) -> bool {
        self.count > 1 && self.all.is_none()
    }

    /// The longest blackout; None if no move's start was seen.
    #[must_use]
    pub fn longest(&self) -> Option<Nanos> {
        (self.count > 0).then_some(self.longest)
    }

    /// The blackout that `quantile` (0 to 1) of all do not exceed; None if it is not known.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Nanos> {
        match &self.all {
            // Quantiles have two digits: rounding must not exceed the longest.
            Some(all) => Some(all.quantile(quantile)?.min(self.longest)),
            None => self.longest().filter(|_| !self.are_cut()),
        }
    }
}

fn one(blackout: Nanos) -> Durations {
    let mut durations = Durations::default();
    durations.add(blackout, 1);
    durations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blackouts(all: &[u64], mut room: usize) -> Blackouts {
        let mut blackouts = Blackouts::default();
        for blackout in all {
            blackouts.add(Nanos(*blackout), &mut room);
        }
        blackouts
    }

    #[test]
    fn one_takes_no_room() {
        let one = blackouts(&[7], 0);
        assert_eq!(one.quantile(0.5), Some(Nanos(7)));
        assert!(!one.are_cut());
        let two = blackouts(&[7, 9], 1);
        assert_eq!(
            (two.quantile(0.5), two.quantile(0.99)),
            (Some(Nanos(7)), Some(Nanos(9)))
        );
        let cut = blackouts(&[7, 9], 0);
        assert!(cut.are_cut());
        assert_eq!((cut.quantile(0.5), cut.longest()), (None, Some(Nanos(9))));
        assert_eq!(blackouts(&[], 1).quantile(0.5), None);
    }

    #[test]
    fn groups_of_one_are_merged() {
        let mut sum = Blackouts::default();
        for blackout in [5, 1, 3] {
            sum.merge(&blackouts(&[blackout], 0));
        }
        assert_eq!(sum.quantile(0.5), Some(Nanos(3)));
        assert_eq!(sum.longest(), Some(Nanos(5)));
        sum.merge(&blackouts(&[8, 9], 0));
        assert!(sum.are_cut());
        assert_eq!(sum.longest(), Some(Nanos(9)));
    }
}
