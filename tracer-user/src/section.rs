//! Sections: the parts of every report.
//! Input: analyses fill them with typed values; renderers show them and know nothing else of an analysis.

use std::{borrow::Cow, sync::Arc};

use crate::{
    event::{Reason, Residence, Verdict, failure::Cause},
    run::backend::BackendName,
    units::{Nanos, Order, Tgid, VirtAddr},
};

/// The attention that a part of a report deserves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Normal,
    /// All is well.
    Good,
    /// It deserves a look.
    Warning,
    /// Something is lost or wrong.
    Alarm,
    /// It is secondary.
    Dim,
}

/// One answer: a table or a record, and sentences about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The key under which programs find it. If it is empty, the values of a record belong to the surrounding object.
    pub name: &'static str,
    /// A line above it for people; empty if headings and labels are enough.
    pub title: Vec<Cell>,
    /// The meaning of the cells of a row, in their order.
    pub columns: Vec<Column>,
    /// The rows, each with a cell for each column.
    pub rows: Vec<Row>,
    /// Sentences for people, below the rows.
    pub notes: Vec<Note>,
    /// Whether a blank line separates it from the section before.
    pub apart: bool,
    /// Whether it always has one row: programs get an object, not an array of objects.
    pub is_record: bool,
}

/// A column: one value of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The key for programs; None if it is for people only.
    pub key: Option<&'static str>,
    /// A prefix for the keys that a cell brings along: `actor_` makes `actor_pid` of a process.
    pub prefix: &'static str,
    /// The heading for people; None if it is for programs only.
    pub heading: Option<&'static str>,
    /// The kind of its cells.
    pub unit: Unit,
    /// The least width in characters, for output with characters of one width: it aligns tables below each other.
    pub least: usize,
    /// The most characters of a line; longer text continues on the next line.
    pub most: Option<usize>,
}

/// The kind of the cells of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Names and words.
    Name,
    /// Numbers of things.
    Count,
    /// Amounts of memory.
    Bytes,
    /// Durations.
    Duration,
}

/// A line of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Cells, in the order of the columns.
    pub cells: Vec<Cell>,
    /// The attention that it deserves.
    pub tone: Tone,
    /// Sentences about it.
    pub notes: Vec<Note>,
}

/// A sentence with its subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// The subject. If it is empty, the subject is that of the note before; None if the sentence needs none.
    pub label: Option<&'static str>,
    /// Words and values.
    pub words: Vec<Cell>,
    /// The attention that it deserves.
    pub tone: Tone,
}

/// A value. Names in it may be hostile: each renderer escapes them.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words, or a name from outside.
    Text(Cow<'static, str>),
    /// A short word with a tone of its own.
    Mark(&'static str, Tone),
    /// There is no value.
    None,
    /// There is a value, but it is not known.
    Unknown,
    /// No process maps it.
    Nobody,
    /// A number of things.
    Count(u64),
    /// A number of things that have a name: `1 page`, `2 pages`.
    Counted(u64, &'static str, &'static str),
    /// A difference.
    Difference(i64),
    /// A number that is a name, not an amount.
    Number(u64),
    /// An amount of memory, bytes.
    Bytes(u64),
    /// A duration.
    Duration(Nanos),
    /// A part, and the whole.
    Share(u64, u64),
    /// Yes or no.
    Flag(bool),
    /// A moment of a run, and the nanoseconds from its clock to the calendar's.
    Date(Nanos, i128),
    /// A duration and a longer one: a range.
    Between(Nanos, Nanos),
    /// A gap in place of rows that are all empty.
    Omitted,
    /// A length, and the greatest length to compare it with.
    Bar(u64, u64),
    /// The old node and the new one.
    Nodes(Residence, Residence),
    /// Base pages by old and new node.
    ByNodes(Vec<((Residence, Residence), u64)>),
    /// Ranges of durations, with the number of durations in each.
    Histogram(Vec<(Nanos, Nanos, u64)>),
    /// A process with its name.
    Process(Tgid, Option<Arc<str>>),
    /// A worker that moves pages for a cpuset.
    Cpuset(Tgid, Option<Arc<str>>),
    /// A page of a process.
    Address(Option<Tgid>, VirtAddr),
    /// The first and the last second of a stretch of a run.
    Seconds(u64, u64),
    /// The reason of a move.
    Reason(Reason),
    /// The cause of a failure to move.
    Cause(Cause, Reason),
    /// The verdict of pagemap.
    Verdict(Verdict),
    /// A folio's order.
    Order(Order),
    /// The backend of a run.
    Backend(BackendName),
    /// All groups that have no row of their own, and their number if it is known.
    Others(Option<u64>),
    /// The text of the cell before continues here.
    Continued,
    /// Several values.
    List(Vec<Self>),
    /// A section within a row; for programs.
    Section(Box<Section>),
}

impl Section {
    /// A table with these columns.
    #[must_use]
    pub fn table(name: &'static str, columns: Vec<Column>) -> Self {
        Self {
            name,
            columns,
            apart: true,
            ..Self::default()
        }
    }

    /// An object for programs.
    #[must_use]
    pub fn record(name: &'static str, values: impl IntoIterator<Item = (&'static str, Cell)>) -> Self {
        let (columns, cells) = values
            .into_iter()
            .map(|(key, cell)| (Column::name().key(key), cell))
            .unzip();
        Self {
            name,
            columns,
            rows: vec![Row::new(cells)],
            is_record: true,
            ..Self::default()
        }
    }

    /// Sentences without a table.
    #[must_use]
    pub fn notes(notes: Vec<Note>) -> Self {
        Self {
            notes,
            ..Self::default()
        }
    }

    /// The same section, separated from the one before.
    #[must_use]
    pub fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row::new(cells));
    }
}

