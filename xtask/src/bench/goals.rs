//! The goals of tracer, and whether it reaches them.
//! Input: measurements by their names.

use super::stats::Spread;

/// The quantity that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The load's CPU time for each page that moved.
    LoadCpu,
    /// The same, divided by the value of the run before, which was not recorded.
    LoadRatio,
    /// The recorder's CPU time for each event, from attaching to its end.
    EventCpu,
    /// The same for each page that moved.
    PageCpu,
    /// Bytes on disk for each event.
    EventBytes,
    /// Bytes on disk for each page that moved.
    PageBytes,
    /// Events that are missing.
    Lost,
    /// CPU time for each event that is read.
    ReadCpu,
    /// The same, divided by the value of `perf script`.
    ReadRatio,
    /// The peak of resident memory.
    Memory,
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            Self::LoadCpu => "load's CPU a page",
            Self::LoadRatio => "load's CPU a page, watched/unwatched",
            Self::EventCpu => "own CPU an event",
            Self::PageCpu => "own CPU a page",
            Self::EventBytes => "bytes an event",
            Self::PageBytes => "bytes a page",
            Self::Lost => "events lost",
            Self::ReadCpu => "CPU an event read",
            Self::ReadRatio => "CPU an event read, by perf script's",
            Self::Memory => "peak memory",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::LoadCpu | Self::EventCpu | Self::PageCpu | Self::ReadCpu => "ns",
            Self::LoadRatio | Self::ReadRatio => "x",
            Self::EventBytes | Self::PageBytes => "B",
            Self::Lost => "",
            Self::Memory => "MB",
        }
    }
}

/// A goal: the quantity must not exceed this value.
pub struct Goal {
    pub of: &'static str,
    pub what: What,
    pub most: f64,
}

const fn goal(of: &'static str, what: What, most: f64) -> Goal {
    Goal { of, what, most }
}

/// All goals.
pub const GOALS: [Goal; 13] = [
    goal("record-exact", What::LoadRatio, 1.05),
    goal("record-exact", What::EventBytes, 4.0),
    goal("record-exact", What::Lost, 0.0),
    goal("record", What::EventBytes, 4.0),
    goal("record", What::Lost, 0.0),
    goal("uncorrelated", What::EventCpu, 40.0),
    goal("encode", What::EventCpu, 100.0),
    goal("encode", What::EventBytes, 4.0),
    goal("report", What::ReadRatio, 0.1),
    goal("report", What::Memory, 300.0),
    goal("cat", What::ReadRatio, 0.1),
    goal("cat", What::Memory, 300.0),
    goal("info", What::Memory, 300.0),
];

impl Goal {
    /// The goal for a measurement, if there is one.
    pub fn of(of: &str, what: What) -> Option<&'static Self> {
        GOALS.iter().find(|goal| goal.of == of && goal.what == what)
    }

    /// Losses and memory are judged by the worst run, everything else by the median.
    pub fn is_reached(&self, spread: &Spread) -> bool {
        let judged = match self.what {
            What::Lost | What::Memory => spread.most,
            _ => spread.median,
        };
        judged <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::{GOALS, Goal, Spread, What};

    #[test]
    fn one_lost_event_in_one_run_misses_the_goal() {
        let spread = Spread {
            median: 0.0,
            least: 0.0,
            most: 1.0,
        };
        assert!(Goal::of("record", What::Lost).is_some_and(|goal| !goal.is_reached(&spread)));
        assert!(Goal::of("encode", What::EventCpu).is_some_and(|goal| goal.is_reached(&spread)));
        assert!(Goal::of("perf", What::Lost).is_none());
    }

    #[test]
    fn no_goal_stands_twice() {
        for (at, goal) in GOALS.iter().enumerate() {
            let same = GOALS
                .iter()
                .filter(|other| (other.of, other.what) == (goal.of, goal.what));
            assert_eq!(same.count(), 1, "goal {at}");
        }
    }
}
