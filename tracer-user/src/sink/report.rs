//! Feeds the events of recordings into analyses.
//! Input: the runs of recordings, one after the other.

use std::io;

use crate::{
    analysis::{Analyses, Input, Question, selection::Selection},
    event::Event,
    run::{header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
    section::Section,
    sink::Sink,
};

/// Feeds analyses with recordings.
pub struct Report {
    analyses: Analyses,
}

impl Report {
    /// A report with the analyses that `asked` requires.
    #[must_use]
    pub fn new(asked: Question) -> Self {
        Self {
            analyses: Analyses::new(asked),
        }
    }

    /// The events that it counts.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        self.analyses.selection()
    }

    /// The result of all runs.
    #[must_use]
    pub fn sections(&self, input: &Input) -> Vec<Section> {
        self.analyses.sections(input)
    }
}

impl Sink for Report {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.analyses.begin(header);
        Ok(())
    }

    fn sums(&self) -> bool {
        true
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.analyses.event(event);
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.analyses.interval(interval);
        Ok(())
    }

    fn abandon(&mut self, unfinished: &Unfinished) -> io::Result<()> {
        self.analyses.abandon(unfinished);
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.analyses.end(summary);
        Ok(())
    }
}
