//! The rows of a section as a table.
//! Input: a section; output: any writer.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use super::lines::{HEADING, line, row_notes, style, wrap};
use crate::{
    event::Residence,
    section::{Cell, Column, Row, Section, Unit},
    words::spelled,
};

/// A column as it is shown. A column of sums by node pair is shown as one column for each pair.
struct Shown<'s> {
    column: &'s Column,
    /// The index of the cell that it shows.
    cell: usize,
    pair: Option<(Residence, Residence)>,
    width: usize,
}

impl Shown<'_> {
    fn heading(&self) -> String {
        let heading = self.column.heading.unwrap_or_default();
        self.pair
            .map_or_else(|| heading.to_owned(), |(old, new)| spelled(&Cell::Nodes(old, new)))
    }

    fn is_left(&self) -> bool {
        self.column.unit == Unit::Name
    }

    fn cell(&self, row: &Row) -> Option<Cell> {
        let cell = row.cells.get(self.cell)?;
        Some(match (cell, self.pair) {
            (Cell::ByNodes(sums), Some(pair)) => {
                let sum = sums.iter().find(|(of, _)| *of == pair);
                sum.map_or(Cell::None, |(_, pages)| Cell::Count(*pages))
            }
            (cell, _) => cell.clone(),
        })
    }
}

/// Writes the rows under their headings. Writes nothing if no column is for people.
pub(super) fn write(out: &mut dyn Write, section: &Section) -> io::Result<()> {
    let columns = columns(section);
    if columns.is_empty() || section.rows.is_empty() {
        return Ok(());
    }
    let headings: Vec<String> = columns.iter().map(Shown::heading).collect();
    if headings.iter().any(|heading| !heading.is_empty()) {
        let mut text = String::new();
        for (at, heading) in headings.iter().enumerate() {
            append(&mut text, &columns, at, heading, columns[at].width);
        }
        line(out, HEADING, &text)?;
    }
    section.rows.iter().try_for_each(|row| self::row(out, &columns, row))
}

fn columns(section: &Section) -> Vec<Shown<'_>> {
    let mut columns = Vec::new();
    for (cell, column) in section.columns.iter().enumerate() {
        if column.heading.is_none() {
            continue;
        }
        let shown = |pair| Shown {
            column,
            cell,
            pair,
            width: 0,
        };
        let cells = section.rows.iter().filter_map(|row| row.cells.get(cell));
        let pairs: BTreeSet<(Residence, Residence)> = cells
            .filter_map(|cell| match cell {
                Cell::ByNodes(sums) => Some(sums.iter().map(|(pair, _)| *pair)),
                _ => None,
            })
            .flatten()
            .collect();
        if pairs.is_empty() {
            columns.push(shown(None));
        } else {
            columns.extend(pairs.into_iter().map(|pair| shown(Some(pair))));
        }
    }
    for at in 0..columns.len() {
        columns[at].width = width(&columns, at, &section.rows);
    }
    columns
}

/// The width of the widest text of the column, except cells that continue in the next column.
fn width(columns: &[Shown<'_>], at: usize, rows: &[Row]) -> usize {
    let shown = &columns[at];
    let goes_on = |row: &&Row| {
        let next = columns.get(at + 1).and_then(|next| row.cells.get(next.cell));
        next == Some(&Cell::Continued)
    };
    let cells = rows
        .iter()
        .filter(|row| !goes_on(row))
        .filter_map(|row| shown.cell(row));
    let widest = cells
        .map(|cell| spelled(&cell).chars().count())
        .max()
        .unwrap_or_default();
    let heading = shown.heading().chars().count();
    // A heading of numbers is aligned right; the extra column separates it from the number at its left.
    let heading = if shown.is_left() { heading } else { heading + 1 };
    let widest = shown.column.most.map_or(widest, |most| widest.min(most));
    widest.max(heading).max(shown.column.least)
}

/// The number of columns between a column and the one before it.
fn gap(columns: &[Shown<'_>], at: usize) -> usize {
    match at.checked_sub(1) {
        None => 0,
        Some(before) if columns[before].is_left() || columns[at].is_left() => 2,
        Some(_) => 1,
    }
}

fn append(line: &mut String, columns: &[Shown<'_>], at: usize, text: &str, width: usize) {
    line.extend(std::iter::repeat_n(' ', gap(columns, at)));
    let fill = std::iter::repeat_n(' ', width.saturating_sub(text.chars().count()));
    if columns[at].is_left() {
        line.push_str(text);
        line.extend(fill);
    } else {
        line.extend(fill);
        line.push_str(text);
    }
}

fn row(out: &mut dyn Write, columns: &[Shown<'_>], row: &Row) -> io::Result<()> {
    let cells: Vec<Cell> = columns
        .iter()
        .map(|shown| shown.cell(row).unwrap_or(Cell::None))
        .collect();
    let (mut text, mut below, mut begins) = (String::new(), Vec::new(), 0);
    for (at, (shown, cell)) in columns.iter().zip(&cells).enumerate() {
        if *cell == Cell::Continued {
            continue;
        }
        let after = cells[at + 1..]
            .iter()
            .take_while(|cell| **cell == Cell::Continued)
            .count();
        let more: usize = (at + 1..=at + after)
            .map(|at| gap(columns, at) + columns[at].width)
            .sum();
        let mut written = spelled(cell);
        if let Some(most) = shown.column.most {
            let mut lines = wrap(&written, most).into_iter();
            written = lines.next().unwrap_or_default();
            below.extend(lines.map(|line| (begins + gap(columns, at), line)));
        }
        match cell {
            Cell::Mark(word, tone) => {
                // Only the last cell is styled: escape sequences count in the width, but take no space on the screen.
                let style = style(*tone);
                append(&mut text, columns, at, &format!("{style}{word}{style:#}"), 0);
            }
            _ => append(&mut text, columns, at, &written, shown.width + more),
        }
        begins += gap(columns, at) + shown.width + more;
    }
    line(out, style(row.tone), &text)?;
    for (indent, text) in below {
        line(out, style(row.tone), &format!("{:indent$}{text}", ""))?;
    }
    let indent = columns.first().map_or(0, |first| first.width + 2);
    row_notes(out, indent, &row.notes)
}
