//! What is in a recording: how it was made, how much of what, what is missing.
//! Input: its items.

use serde::Serialize;

use crate::{
    event::Event,
    recording::{
        block::Kind,
        header::{Begin, End},
    },
    source::recording::{Item, Missing, Place},
    units::Nanos,
};

/// Blocks of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blocks {
    /// How many.
    pub blocks: u64,
    /// Bytes of their content in the file.
    pub packed_bytes: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

/// Events by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventCounts {
    /// Runs of pages that moved.
    pub moves: u64,
    /// Folios that moved without a mapping.
    pub unmapped_moves: u64,
    /// Folios that could not be moved.
    pub failures: u64,
    /// Runs of compaction.
    pub compactions: u64,
}

impl EventCounts {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.moves + self.unmapped_moves + self.failures + self.compactions
    }
}

/// What a recording holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Bytes of the file.
    pub bytes: u64,
    /// How the run was made; None: that is missing.
    pub begin: Option<Begin>,
    /// How the file ended; None: it did not.
    pub end: Option<End>,
    /// Header, events, books, end.
    pub blocks: [Blocks; 4],
    /// What can be read.
    pub events: EventCounts,
    /// Base pages of the moves.
    pub pages: u64,
    /// The earliest and the latest event.
    pub span: Option<(Nanos, Nanos)>,
    /// What cannot be read.
    pub missing: Vec<Missing>,
}

impl Contents {
    /// Adds what came next, with its events and its block if it has them.
    pub fn add(&mut self, item: &Item, events: &[Event], place: Option<&Place>) {
        let kind = match item {
            Item::Begin(begin) => {
                self.begin.get_or_insert_with(|| begin.as_ref().clone());
                Kind::Header
            }
            Item::Events => {
                for event in events {
                    self.count(event);
                }
                Kind::Events
            }
            Item::Interval(_) => Kind::Interval,
            Item::End(end) => {
                self.end = Some(end.as_ref().clone());
                Kind::End
            }
            Item::Missing(missing) => {
                self.missing.push(missing.clone());
                return;
            }
        };
        if let Some(place) = place {
            let blocks = &mut self.blocks[kind as usize];
            blocks.blocks += 1;
            blocks.packed_bytes += place.header.packed as u64;
            blocks.bytes += place.header.unpacked as u64;
        }
    }

    fn count(&mut self, event: &Event) {
        let at = event.at();
        let (first, last) = self.span.unwrap_or((at, at));
        self.span = Some((first.min(at), last.max(at)));
        match event {
            Event::Move(moved) => {
                self.events.moves += 1;
                self.pages += moved.pages;
            }
            Event::Unmapped(_) => self.events.unmapped_moves += 1,
            Event::Failure(_) => self.events.failures += 1,
            Event::Compaction(_) => self.events.compactions += 1,
        }
    }

    /// Events that are known to be missing.
    #[must_use]
    pub fn missing_events(&self) -> u64 {
        let unwritten = self.end.as_ref().map_or(0, |end| end.unwritten);
        self.missing.iter().filter_map(|missing| missing.events).sum::<u64>() + unwritten
    }
}
