//! Events as rows of numbers, and back.
//! Input: events in the order in which they came; the content of a block.

mod compaction;
mod failure;
mod moved;
mod numbers;
mod unmapped;

use crate::{
    event::Event,
    recording::{
        Damage,
        block::{MAX_ROWS, Span},
        columns::{
            Codec::{self, Runs},
            Reader, Rows, Writer,
        },
        tables::{Filling, Tables},
    },
};
use compaction::COMPACTION;
use failure::{FAILURE, MAX_PLACES, PLACE};
use moved::{Expected, MOVE};
use unmapped::UNMAPPED_MOVE;

/// The kind of the next event.
const KIND: [Codec; 1] = [Runs];
const MOVES: u64 = 0;
const UNMAPPED: u64 = 1;
const FAILURES: u64 = 2;
const COMPACTIONS: u64 = 3;
/// A turn, not an event: the events before it were shown before those after it came.
const TURN: u64 = 4;
/// The bytes are counted again after this number of rows, in which they cannot grow much.
const WEIGHED: u32 = 256;

/// Rows that are being written.
pub struct Batch {
    tables: Filling,
    kinds: Writer<1>,
    moves: Writer<20>,
    expected: Expected,
    unmapped: Writer<14>,
    failures: Writer<17>,
    places: Writer<4>,
    compactions: Writer<13>,
    /// Whether no event has come since the last turn.
    turned: bool,
    /// Bytes when they were last counted, without text.
    weighed: usize,
    span: Span,
}

impl Default for Batch {
    /// A batch without rows.
    fn default() -> Self {
        Self {
            tables: Filling::default(),
            kinds: Writer::new(&KIND),
            moves: Writer::new(&MOVE),
            expected: Expected::default(),
            unmapped: Writer::new(&UNMAPPED_MOVE),
            failures: Writer::new(&FAILURE),
            places: Writer::new(&PLACE),
            compactions: Writer::new(&COMPACTION),
            turned: true,
            weighed: 0,
            span: Span::default(),
        }
    }
}

impl Batch {
    /// Events in it.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.span.rows
    }

    /// Rows of the longest of its tables.
    #[must_use]
    pub fn names(&self) -> usize {
        self.tables.names()
    }

    /// The approximate number of bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tables.text() + self.weighed
    }

    fn weigh(&mut self) {
        let places = self.places.bytes() + self.failures.bytes();
        let moves = self.moves.bytes() + self.unmapped.bytes();
        self.weighed = self.tables.columns() + moves + places + self.compactions.bytes();
    }

    /// Adds an event.
    pub fn push(&mut self, event: &Event) {
        let at = event.at();
        if self.span.rows == 0 {
            (self.span.first, self.span.last) = (at, at);
        }
        self.span.first = self.span.first.min(at);
        self.span.last = self.span.last.max(at);
        self.span.rows += 1;
        let kind = match event {
            Event::Move(moved) => {
                self.moves.push(moved::move_row(moved, self.expected, &mut self.tables));
                self.expected.follow(moved);
                MOVES
            }
            Event::Unmapped(moved) => {
                self.unmapped.push(unmapped::unmapped_row(moved, &mut self.tables));
                UNMAPPED
            }
            Event::Failure(failure) => {
                for place in failure::known_places(failure) {
                    self.places.push(failure::place_row(place, &mut self.tables));
                }
                self.failures.push(failure::failure_row(failure, &mut self.tables));
                FAILURES
            }
            Event::Compaction(pass) => {
                self.compactions
                    .push(compaction::compaction_row(pass, &mut self.tables));
                COMPACTIONS
            }
        };
        self.kinds.push([kind]);
        self.turned = false;
        if self.span.rows.is_multiple_of(WEIGHED) {
            self.weigh();
        }
    }

    /// Notes that the events so far are shown now, before others come.
    pub fn turn(&mut self) {
        if !std::mem::replace(&mut self.turned, true) {
            self.kinds.push([TURN]);
        }
    }

    /// Appends everything to `out` and empties the batch.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Span {
        self.tables.finish(out);
        self.kinds.finish(out);
        self.moves.finish(out);
        self.unmapped.finish(out);
        self.failures.finish(out);
        self.places.finish(out);
        self.compactions.finish(out);
        self.expected = Expected::default();
        self.turned = true;
        self.weighed = 0;
        std::mem::take(&mut self.span)
    }
}

/// The next step of a block.
#[derive(Debug)]
pub enum Step<'a> {
    /// An event, which is valid until the next step.
    Event(&'a Event),
    /// The events so far were shown before others came.
    Turn,
}

/// The events of a block, read one after the other. Most moves resemble the previous one, which is changed in place, so
/// that no reference is counted again and nothing is copied.
pub struct Events<'a> {
    tables: Tables,
    kinds: Rows<'a, 1>,
    moves: Rows<'a, 20>,
    expected: Expected,
    unmapped: Rows<'a, 14>,
    failures: Rows<'a, 17>,
    places: Rows<'a, 4>,
    compactions: Rows<'a, 13>,
    moved: Option<Event>,
    other: Option<Event>,
}

