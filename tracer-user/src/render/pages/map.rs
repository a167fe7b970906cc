//! Address spaces as rows of cells: one character for a stretch of memory, one row for each mapping with pages.
//! Input: the stream of `pages`, the width of the terminal.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use crate::escape::Printable;
use crate::pages::extent::{Extent, State};
use crate::pages::map::{By, Cells, Shade};
use crate::pages::sums::Sums;
use crate::pages::walk::Walked;
use crate::proc::maps::Vma;
use crate::render::pages::{Format, ProcessCounts, Who};
use crate::units::PAGE_SHIFT;
use crate::words::quantity::{Bytes, PageSize};

/// Columns of the name and of everything before the cells.
const NAME: usize = 16;
const BEFORE: usize = NAME + 1 + 12 + 1 + 10 + 1 + 9 + 2;
/// A row has at least this number of cells, even on a narrow terminal.
const FEWEST: usize = 16;

/// Draws maps.
#[derive(Debug)]
pub struct Map<W> {
    out: W,
    by: By,
    cells: usize,
    current: Option<(Arc<Vma>, Cells)>,
    /// The characters that were drawn, with their meanings.
    used: BTreeMap<char, String>,
    hidden: bool,
}

impl<W: Write> Map<W> {
    /// Writes to this writer, in lines of this number of columns.
    pub fn new(out: W, by: By, width: usize) -> Self {
        Self {
            out,
            by,
            cells: width.saturating_sub(BEFORE).max(FEWEST),
            current: None,
            used: BTreeMap::new(),
            hidden: false,
        }
    }
}

/// The character of a shade, and what it means.
fn legend(shade: Option<Shade>) -> (char, String) {
    match shade {
        None => ('.', "not present".to_owned()),
        Some(Shade::Node(node)) => {
            let digit = char::from_digit(node.0, 36).unwrap_or('+');
            let words = if digit == '+' {
                "node 36 or higher".to_owned()
            } else {
                format!("node {node}")
            };
            (digit, words)
        }
        Some(Shade::Size(order)) => {
            let letter = match order.0 {
                0 => '4',
                1..=8 => char::from(b'a' + order.0),
                9 => 'H',
                18 => 'G',
                _ => '+',
            };
            let words = if letter == '+' {
                "other sizes".to_owned()
            } else {
                PageSize(order).to_string()
            };
            (letter, words)
        }
        Some(Shade::Hidden) => ('#', "present, hidden".to_owned()),
        Some(Shade::State(state)) => {
            let letter = match state {
                State::Present => 'p',
                State::Zero => 'z',
                State::Pfnmap => 'd',
                State::Swapped => 's',
                State::Hidden => '?',
                State::Migrating => 'm',
                State::DevicePrivate | State::DeviceExclusive => 'D',
                State::HwPoison => 'X',
                State::Guard => '!',
                State::UffdWp => 'w',
                State::Poisoned => 'x',
                State::Special => '*',
            };
            (letter, state.name().to_owned())
        }
    }
}

impl<W: Write> Format for Map<W> {
    fn begin(&mut self, who: &Who) -> io::Result<()> {
        writeln!(self.out, "{}[{}]", Printable(&who.comm), who.tgid)
    }

    fn extent(&mut self, _: &Who, vma: &Arc<Vma>, extent: &Extent) -> io::Result<()> {
        let cells = match &mut self.current {
            Some((of, cells)) if Arc::ptr_eq(of, vma) => cells,
            current => {
                let cells = Cells::new(vma.start, vma.end, self.cells, self.by);
                &mut current.insert((Arc::clone(vma), cells)).1
            }
        };
        cells.add(extent);
        Ok(())
    }

    fn vma(&mut self, _: &Who, vma: &Arc<Vma>, sums: &Sums, _: u64) -> io::Result<()> {
        self.hidden |= sums.hidden > 0 || sums.in_state(State::Hidden) > 0;
        // A mapping without pages is shown as a hole.
        let Some((_, cells)) = self.current.take() else {
            return Ok(());
        };
        let mut row = String::new();
        for shade in cells.shades() {
            let (letter, words) = legend(shade);
            row.push(letter);
            self.used.insert(letter, words);
        }
        let label = vma.label();
        let name = Printable(label.rsplit('/').next().unwrap_or(label)).to_string();
        let name: String = name.chars().take(NAME).collect();
        writeln!(
            self.out,
            "{name:NAME$} {:>12x} {:>10} {:>9}  {row}",
            vma.start.0,
            Bytes(vma.pages() << PAGE_SHIFT).to_string(),
            format!("{}/cell", Bytes(cells.pages() << PAGE_SHIFT))
                .replace(".0", "")
                .replace(' ', "")
                .replace("iB", ""),
        )
    }

    fn end(&mut self, _: &Who, walked: &Walked, _: &Sums) -> io::Result<()> {
        if walked.ended {
            writeln!(
                self.out,
                "ended    the process ended meanwhile: the rest of its pages is missing"
            )?;
        }
        writeln!(self.out)
    }

    fn finish(&mut self, counts: &ProcessCounts, _: &Sums) -> io::Result<()> {
        let words: Vec<String> = self
            .used
            .iter()
            .map(|(letter, words)| format!("{letter} {words}"))
            .collect();
        writeln!(self.out, "{}", words.join("   "))?;
        writeln!(
            self.out,
            "a cell is what most of its pages are; mappings without pages are left out"
        )?;
        if self.hidden {
            writeln!(self.out, "frames, nodes and page sizes are for root: run with sudo")?;
        }
        if counts.unreadable > 0 {
            writeln!(
                self.out,
                "{} processes may not be read: run with sudo",
                counts.unreadable
            )?;
        }
        self.out.flush()
    }
}
