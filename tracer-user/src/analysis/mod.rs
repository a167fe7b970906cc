//! Events to answers: a run's events, intervals and summary in, sections out. No I/O, no formatting.
//! Input: a run while it is traced, or recordings of runs.

pub mod books;
pub mod contents;
mod elsewhere;
pub mod groups;
pub mod health;
pub mod losses;
mod missing;
mod question;
pub mod runs;
pub mod selection;
mod stuck;
mod tables;

use crate::{
    event::Event,
    run::{header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
    section::Section,
};

use selection::Selection;

pub use missing::{kept, not_here, unreadable};
pub use question::{Analysis, Audience, Input, Occasion, Question};
pub use runs::nodes;

/// Every analysis, in the order in which their sections are shown. A new one is a file beside this one and a line here.
const ALL: [New; 4] = [missing::new, runs::new, tables::new, stuck::new];

/// Makes an analysis; None where it has no answer to that.
type New = fn(&Question) -> Option<Box<dyn Analysis>>;

/// All analyses that have an answer to what is asked. Live runs and recordings feed them alike.
pub struct Analyses {
    asked: Question,
    all: Vec<Box<dyn Analysis>>,
}

impl Analyses {
    /// Those that what is asked for needs.
    #[must_use]
    pub fn new(asked: Question) -> Self {
        let all = ALL.iter().filter_map(|new| new(&asked)).collect();
        Self { asked, all }
    }

    /// The events that are wanted.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.asked.selection
    }

    /// Before the events of a run.
    pub fn begin(&mut self, header: &Header) {
        self.asked.selection.begin(header);
        for analysis in &mut self.all {
            analysis.begin(header);
        }
    }

    /// Each event of the run.
    pub fn event(&mut self, event: &Event) {
        if self.asked.selection.takes(event) {
            for analysis in &mut self.all {
                analysis.event(event);
            }
        }
    }

    /// Each closed interval.
    pub fn interval(&mut self, interval: &Interval) {
        for analysis in &mut self.all {
            analysis.interval(interval);
        }
    }

    /// After the last event of a run that says how it ended.
    pub fn end(&mut self, summary: &Summary) {
        for analysis in &mut self.all {
            analysis.end(summary);
        }
    }

    /// After the last event of a run that is not shown to its end.
    pub fn abandon(&mut self, unfinished: &Unfinished) {
        for analysis in &mut self.all {
            analysis.abandon(unfinished);
        }
    }

    /// The answers.
    #[must_use]
    pub fn sections(&self, input: &Input) -> Vec<Section> {
        let answers = self.all.iter().map(|analysis| analysis.sections(&self.asked, input));
        answers.flatten().collect()
    }
}
