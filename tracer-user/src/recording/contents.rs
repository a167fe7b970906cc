//! The contents of a recording: how it was made, how much of each kind it holds, and what is missing.
//! Input: its items.

use std::{collections::HashMap, io::Read};

use serde::Serialize;

use crate::{
    event::Event,
    recording::{
        block::BlockKind,
        header::{Begin, End, Finished},
        parts::Parts,
        reader::{Item, Missing, RecordingFile},
        rows::Step,
    },
    run::{folios::Folios, header::Header},
    units::Nanos,
};

/// The most unreadable parts that are listed one by one. Further parts are only counted.
const TOLD: usize = 1000;

/// Blocks of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Blocks {
    /// Number of blocks.
    pub blocks: u64,
    /// Bytes of their content in the file.
    pub packed_bytes: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

/// Events by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventCounts {
    /// Extents of pages that moved.
    pub moves: u64,
    /// Folios that moved without a mapping.
    pub unmapped_moves: u64,
    /// Folios that could not be moved.
    pub failures: u64,
    /// Passes of compaction.
    pub compactions: u64,
}

impl EventCounts {
    /// All of them.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.moves + self.unmapped_moves + self.failures + self.compactions
    }
}

/// The contents of one or more recordings.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Bytes of all files.
    pub bytes: u64,
    /// The files, by their names.
    pub files: Vec<String>,
    /// The runs in order. There are several if recordings were joined.
    pub runs: Vec<RunContents>,
    /// Header, events, books, end.
    pub blocks: [Blocks; 4],
    /// The first parts that cannot be read, each with the number of its file, from 0.
    pub missing: Vec<(usize, Missing)>,
    /// How many parts cannot be read.
    pub missing_parts: u64,
    /// Events that are known to have been in these parts.
    pub missing_events: u64,
    /// Which files of runs there are.
    pub parts: Parts,
    /// The folio whose events are being counted: its mappings may be in two files of a run.
    folios: Folios,
}

/// The contents that belong to one run, or to one file of a run.
#[derive(Clone, Debug, Default)]
pub struct RunContents {
    /// How the run was made; None: the header is missing.
    pub begin: Option<Begin>,
    /// How the file ended; None: it has no end.
    pub end: Option<End>,
    /// The events that can be read.
    pub events: EventCounts,
    /// Base pages that moved, once each, mapped or not.
    pub pages: u64,
    /// Mappings of base pages that were pointed at another frame: a page that three processes map has three.
    pub mappings: u64,
    /// The earliest and the latest event.
    pub span: Option<(Nanos, Nanos)>,
    /// Events that were lost in the intervals of the books.
    lost: u64,
}

impl RunContents {
    fn count(&mut self, event: &Event, folios: &mut Folios) {
        let at = event.at();
        let (first, last) = self.span.unwrap_or((at, at));
        self.span = Some((first.min(at), last.max(at)));
        match event {
            Event::Move(moved) => {
                self.events.moves += 1;
                self.pages = self.pages.saturating_add(folios.pages(moved));
                self.mappings = self.mappings.saturating_add(moved.pages);
            }
            Event::Unmapped(moved) => {
                self.events.unmapped_moves += 1;
                self.pages = self.pages.saturating_add(moved.order.pages());
            }
            Event::Failure(_) => self.events.failures += 1,
            Event::Compaction(_) => self.events.compactions += 1,
        }
    }

    /// How the run was made.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.begin.as_ref().map(|begin| &begin.header)
    }

    /// How the run ended, if the recording has its end.
    #[must_use]
    pub fn finished(&self) -> Option<&Finished> {
        self.end.as_ref()?.finished.as_ref()
    }

    /// Events that were lost while the run was traced: in the closed intervals, if the recording does not have its end.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.finished()
            .map_or(self.lost, |finished| finished.books.lost.events())
    }

    /// Events that could not be written.
    #[must_use]
    pub fn unwritten(&self) -> u64 {
        self.end.as_ref().map_or(0, |end| end.unwritten)
    }
}

impl Contents {
    /// Begins a file with that name.
    pub fn open(&mut self, name: &str) {
        self.files.push(name.to_owned());
    }

