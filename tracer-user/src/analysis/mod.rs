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
    run::{header::Header, intervals::Interval, summary::Summary},
    section::Section,
};

pub use missing::{not_here, unreadable};
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

    /// Before the events of a run, or of the next file of one.
    pub fn begin(&mut self, header: &Header, file: &str) {
        self.asked.selection.begin(header);
        for analysis in &mut self.all {
            analysis.begin(header, file);
        }
    }

    /// Each event of the run.
    pub fn event(&mut self, event: &Event) {
        if self.asked.selection.has(event) {
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

    /// The answers.
    #[must_use]
    pub fn sections(&self, input: &Input) -> Vec<Section> {
        let answers = self.all.iter().map(|analysis| analysis.sections(&self.asked, input));
        answers.flatten().collect()
    }
}
