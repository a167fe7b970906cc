//! Comma-separated values: a table with one line of names; an unknown value is empty.
//! Input: events; output: any writer.

use std::io::{self, Write};

use csv::ErrorKind;

use crate::{
    event::Event,
    run::header::Header,
    sink::{
        Sink,
        export::{Export, RunColumns},
        table::{Cell, Table, TableKind},
    },
};

/// Writes one table.
pub struct Csv<W: Write> {
    writer: csv::Writer<W>,
    table: Table,
    run: RunColumns,
    /// A value as text.
    scratch: Vec<u8>,
}

impl<W: Write> Csv<W> {
    /// `writer` may be unbuffered.
    ///
    /// # Errors
    /// When the line of names cannot be written.
    pub fn new(writer: W, table: Table) -> io::Result<Self> {
        let mut writer = csv::WriterBuilder::new().buffer_capacity(1 << 16).from_writer(writer);
        let names = table.columns().into_iter().map(|(name, _)| name);
        writer.write_record(names).map_err(io_error)?;
        Ok(Self {
            writer,
            table,
            run: RunColumns::default(),
            scratch: Vec::new(),
        })
    }
}

/// Keeps the kind of a system error, so that a broken pipe is recognized.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// A value as text, in `scratch` if it is not text already.
fn text<'a>(cell: &'a Cell<'_>, scratch: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    scratch.clear();
    match cell {
        Cell::Int(Some(value)) => write!(scratch, "{value}")?,
        Cell::Long(Some(value)) => write!(scratch, "{value}")?,
        Cell::Address(Some(value)) => write!(scratch, "{}", value.cast_signed())?,
        Cell::Bool(Some(value)) => write!(scratch, "{value}")?,
        Cell::Time(Some(micros)) => {
            let time = jiff::Timestamp::from_microsecond(*micros).map_err(io::Error::other)?;
            write!(scratch, "{time:.6}")?;
        }
        Cell::Text(Some(text)) => return Ok(text.as_bytes()),
        Cell::Int(None)
        | Cell::Long(None)
        | Cell::Address(None)
        | Cell::Bool(None)
        | Cell::Time(None)
        | Cell::Text(None) => {}
    }
    Ok(scratch)
}

impl<W: Write> Sink for Csv<W> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.run = RunColumns::from(header);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let Self {
            writer,
            table,
            run,
            scratch,
        } = self;
        table.rows(event, run, |cells| {
            for cell in cells {
                writer.write_field(text(cell, scratch)?).map_err(io_error)?;
            }
            writer.write_record(None::<&[u8]>).map_err(io_error)
        })
    }
}

impl<W: Write> Export for Csv<W> {
    fn takes(&self, event: &Event) -> bool {
        TableKind::of(event) == self.table.kind
    }

    fn close(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{made_up, units::VirtAddr};

    fn exported(kind: TableKind, events: &[Event]) -> String {
        let mut out = Vec::new();
        let mut csv = Csv::new(&mut out, Table { kind, host: true }).unwrap();
        csv.begin(&made_up::header()).unwrap();
        for event in events.iter().filter(|event| TableKind::of(event) == kind) {
            assert!(csv.takes(event));
            csv.event(event).unwrap();
        }
        csv.finish(&made_up::summary()).unwrap();
        csv.close().unwrap();
        drop(csv);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_table() {
        let mut events = made_up::others();
        events.extend([made_up::moved(), made_up::unknown(), made_up::compared()].map(Event::Move));
        let all: Vec<String> = TableKind::ALL.iter().map(|kind| exported(*kind, &events)).collect();
        insta::assert_snapshot!("every_table", all.join("\n"));
    }

    #[test]
    fn hostile_names_stay_in_their_field() {
        let mut moved = made_up::moved();
        let owner = moved.owner.as_mut().unwrap();
        owner.comm = Some(Arc::from("a\"b,c\n\x1b[31m\\"));
        moved.vaddr = VirtAddr(0xffff_ffff_ff60_0000);
        let csv = exported(TableKind::Moves, &[Event::Move(moved)]);
        assert_eq!(csv.lines().count(), 2, "{csv}");
        assert!(csv.contains(r#","a""b,c\x0a\x1b[31m\\","#), "{csv}");
        assert!(csv.contains(",-10485760,"), "{csv}");
    }
}
