//! Sections as JSON: a record is an object, a table an array of objects, each value under its column's key.
//! Input: sections. The keys of reports are documented in docs/json.md and stable.

mod contents;

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use crate::{
    escape,
    event::{Residence, failure::cause_name},
    section::{Cell, Row, Section},
};

pub use contents::contents;

/// Writes everything that sections have for programs as one object on one line, its keys in alphabetical order.
///
/// # Errors
/// The errors of `out`.
pub fn object(out: &mut dyn Write, sections: &[Section]) -> io::Result<()> {
    let mut entries = BTreeMap::new();
    for section in sections.iter().filter(|section| is_for_programs(section)) {
        match (section.name, section.rows.first()) {
            ("", Some(row)) => sorted(&mut entries, section, row),
            ("", None) => {}
            (name, _) => {
                entries.insert(name.to_owned(), Sorted::Section(section));
            }
        }
    }
    escape::json(&mut *out, &entries)?;
    out.write_all(b"\n")
}

/// A value whose objects have their keys in alphabetical order. A table may have a million rows: only the row that is
/// being written is sorted.
enum Sorted<'a> {
    Section(&'a Section),
    Row(&'a Section, &'a Row),
    Cell(&'a Cell),
    Part(Value),
}

/// Adds the values of a row by their keys.
fn sorted<'a>(entries: &mut BTreeMap<String, Sorted<'a>>, section: &'a Section, row: &'a Row) {
    for (column, cell) in section.columns.iter().zip(&row.cells) {
        match (column.key, cell) {
            (None, _) => {}
            (Some(_), Cell::Process(..) | Cell::Cpuset(..) | Cell::Nodes(..) | Cell::Address(..)) => {
                // All keys are strings, so this does not fail.
                if let Ok(Value::Object(parts)) = serde_json::to_value(Parts(column.prefix, cell)) {
                    entries.extend(parts.into_iter().map(|(key, value)| (key, Sorted::Part(value))));
                }
            }
            (Some(key), cell) => {
                entries.insert(key.to_owned(), Sorted::Cell(cell));
            }
        }
    }
}

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Section(section) if section.is_record => {
                let row = section.rows.first().map(|row| Self::Row(section, row));
                row.serialize(serializer)
            }
            Self::Section(section) => serializer.collect_seq(section.rows.iter().map(|row| Self::Row(section, row))),
            Self::Row(section, row) => {
                let mut entries = BTreeMap::new();
                sorted(&mut entries, section, row);
                serializer.collect_map(entries)
            }
            Self::Cell(Cell::Section(section)) => Self::Section(section).serialize(serializer),
            Self::Cell(Cell::List(cells)) => serializer.collect_seq(cells.iter().map(Self::Cell)),
            // All other values are short.
            Self::Cell(cell) => serde_json::to_value(CellValue(cell))
                .unwrap_or_default()
                .serialize(serializer),
            Self::Part(value) => value.serialize(serializer),
        }
    }
}

/// The values of a cell that has several keys, with a prefix of each key.
struct Parts<'a>(&'a str, &'a Cell);

impl Serialize for Parts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        parts(&mut map, self.0, self.1)?;
        map.end()
    }
}

/// Writes a line for each row: an object whose `kind` is the section's name.
///
/// # Errors
/// The errors of `out`.
pub fn lines(out: &mut dyn Write, sections: &[Section]) -> io::Result<()> {
    for section in sections {
        for row in section.rows.iter().filter(|_| !section.name.is_empty()) {
            let kind = Some(section.name);
            escape::json(&mut *out, &Object { kind, section, row })?;
            out.write_all(b"\n")?;
        }
    }
    Ok(())
}

/// Whether the section has anything for programs.
fn is_for_programs(section: &Section) -> bool {
    section.columns.iter().any(|column| column.key.is_some())
}

/// Sections side by side in one object.
pub struct Sections<'a>(pub &'a [Section]);

impl Serialize for Sections<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for section in self.0.iter().filter(|section| is_for_programs(section)) {
            match (section.name, section.rows.first()) {
                ("", Some(row)) => values(&mut map, section, row)?,
                ("", None) => {}
                (name, _) => map.serialize_entry(name, &Whole(section))?,
            }
        }
        map.end()
    }
}

