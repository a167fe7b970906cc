//! Rows for people, on a terminal or in a pipe, and the closing page.
//! Input: events; output: any writer.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    event::{Event, Verdict},
    render::{
        rows::{self, Row},
        summary,
    },
    sink::{Header, Sink, Summary},
    units::Nanos,
};

const HEADING: Style = Style::new().bold();
const MOVED_ON: Style = AnsiColor::Yellow.on_default();
const ALARM: Style = AnsiColor::Red.on_default().bold();

/// Writes rows. The writer strips the styles where there is no terminal.
pub struct Text<W> {
    writer: W,
    /// Neighbouring pages become one row.
    fold: bool,
    clock_offset: i128,
    zone: TimeZone,
    row: Option<(Row, Nanos, Verdict)>,
    any: bool,
}

impl<W: Write> Text<W> {
    /// With `fold`, neighbouring pages that moved together become one row.
    pub fn new(writer: W, fold: bool) -> Self {
        Self {
            writer,
            fold,
            clock_offset: 0,
            zone: TimeZone::system(),
            row: None,
            any: false,
        }
    }

    fn write_row(&mut self) -> io::Result<()> {
        let Some((row, at, verdict)) = self.row.take() else {
            return Ok(());
        };
        if !self.any {
            self.any = true;
            writeln!(self.writer, "{HEADING}{}{HEADING:#}", rows::heading())?;
        }
        let style = if verdict == Verdict::Confirmed {
            Style::new()
        } else {
            MOVED_ON
        };
        writeln!(self.writer, "{style}{}{style:#}", row.text(&self.clock(at)))
    }

    fn clock(&self, at: Nanos) -> String {
        match Timestamp::from_nanosecond(i128::from(at.0) + self.clock_offset) {
            Ok(time) => time.to_zoned(self.zone.clone()).strftime("%H:%M:%S.%3f").to_string(),
            Err(_) => format!("+{} ns", at.0),
        }
    }
}

impl<W: Write> Sink for Text<W> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.clock_offset = header.clock_offset;
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let Event::Move(moved) = event;
        if self.fold
            && let Some((row, ..)) = &mut self.row
            && row.extend(moved)
        {
            return Ok(());
        }
        self.write_row()?;
        self.row = Some((Row::new(moved), moved.at, moved.verdict));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_row()?;
        self.writer.flush()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.write_row()?;
        if self.any {
            writeln!(self.writer)?;
        }
        for line in summary::text(summary).lines() {
            let style = if line.starts_with("LOST") || line.starts_with("WARNING") {
                ALARM
            } else if line.starts_with("REASON") {
                HEADING
            } else {
                Style::new()
            };
            writeln!(self.writer, "{style}{line}{style:#}")?;
        }
        self.writer.flush()
    }
}