impl<'a> Events<'a> {
    /// Reads the content of a block.
    ///
    /// # Errors
    /// [`Damage`] if the content is not the output of a [`Batch`].
    pub fn new(content: &'a [u8]) -> Result<Self, Damage> {
        let mut reader = Reader(content);
        let reader = &mut reader;
        let most = u64::from(MAX_ROWS);
        let events = Self {
            tables: Tables::read(reader)?,
            kinds: Rows::new(&KIND, reader, 2 * most)?,
            moves: Rows::new(&MOVE, reader, most)?,
            expected: Expected::default(),
            unmapped: Rows::new(&UNMAPPED_MOVE, reader, most)?,
            failures: Rows::new(&FAILURE, reader, most)?,
            places: Rows::new(&PLACE, reader, most * MAX_PLACES as u64)?,
            compactions: Rows::new(&COMPACTION, reader, most)?,
            moved: None,
            other: None,
        };
        if !reader.0.is_empty() {
            return Err(Damage("bytes follow its last table"));
        }
        Ok(events)
    }

    /// Checks that no table has rows of which there is no event.
    fn end(&self) -> Result<(), Damage> {
        self.kinds.end()?;
        self.moves.end()?;
        self.unmapped.end()?;
        self.failures.end()?;
        self.places.end()?;
        self.compactions.end()
    }

    /// The next step; None at the end.
    ///
    /// # Errors
    /// [`Damage`] if the content is not the output of a [`Batch`]: nothing more can be read.
    #[inline]
    pub fn step(&mut self) -> Result<Option<Step<'_>>, Damage> {
        if self.kinds.left() == 0 {
            return self.end().map(|()| None);
        }
        self.kinds.step()?;
        let tables = &self.tables;
        let other = match *self.kinds.row() {
            [MOVES] => return self.next_move().map(|event| Some(Step::Event(event))),
            [TURN] => return Ok(Some(Step::Turn)),
            [UNMAPPED] => Event::Unmapped(unmapped::read_unmapped(self.unmapped.take()?, tables)?),
            [FAILURES] => {
                let row = self.failures.take()?;
                Event::Failure(failure::read_failure(row, &mut self.places, tables)?)
            }
            [COMPACTIONS] => Event::Compaction(compaction::read_compaction(self.compactions.take()?, tables)?),
            _ => return Err(Damage("it has events of an unknown kind")),
        };
        Ok(Some(Step::Event(self.other.insert(other))))
    }

    #[inline]
    fn next_move(&mut self) -> Result<&Event, Damage> {
        let changes = self.moves.step()?;
        let row = self.moves.row();
        if changes {
            self.moved = Some(Event::Move(moved::read_move(row, &self.tables)?));
        }
        if let Some(Event::Move(moved)) = &mut self.moved {
            moved::vary(moved, row, self.expected);
            self.expected.follow(moved);
        }
        self.moved.as_ref().ok_or(Damage("its first row begins no run"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{
            OwnerSource, Verdict,
            failure::{Cause, Failure},
        },
        made_up,
    };

    fn failure() -> Failure {
        let failures = made_up::others().into_iter().filter_map(|event| match event {
            Event::Failure(failure) if !failure.places.is_empty() => Some(failure),
            _ => None,
        });
        failures.last().unwrap()
    }

    fn read_back(batch: &mut Batch) -> Result<Vec<Event>, Damage> {
        let (mut content, mut events) = (Vec::new(), Vec::new());
        batch.finish(&mut content);
        let mut read = Events::new(&content)?;
        while let Some(step) = read.step()? {
            if let Step::Event(event) = step {
                events.push(event.clone());
            }
        }
        Ok(events)
    }

    #[test]
    fn a_failure_has_no_more_places_than_a_reader_takes() {
        let (failure, mut batch) = (failure(), Batch::default());
        let place = &failure.places[0];
        batch.push(&Event::Failure(Failure {
            places: vec![place.clone(); 3 * MAX_PLACES],
            ..failure.clone()
        }));
        let all = Event::Failure(Failure {
            places: vec![place.clone(); MAX_PLACES],
            ..failure.clone()
        });
        assert_eq!(read_back(&mut batch), Ok(vec![all]));
        for (places, taken) in [(MAX_PLACES, true), (MAX_PLACES + 1, false), (1 << 20, false)] {
            // In run-length columns that many rows take a few bytes.
            let mut row = failure::failure_row(&failure, &mut batch.tables);
            row[FAILURE.len() - 2] = places as u64;
            batch.failures.push(row);
            batch.kinds.push([FAILURES]);
            let row = failure::place_row(place, &mut batch.tables);
            (0..places).for_each(|_| batch.places.push(row));
            assert_eq!(read_back(&mut batch).is_ok(), taken, "{places} places");
        }
    }

    #[test]
    fn numbers_are_places_in_lists() {
        let numbers = |list: &[u64]| list.iter().copied().eq(0..list.len() as u64);
        assert!(numbers(&OwnerSource::ALL.map(|source| source as u64)));
        assert!(numbers(&Verdict::ALL.map(|verdict| verdict as u64)));
        assert!(numbers(&Cause::ALL.map(|cause| cause as u64)));
    }
}
