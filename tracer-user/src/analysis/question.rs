//! The interface of an analysis, and the question that it answers.
//! Input: a run's events, intervals and summary; the arguments of a report.

use crate::{
    analysis::{
        groups::{Key, Sort},
        selection::Selection,
    },
    event::Event,
    recording::parts::Parts,
    run::{header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
    section::Section,
};

/// Answers one question about events.
pub trait Analysis {
    /// Called before the events of a run.
    fn begin(&mut self, _header: &Header) {}

    /// Adds a selected event.
    fn event(&mut self, _event: &Event) {}

    /// Adds a closed interval of the books in which something happened.
    fn interval(&mut self, _interval: &Interval) {}

    /// Ends a run whose end was recorded. Only the summary of a live run has sums.
    fn end(&mut self, _summary: &Summary) {}

    /// Called after the last event of a run that is not shown to its end. Only a closing page has sums in it.
    fn abandon(&mut self, _unfinished: &Unfinished) {}

    /// The answer.
    fn sections(&self, asked: &Question, input: &Input) -> Vec<Section>;
}

/// The reader of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// People get the most important rows, and sentences.
    People,
    /// Programs get every row, and every value by its key.
    Programs,
}

/// The time at which the answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// At the end of a live run: its closing page.
    Closing {
        /// Whether to give hints if nothing moved.
        hints: bool,
    },
    /// After all recordings have been read.
    Report,
}

/// A question about runs.
#[derive(Clone, Debug)]
pub struct Question {
    /// When the answer is given.
    pub occasion: Occasion,
    /// Who reads it.
    pub audience: Audience,
    /// The keys of the one table that is requested; empty for all tables.
    pub by: Vec<Key>,
    /// The order of rows.
    pub sort: Sort,
    /// The most rows that a table may have.
    pub rows: usize,
    /// The events to look at.
    pub selection: Selection,
}

impl Question {
    /// The closing page of a run.
    #[must_use]
    pub fn closing(hints: bool) -> Self {
        Self {
            occasion: Occasion::Closing { hints },
            audience: Audience::People,
            by: Vec::new(),
            sort: Sort::Pages,
            rows: usize::MAX,
            selection: Selection::default(),
        }
    }
}

/// The state of all recordings after they have been read; empty for a live run.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Whether some parts could not be read.
    pub is_damaged: bool,
    /// Events that were lost while the runs were traced.
    pub lost: u64,
    /// The files of runs that are present.
    pub parts: Parts,
}

impl Input {
    /// Whether nothing is missing between the first and the last file of a run. Files before and after may have been
    /// left out on purpose.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.is_damaged && !self.parts.have_gaps()
    }

    /// Adds events that were lost while a run was traced.
    pub fn add_lost(&mut self, events: u64) {
        // A recording may contain any number.
        self.lost = self.lost.saturating_add(events);
    }
}
