//! Turns events into answers: a run's events, intervals and summary come in, sections go out. No I/O, no formatting.
//! Input: a run while it is traced, or recordings of runs.

pub mod books;
pub mod contents;
mod failure;
pub mod groups;
pub mod health;
pub mod losses;
mod missing;
mod outside;
mod question;
pub mod runs;
pub mod selection;
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

/// Every analysis, in the order of their sections. A new analysis is a file beside this one and a line here.
const ALL: &[New] = &[missing::new, runs::new, tables::new, failure::new];

/// Makes an analysis; None if it has no answer to the question.
type New = fn(&Question) -> Option<Box<dyn Analysis>>;

/// All analyses that answer the question. Live runs and recordings feed them alike.
pub struct Analyses {
    asked: Question,
    all: Vec<Box<dyn Analysis>>,
}

impl Analyses {
    /// Makes the analyses that answer this question.
    #[must_use]
    pub fn new(asked: Question) -> Self {
        let all = ALL.iter().filter_map(|new| new(&asked)).collect();
        Self { asked, all }
    }

    /// The selected events.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.asked.selection
    }

    /// Called before the events of a run.
    pub fn begin(&mut self, header: &Header) {
        self.asked.selection.begin(header);
        for analysis in &mut self.all {
            analysis.begin(header);
        }
    }

    /// Passes an event of the run to all analyses, if it is selected.
    pub fn event(&mut self, event: &Event) {
        if self.asked.selection.takes(event) {
            for analysis in &mut self.all {
                analysis.event(event);
            }
        }
    }

    /// Passes a closed interval to all analyses.
    pub fn interval(&mut self, interval: &Interval) {
        for analysis in &mut self.all {
            analysis.interval(interval);
        }
    }

    /// Ends a run whose end was recorded.
    pub fn end(&mut self, summary: &Summary) {
        for analysis in &mut self.all {
            analysis.end(summary);
        }
    }

    /// Called after the last event of a run that is not shown to its end.
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
