//! What an analysis is, and what it can be asked.
//! Input: a run's events, intervals and summary; what somebody wants to know.

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

/// One question that events answer.
pub trait Analysis {
    /// Before the events of a run.
    fn begin(&mut self, _header: &Header) {}

    /// Each event that is asked for.
    fn event(&mut self, _event: &Event) {}

    /// Each closed interval of the books in which something happened.
    fn interval(&mut self, _interval: &Interval) {}

    /// After the last event of a run that says how it ended. Only live runs have sums in it.
    fn end(&mut self, _summary: &Summary) {}

    /// After the last event of a run that is not shown to its end. Only a closing page has sums in it.
    fn abandon(&mut self, _unfinished: &Unfinished) {}

    /// The answer.
    fn sections(&self, asked: &Question, input: &Input) -> Vec<Section>;
}

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The most important rows, and sentences.
    People,
    /// Every row, and every value by its key.
    Programs,
}

/// When the answer is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// At the end of a run: its closing page, with `hints` for somebody who waits for it.
    Closing {
        /// What to do where nothing moved.
        hints: bool,
    },
    /// When recordings have been read.
    Report,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// When.
    pub occasion: Occasion,
    /// By whom.
    pub audience: Audience,
    /// One table of what has all of these in common; empty: everything.
    pub by: Vec<Key>,
    /// Which rows come first.
    pub sort: Sort,
    /// Rows of a table at most.
    pub rows: usize,
    /// Which events.
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

/// What is known of the recordings once all of them have been read; nothing of a live run.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Some parts could not be read.
    pub is_damaged: bool,
    /// Which files of runs there are.
    pub parts: Parts,
}

impl Input {
    /// Whether nothing is missing. Before the first file of a run and behind the last one it may be as it was meant.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.is_damaged && !self.parts.have_gaps()
    }
}
