//! Amounts per second, as the steps of a counter.
//! Input: amounts with their times, nearly in order.

use std::collections::BTreeMap;

use crate::units::Nanos;

/// The number of seconds that are still counted: events of several CPUs are not in order.
const OPEN: usize = 4;
const SECOND: u64 = 1_000_000_000;

/// The amounts by second.
#[derive(Default)]
pub struct Rate {
    open: BTreeMap<u64, u64>,
    /// The first second whose step was not returned yet.
    next: u64,
}

impl Rate {
    /// Counts `amount` at `at`. An amount that comes more than [`OPEN`] seconds late counts in the first open second.
    /// Returns the steps that are final by now.
    pub fn add(&mut self, at: Nanos, amount: u64) -> Vec<(Nanos, u64)> {
        let sum = self.open.entry((at.0 / SECOND).max(self.next)).or_default();
        *sum = sum.saturating_add(amount);
        self.close(OPEN)
    }

    /// All remaining steps, down to zero.
    pub fn end(&mut self) -> Vec<(Nanos, u64)> {
        let mut steps = self.close(0);
        if !steps.is_empty() {
            steps.push((start(self.next), 0));
        }
        steps
    }

    fn close(&mut self, keep: usize) -> Vec<(Nanos, u64)> {
        let mut steps = Vec::new();
        while self.open.len() > keep
            && let Some((second, sum)) = self.open.pop_first()
        {
            if second > self.next && self.next > 0 {
                steps.push((start(self.next), 0));
            }
            steps.push((start(second), sum));
            self.next = second + 1;
        }
        steps
    }
}

fn start(second: u64) -> Nanos {
    Nanos(second.saturating_mul(SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_for_each_second_and_none_is_lost() {
        let mut rate = Rate::default();
        let mut steps = Vec::new();
        for (at, amount) in [(7, 1), (7, 2), (8, 5), (7, 1), (12, 3), (13, 1), (14, 1), (3, 9)] {
            steps.extend(rate.add(Nanos(at * SECOND + 5), amount));
        }
        steps.extend(rate.end());
        let steps: Vec<(u64, u64)> = steps.into_iter().map(|(at, sum)| (at.0 / SECOND, sum)).collect();
        // The amount of the third second came after the step of the seventh was returned.
        assert_eq!(steps, [(7, 4), (8, 14), (9, 0), (12, 3), (13, 1), (14, 1), (15, 0)]);
        assert_eq!(rate.end(), []);
    }
}