    /// Adds the next item of a recording, with its events if it has some.
    pub fn add<R: Read>(&mut self, item: &Item, recording: &mut RecordingFile<R>) {
        let kind = match item {
            Item::Begin(begin) => {
                self.parts.begin(begin);
                let same_run = |run: &RunContents| run.header().is_some_and(|known| known.same_run(&begin.header));
                if !self.runs.last().is_some_and(same_run) {
                    self.folios = Folios::default();
                }
                let starts = |run: &RunContents| run.begin.as_ref().is_none_or(|known| known.same_file(begin));
                let run = self.run(starts);
                run.begin.get_or_insert_with(|| begin.as_ref().clone());
                BlockKind::Header
            }
            Item::Events => {
                let mut folios = std::mem::take(&mut self.folios);
                let run = self.run(|_| true);
                let mut events = recording.events();
                while let Some(step) = events.next() {
                    if let Step::Event(event) = step {
                        run.count(event, &mut folios);
                    }
                }
                self.folios = folios;
                BlockKind::Events
            }
            Item::Interval(interval) => {
                let run = self.run(|_| true);
                // A recording may contain any number.
                run.lost = run.lost.saturating_add(interval.lost);
                BlockKind::Interval
            }
            Item::End(end) => {
                self.parts.end(end);
                self.run(|_| true).end = Some(end.as_ref().clone());
                BlockKind::End
            }
            Item::Unknown => return,
            Item::Missing(missing) => {
                self.missing_parts += 1;
                self.missing_events = self.missing_events.saturating_add(missing.events.unwrap_or(0));
                if self.missing.len() < TOLD {
                    self.missing.push((self.files.len().saturating_sub(1), missing.clone()));
                }
                return;
            }
        };
        if let Some(place) = &recording.place {
            let blocks = &mut self.blocks[kind as usize];
            blocks.blocks += 1;
            blocks.packed_bytes += place.header.packed as u64;
            blocks.bytes += place.header.unpacked as u64;
        }
    }

    /// The last run, if it has not ended and `goes_on` accepts it; else a new one.
    fn run(&mut self, goes_on: impl Fn(&RunContents) -> bool) -> &mut RunContents {
        match self.runs.pop() {
            Some(last) if last.end.is_none() && goes_on(&last) => self.runs.push(last),
            last => self.runs.extend(last.into_iter().chain([RunContents::default()])),
        }
        let last = self.runs.len() - 1;
        &mut self.runs[last]
    }

    /// All events that can be read.
    #[must_use]
    pub fn events(&self) -> EventCounts {
        self.runs.iter().fold(EventCounts::default(), |sum, run| EventCounts {
            moves: sum.moves + run.events.moves,
            unmapped_moves: sum.unmapped_moves + run.events.unmapped_moves,
            failures: sum.failures + run.events.failures,
            compactions: sum.compactions + run.events.compactions,
        })
    }

    /// Base pages that moved, once each, mapped or not.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.pages))
    }

    /// Mappings of base pages that were pointed at another frame.
    #[must_use]
    pub fn mappings(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.mappings))
    }

    /// The runs, each with its files. A file without a header is a run of its own.
    #[must_use]
    pub fn by_run(&self) -> Vec<Vec<&RunContents>> {
        let mut runs: Vec<Vec<&RunContents>> = Vec::new();
        // A recording may contain any number of runs.
        let mut known = HashMap::new();
        for file in &self.runs {
            let number = match file.header() {
                Some(header) => *known.entry(header.identity()).or_insert(runs.len()),
                None => runs.len(),
            };
            match runs.get_mut(number) {
                Some(files) => files.push(file),
                None => runs.push(vec![file]),
            }
        }
        runs
    }

    /// Events that were lost while the runs were traced.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.runs.iter().fold(0, |sum, run| sum.saturating_add(run.lost()))
    }

    /// Whether nothing is missing. Files before the first and after the last one of a run may be absent.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing_parts == 0 && !self.parts.have_gaps()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_much_damage_the_first_parts_are_kept_and_all_are_counted() {
        let (mut contents, parts) = (Contents::default(), 2 * TOLD as u64);
        let mut recording = RecordingFile::new(&b""[..]).unwrap();
        for at in 0..parts {
            let missing = Missing {
                at,
                bytes: 1,
                events: (at % 2 == 0).then_some(3),
                what: "gone",
            };
            contents.add(&Item::Missing(missing), &mut recording);
        }
        assert!(
            contents
                .missing
                .iter()
                .map(|(_, missing)| missing.at)
                .eq(0..TOLD as u64)
        );
        assert_eq!(
            (contents.missing_parts, contents.missing_events),
            (parts, parts / 2 * 3)
        );
        assert!(!contents.is_whole());
        let shown = crate::render::text::plain(&crate::analysis::contents::sections(&contents, "damaged"));
        assert!(shown.contains("\nMISSING   1,000 more parts\n"), "{shown}");
    }
}
