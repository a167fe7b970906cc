//! Events as rows of typed columns, for CSV and Parquet. The columns are described in docs/export.md and stable.
//! Input: events.

mod cell;
mod columns;

use std::{borrow::Cow, io};

use crate::{escape::Printable, event::Event, sink::export::RunColumns, words::quantity::Count};

pub use cell::{Cell, Type};
use columns::{
    ACTOR, COMPACTION, Column, FAILURE, HOST, MOVE, NTH, OWNER, PLACE, RUN, TIME, UNMAPPED, VMA, Value, When, described,
};

/// The kind of rows in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableKind {
    /// Extents of pages that moved.
    Moves,
    /// Folios that moved and are not mapped.
    Unmapped,
    /// Folios that could not be moved: one row for each of their known mappings, one row if none is known.
    Failures,
    /// Passes of compaction.
    Compactions,
}

impl TableKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Moves, Self::Unmapped, Self::Failures, Self::Compactions];

    /// The kind of an event.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        match event {
            Event::Move(_) => Self::Moves,
            Event::Unmapped(_) => Self::Unmapped,
            Event::Failure(_) => Self::Failures,
            Event::Compaction(_) => Self::Compactions,
        }
    }

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Moves => "moves",
            Self::Unmapped => "unmapped",
            Self::Failures => "failures",
            Self::Compactions => "compactions",
        }
    }

    /// `1 failure`, `12 failures`: a number of them.
    #[must_use]
    pub fn counted(self, count: u64) -> String {
        let (one, many) = match self {
            Self::Moves => ("move", "moves"),
            Self::Unmapped => ("move without a mapping", "moves without a mapping"),
            Self::Failures => ("failure", "failures"),
            Self::Compactions => ("pass of compaction", "passes of compaction"),
        };
        format!("{} {}", Count(count), if count == 1 { one } else { many })
    }

    /// Name and type of each column of the event itself, in the order of [`rows`].
    #[must_use]
    pub fn columns(self) -> Vec<(&'static str, Type)> {
        match self {
            Self::Moves => [described(OWNER), described(MOVE), described(ACTOR), described(VMA)].concat(),
            Self::Unmapped => [described(UNMAPPED), described(ACTOR)].concat(),
            Self::Failures => {
                let place = [described(NTH), described(OWNER), described(PLACE), described(VMA)].concat();
                [described(FAILURE), described(ACTOR), place].concat()
            }
            Self::Compactions => [described(COMPACTION), described(ACTOR)].concat(),
        }
    }
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The kind of its rows.
    pub kind: TableKind,
    /// Whether there is a column of the host; else the path of the file names it.
    pub host: bool,
}

impl Table {
    /// Name and type of each column, in the order of [`Table::rows`].
    #[must_use]
    pub fn columns(self) -> Vec<(&'static str, Type)> {
        let host = if self.host { described(HOST) } else { Vec::new() };
        [described(TIME), host, described(RUN), self.kind.columns()].concat()
    }