/// A section on its own.
struct Whole<'a>(&'a Section);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let section = self.0;
        let object = |row| Object {
            kind: None,
            section,
            row,
        };
        if !section.is_record {
            return serializer.collect_seq(section.rows.iter().map(object));
        }
        section.rows.first().map(object).serialize(serializer)
    }
}

struct Object<'a> {
    kind: Option<&'static str>,
    section: &'a Section,
    row: &'a Row,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(kind) = self.kind {
            map.serialize_entry("kind", kind)?;
        }
        values(&mut map, self.section, self.row)?;
        map.end()
    }
}

fn values<M: SerializeMap>(map: &mut M, section: &Section, row: &Row) -> Result<(), M::Error> {
    for (column, cell) in section.columns.iter().zip(&row.cells) {
        match (column.key, cell) {
            (None, _) => {}
            (Some(_), Cell::Process(..) | Cell::Cpuset(..) | Cell::Nodes(..) | Cell::Address(..)) => {
                parts(map, column.prefix, cell)?;
            }
            (Some(key), cell) => map.serialize_entry(key, &CellValue(cell))?,
        }
    }
    Ok(())
}

/// Writes a value that has several keys, with the same keys as in the lines of events. Writes nothing for other values.
fn parts<M: SerializeMap>(map: &mut M, prefix: &str, cell: &Cell) -> Result<(), M::Error> {
    let key = |name: &str| format!("{prefix}{name}");
    match cell {
        Cell::Process(tgid, comm) | Cell::Cpuset(tgid, comm) => {
            map.serialize_entry(&key("pid"), &tgid.0)?;
            map.serialize_entry(&key("comm"), &comm.as_deref())
        }
        Cell::Nodes(old, new) => {
            map.serialize_entry(&key("old_node"), &old.node().map(|node| node.0))?;
            map.serialize_entry(&key("new_node"), &new.node().map(|node| node.0))
        }
        Cell::Address(tgid, vaddr) => {
            map.serialize_entry(&key("pid"), &tgid.map(|tgid| tgid.0))?;
            map.serialize_entry(&key("vaddr"), &vaddr.to_string())
        }
        _ => Ok(()),
    }
}

/// A value under one key.
struct CellValue<'a>(&'a Cell);

impl Serialize for CellValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::Mark(word, _) => serializer.serialize_str(word),
            Cell::None | Cell::Unknown | Cell::Continued | Cell::Omitted | Cell::Others(_) => {
                serializer.serialize_none()
            }
            Cell::Nobody => serializer.serialize_str("nobody"),
            Cell::Count(number)
            | Cell::Counted(number, ..)
            | Cell::Number(number)
            | Cell::Bytes(number)
            | Cell::Bar(number, _)
            | Cell::Share(number, _)
            | Cell::Seconds(number, _) => serializer.serialize_u64(*number),
            Cell::Difference(difference) => serializer.serialize_i64(*difference),
            Cell::Duration(nanos) | Cell::Date(nanos, _) => serializer.serialize_u64(nanos.0),
            Cell::Between(from, to) => (from.0, to.0).serialize(serializer),
            Cell::Flag(flag) => serializer.serialize_bool(*flag),
            Cell::ByNodes(sums) => serializer.collect_seq(sums.iter().map(|(pair, pages)| PairSum(*pair, *pages))),
            Cell::Histogram(buckets) => {
                serializer.collect_seq(buckets.iter().map(|(from, to, count)| (from.0, to.0, *count)))
            }
            Cell::Nodes(..) | Cell::Process(..) | Cell::Cpuset(..) | Cell::Address(..) => {
                let mut map = serializer.serialize_map(None)?;
                parts(&mut map, "", self.0)?;
                map.end()
            }
            Cell::Reason(reason) => serializer.collect_str(reason),
            Cell::Cause(cause, _) => serializer.serialize_str(cause_name(*cause)),
            Cell::Verdict(verdict) => serializer.serialize_str(verdict.name()),
            Cell::Order(order) => serializer.serialize_u8(order.0),
            Cell::Backend(backend) => serializer.serialize_str(backend.name()),
            Cell::List(cells) => serializer.collect_seq(cells.iter().map(CellValue)),
            Cell::Section(section) => Whole(section).serialize(serializer),
        }
    }
}

/// Base pages that went from one node to another.
struct PairSum((Residence, Residence), u64);

impl Serialize for PairSum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        parts(&mut map, "", &Cell::Nodes(self.0.0, self.0.1))?;
        map.serialize_entry("pages", &self.1)?;
        map.end()
    }
}
