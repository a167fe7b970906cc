//! Sections: what every report is made of.
//! Input: analyses fill them with typed values; renderers show them, and know nothing else of an analysis.

use std::{borrow::Cow, sync::Arc};

use crate::{
    event::{Reason, Residence, Verdict, failure::Cause},
    run::backend::BackendName,
    units::{Nanos, Order, Tgid, VirtAddr},
};

/// How much attention something deserves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As everything else.
    #[default]
    Normal,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Something is lost or wrong.
    Alarm,
    /// Beside the point.
    Dim,
}

/// One answer: a table or a record, and sentences about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The key under which programs find it. Empty: the values of a record belong to what the section is part of.
    pub name: &'static str,
    /// A line above it for people; nothing where headings and labels say enough.
    pub title: Vec<Cell>,
    /// What the cells of a row mean, in their order.
    pub columns: Vec<Column>,
    /// A cell for each column.
    pub rows: Vec<Row>,
    /// Sentences for people, below the rows.
    pub notes: Vec<Note>,
    /// Whether it is set off from what stands before it.
    pub apart: bool,
    /// Whether it has one row by nature: an object for programs, not an array of objects.
    pub is_record: bool,
}

/// A value of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The key for programs; None: it is for people only.
    pub key: Option<&'static str>,
    /// What stands before the keys that a cell brings along: `actor_` makes `actor_pid` of a process.
    pub prefix: &'static str,
    /// The heading for people; None: it is for programs only.
    pub heading: Option<&'static str>,
    /// What its cells are.
    pub unit: Unit,
    /// Characters that it takes at least where characters have one width: tables below each other line up.
    pub least: usize,
    /// Characters after which its text continues on the next line.
    pub most: Option<usize>,
}

/// What the cells of a column are.
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
    /// In the order of the columns.
    pub cells: Vec<Cell>,
    /// How much attention it deserves.
    pub tone: Tone,
    /// Sentences about it.
    pub notes: Vec<Note>,
}

/// A sentence, with what it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// What it is about. Empty: the same as the one before. None: it stands for itself.
    pub label: Option<&'static str>,
    /// Words and values.
    pub words: Vec<Cell>,
    /// How much attention it deserves.
    pub tone: Tone,
}

/// A value. Names in it may be hostile: each renderer makes them harmless.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words, or somebody's name.
    Text(Cow<'static, str>),
    /// A short word with a tone of its own.
    Mark(&'static str, Tone),
    /// There is none.
    None,
    /// There is one, but nobody knows it.
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
    /// A part of a whole.
    Share(u64, u64),
    /// Yes or no.
    Flag(bool),
    /// A moment of a run whose clock was so many nanoseconds from that of the calendar.
    Date(Nanos, i128),
    /// From a duration to a longer one.
    Between(Nanos, Nanos),
    /// Rows are left out here, because they are all empty.
    Omitted,
    /// A length, compared with the greatest.
    Bar(u64, u64),
    /// From a node to a node.
    Nodes(Residence, Residence),
    /// Base pages by where they were and where they are.
    ByNodes(Vec<((Residence, Residence), u64)>),
    /// How many durations there are from one duration to another.
    Histogram(Vec<(Nanos, Nanos, u64)>),
    /// A process by name.
    Process(Tgid, Option<Arc<str>>),
    /// A page of a process.
    Address(Option<Tgid>, VirtAddr),
    /// Seconds of a run, the first and the last.
    Seconds(u64, u64),
    /// Why something moved.
    Reason(Reason),
    /// Why something did not move.
    Cause(Cause, Reason),
    /// What pagemap said.
    Verdict(Verdict),
    /// A folio's order.
    Order(Order),
    /// How events are captured.
    Backend(BackendName),
    /// Everything that has no row of its own, and if that is known how much it is.
    Others(Option<u64>),
    /// What stands in the cell before it goes on here.
    Continued,
    /// Several values.
    List(Vec<Self>),
    /// A part that has columns of its own; for programs.
    Section(Box<Section>),
}

impl Section {
    /// A table under its headings.
    #[must_use]
    pub fn table(name: &'static str, columns: Vec<Column>) -> Self {
        Self {
            name,
            columns,
            apart: true,
            ..Self::default()
        }
    }

    /// One object for programs.
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

    /// Sentences that go on where others end.
    #[must_use]
    pub fn notes(notes: Vec<Note>) -> Self {
        Self {
            notes,
            ..Self::default()
        }
    }

    /// The same, set off from what stands before it.
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

    /// Names and words.
    #[must_use]
    pub fn name() -> Self {
        Self::new(Unit::Name, 0)
    }

    /// Numbers of things.
    #[must_use]
    pub fn count() -> Self {
        Self::new(Unit::Count, 11)
    }

    /// Amounts of memory.
    #[must_use]
    pub fn bytes() -> Self {
        Self::new(Unit::Bytes, 10)
    }

    /// Durations.
    #[must_use]
    pub fn duration() -> Self {
        Self::new(Unit::Duration, 8)
    }

    /// For programs.
    #[must_use]
    pub fn key(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    /// For programs, where a cell has keys of its own.
    #[must_use]
    pub fn prefix(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    /// For people.
    #[must_use]
    pub fn heading(self, heading: &'static str) -> Self {
        Self {
            heading: Some(heading),
            ..self
        }
    }

    /// At least so many characters.
    #[must_use]
    pub fn least(self, least: usize) -> Self {
        Self { least, ..self }
    }

    /// At most so many characters in a line.
    #[must_use]
    pub fn most(self, most: usize) -> Self {
        Self {
            most: Some(most),
            ..self
        }
    }
}

impl Row {
    /// Without a tone.
    #[must_use]
    pub fn new(cells: Vec<Cell>) -> Self {
        Self {
            cells,
            ..Self::default()
        }
    }
}

impl Note {
    /// About what `label` says.
    #[must_use]
    pub fn about(label: &'static str, words: Vec<Cell>) -> Self {
        Self {
            label: Some(label),
            words,
            tone: Tone::Normal,
        }
    }

    /// About the same as the one before.
    #[must_use]
    pub fn more(words: Vec<Cell>) -> Self {
        Self::about("", words)
    }

    /// For itself.
    #[must_use]
    pub fn plain(words: Vec<Cell>) -> Self {
        Self {
            label: None,
            words,
            tone: Tone::Normal,
        }
    }

    /// Something is lost or wrong.
    #[must_use]
    pub fn alarm(label: &'static str, words: Vec<Cell>) -> Self {
        Self::about(label, words).tone(Tone::Alarm)
    }

    /// With a tone.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl Cell {
    /// A duration, if it is known.
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

/// Sentences, one behind the other.
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