impl Column {
    fn new(unit: Unit, least: usize) -> Self {
        Self {
            key: None,
            prefix: "",
            heading: None,
            unit,
            least,
            most: None,
        }
    }

    /// A column of names and words.
    #[must_use]
    pub fn name() -> Self {
        Self::new(Unit::Name, 0)
    }

    /// A column of numbers of things.
    #[must_use]
    pub fn count() -> Self {
        Self::new(Unit::Count, 11)
    }

    /// A column of amounts of memory.
    #[must_use]
    pub fn bytes() -> Self {
        Self::new(Unit::Bytes, 10)
    }

    /// A column of durations.
    #[must_use]
    pub fn duration() -> Self {
        Self::new(Unit::Duration, 8)
    }

    /// Sets the key for programs.
    #[must_use]
    pub fn key(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Sets the prefix of the keys that a cell brings along.
    #[must_use]
    pub fn prefix(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    /// Sets the heading for people.
    #[must_use]
    pub fn heading(self, heading: &'static str) -> Self {
        Self {
            heading: Some(heading),
            ..self
        }
    }

    /// Sets the least width in characters.
    #[must_use]
    pub fn least(self, least: usize) -> Self {
        Self { least, ..self }
    }

    /// Sets the most characters of a line.
    #[must_use]
    pub fn most(self, most: usize) -> Self {
        Self {
            most: Some(most),
            ..self
        }
    }
}

impl Row {
    /// A row without a tone.
    #[must_use]
    pub fn new(cells: Vec<Cell>) -> Self {
        Self {
            cells,
            ..Self::default()
        }
    }
}

impl Note {
    /// A sentence about `label`.
    #[must_use]
    pub fn about(label: &'static str, words: Vec<Cell>) -> Self {
        Self {
            label: Some(label),
            words,
            tone: Tone::Normal,
        }
    }

    /// A sentence about the subject of the note before.
    #[must_use]
    pub fn more(words: Vec<Cell>) -> Self {
        Self::about("", words)
    }

    /// A sentence without a label.
    #[must_use]
    pub fn plain(words: Vec<Cell>) -> Self {
        Self {
            label: None,
            words,
            tone: Tone::Normal,
        }
    }

    /// A sentence about something that is lost or wrong.
    #[must_use]
    pub fn alarm(label: &'static str, words: Vec<Cell>) -> Self {
        Self::about(label, words).tone(Tone::Alarm)
    }

    /// Sets the tone.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl Cell {
    /// A duration; `Cell::None` if it is not known.
    #[must_use]
    pub fn duration(nanos: Option<Nanos>) -> Self {
        nanos.map_or(Self::None, Self::Duration)
    }
}

impl From<&'static str> for Cell {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<Nanos> for Cell {
    fn from(duration: Nanos) -> Self {
        Self::Duration(duration)
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Section> for Cell {
    fn from(section: Section) -> Self {
        Self::Section(Box::new(section))
    }
}

impl<C: Into<Self>> From<Option<C>> for Cell {
    fn from(value: Option<C>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

/// Cells of words and values: a sentence, or a row.
#[macro_export]
macro_rules! cells {
    ($($cell:expr),* $(,)?) => { vec![$($crate::section::Cell::from($cell)),*] };
}

/// Joins sentences with a separator.
#[must_use]
pub fn joined(sentences: impl IntoIterator<Item = Vec<Cell>>, separator: &'static str) -> Vec<Cell> {
    let mut all = Vec::new();
    for sentence in sentences {
        if !all.is_empty() {
            all.push(separator.into());
        }
        all.extend(sentence);
    }
    all
}