    /// Passes the rows of an event to `take`, if it is of this table's kind.
    ///
    /// # Errors
    /// The errors of `take`.
    pub fn rows(
        self,
        event: &Event,
        run: &RunColumns,
        take: impl FnMut(&[Cell<'_>]) -> io::Result<()>,
    ) -> io::Result<()> {
        if TableKind::of(event) != self.kind {
            return Ok(());
        }
        let when = When::new(event.at(), run);
        let mut cells = Vec::with_capacity(40);
        put(&mut cells, TIME, Some(&when));
        if self.host {
            put(&mut cells, HOST, Some(run));
        }
        put(&mut cells, RUN, Some(run));
        rows(event, cells, take)
    }
}

/// Passes the rows of an event to `take`: the columns of its kind, each row after `cells`.
///
/// # Errors
/// The errors of `take`.
pub fn rows<'a>(
    event: &'a Event,
    mut cells: Vec<Cell<'a>>,
    mut take: impl FnMut(&[Cell<'_>]) -> io::Result<()>,
) -> io::Result<()> {
    match event {
        Event::Move(moved) => {
            put(&mut cells, OWNER, moved.owner.as_ref());
            put(&mut cells, MOVE, Some(moved));
            put(&mut cells, ACTOR, moved.actor.as_ref());
            put(&mut cells, VMA, moved.vma.as_deref());
        }
        Event::Unmapped(moved) => {
            put(&mut cells, UNMAPPED, Some(moved));
            put(&mut cells, ACTOR, Some(&moved.actor));
        }
        Event::Failure(failure) => {
            put(&mut cells, FAILURE, Some(failure));
            put(&mut cells, ACTOR, Some(&failure.actor));
            let nowhere = failure.places.is_empty().then_some(None);
            for (nth, place) in (1..).zip(failure.places.iter().map(Some).chain(nowhere)) {
                let mut cells = cells.clone();
                put(&mut cells, NTH, Some(&nth));
                put(&mut cells, OWNER, place.map(|place| &place.owner));
                put(&mut cells, PLACE, place);
                put(&mut cells, VMA, place.and_then(|place| place.vma.as_deref()));
                take(&cells)?;
            }
            return Ok(());
        }
        Event::Compaction(compaction) => {
            put(&mut cells, COMPACTION, Some(compaction));
            put(&mut cells, ACTOR, Some(&compaction.actor));
        }
    }
    take(&cells)
}

/// The values of some columns; None: all of them are unknown.
fn put<'a, E>(cells: &mut Vec<Cell<'a>>, columns: &[Column<E>], of: Option<&'a E>) {
    cells.extend(columns.iter().map(|column| match column.value {
        Value::Int(value) => Cell::Int(of.and_then(value)),
        Value::Long(value) => Cell::Long(of.and_then(value)),
        Value::Address(value) => Cell::Address(of.and_then(value)),
        Value::Bool(value) => Cell::Bool(of.and_then(value)),
        Value::Text(value) => Cell::Text(of.and_then(value).map(printable)),
        Value::Time(value) => Cell::Time(of.and_then(value)),
    }));
}

/// Escapes control characters: names and the texts of a recording may come from anybody.
fn printable(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\') {
        return text;
    }
    Cow::Owned(Printable(&text).to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::made_up;

    fn kind_of(cell: &Cell) -> Type {
        match cell {
            Cell::Int(_) => Type::Int,
            Cell::Long(_) => Type::Long,
            Cell::Address(_) => Type::Address,
            Cell::Bool(_) => Type::Bool,
            Cell::Text(_) => Type::Text,
            Cell::Time(_) => Type::Time,
        }
    }

    #[test]
    fn rows_have_the_columns_of_their_table() {
        let run = RunColumns::from(&made_up::header());
        let events = made_up::others()
            .into_iter()
            .chain([Event::Move(made_up::moved()), Event::Move(made_up::unknown())]);
        let events: Vec<Event> = events.collect();
        for (kind, host) in TableKind::ALL.into_iter().zip([true, false, true, false]) {
            let table = Table { kind, host };
            let columns = table.columns();
            let names: BTreeSet<&str> = columns.iter().map(|(name, _)| *name).collect();
            assert_eq!(names.len(), columns.len(), "{names:?}");
            assert_eq!(names.contains("host"), host);
            let types: Vec<Type> = columns.iter().map(|(_, kind)| *kind).collect();
            let mut rows = 0;
            for event in &events {
                let take = |cells: &[Cell]| {
                    rows += 1;
                    assert_eq!(cells.iter().map(kind_of).collect::<Vec<_>>(), types);
                    Ok(())
                };
                table.rows(event, &run, take).unwrap();
            }
            assert_eq!(rows, 2, "{kind:?}");
        }
    }

    #[test]
    fn a_failure_has_a_row_for_each_mapping() {
        let Some(Event::Failure(mut failure)) = made_up::others().into_iter().nth(2) else {
            panic!("the third is a failure")
        };
        failure.places.extend_from_within(..);
        let table = Table {
            kind: TableKind::Failures,
            host: true,
        };
        let place = table.columns().iter().position(|(name, _)| *name == "place").unwrap();
        let mut places = Vec::new();
        let take = |cells: &[Cell]| {
            let Cell::Int(nth) = cells[place] else {
                panic!("{:?}", cells[place])
            };
            places.push(nth);
            Ok(())
        };
        table
            .rows(&Event::Failure(failure), &RunColumns::default(), take)
            .unwrap();
        assert_eq!(places, [Some(1), Some(2)]);
    }
}
