//! What recordings come to: their events, fed into analyses.
//! Input: events of one recording after the other.

use std::io;

use crate::{
    analysis::{Analyses, Input, Question},
    event::Event,
    run::{header::Header, intervals::Interval, summary::Summary},
    section::Section,
    sink::Sink,
};

/// Feeds analyses with recordings.
pub struct Report {
    analyses: Analyses,
    /// Of the recording that is being read.
    file: String,
}

impl Report {
    /// Of what is asked for.
    #[must_use]
    pub fn new(asked: Question) -> Self {
        Self {
            analyses: Analyses::new(asked),
            file: String::new(),
        }
    }

    /// Before the recording of that name.
    pub fn open(&mut self, file: String) {
        self.file = file;
    }

    /// What all of them come to.
    #[must_use]
    pub fn sections(&self, input: &Input) -> Vec<Section> {
        self.analyses.sections(input)
    }
}

impl Sink for Report {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.analyses.begin(header, &self.file);
        Ok(())
    }

    /// Of what is asked for.
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

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.analyses.end(summary);
        Ok(())
    }
}
