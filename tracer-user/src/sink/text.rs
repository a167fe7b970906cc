//! Rows for people, on a terminal or in a pipe, and the closing page.
//! Input: events; output: any writer.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use crate::{
    analysis::{Analyses, Input, Question, books},
    cells,
    event::{Event, Verdict},
    render::{
        rows::{Layout, compaction, failure, moved, unmapped},
        text,
    },
    run::{header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
    section::{Note, Tone},
    sink::Sink,
    units::Nanos,
    words::clock,
};

const NOT_MOVED: Style = AnsiColor::Red.on_default();

/// The terminal on which rows are shown.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Characters in a line.
    pub columns: usize,
    /// Lines on the screen.
    pub lines: usize,
}

/// A row that may still grow.
enum Pending {
    Moves(Box<moved::Folding>),
    Failure(failure::Row),
    Unmapped(unmapped::Row),
}

/// Writes rows. The writer removes the styles if there is no terminal.
pub struct Text<W> {
    writer: W,
    /// Neighbouring pages, and all mappings of a folio, become one row.
    fold: bool,
    /// None: rows are as wide as necessary, with one heading.
    terminal: Option<Terminal>,
    layout: Layout,
    /// Kept for times.
    header: Header,
    /// The analyses of the closing page.
    analyses: Analyses,
    zone: TimeZone,
    row: Option<Pending>,
    /// Lines since the last heading, including it; None before the first.
    since_heading: Option<usize>,
}

impl<W: Write> Text<W> {
    /// With `fold`, neighbouring pages that moved together become one row, with all mappings of each. On a terminal
    /// rows are fitted to its width, and the heading is repeated with every screenful.
    pub fn new(writer: W, fold: bool, terminal: Option<Terminal>) -> Self {
        Self {
            writer,
            fold,
            terminal,
            layout: Layout::new(None, 0),
            header: Header::unknown(),
            analyses: Analyses::new(Question::closing(terminal.is_some())),
            zone: TimeZone::system(),
            row: None,
            since_heading: None,
        }
    }

    /// Writes the row that is pending, if any.
    fn write_row(&mut self) -> io::Result<()> {
        match self.row.take() {
            None => Ok(()),
            Some(Pending::Moves(folding)) => folding.rows().try_for_each(|row| self.write_moves(&row)),
            Some(Pending::Failure(row)) => {
                let text = row.text(&self.clock(row.at()), &self.layout);
                self.write_lines(&text, NOT_MOVED)
            }
            Some(Pending::Unmapped(row)) => {
                let text = row.text(&self.clock(row.at()), &self.layout);
                self.write_lines(&text, Style::new())
            }
        }
    }

    fn write_moves(&mut self, row: &moved::Row) -> io::Result<()> {
        let tone = match row.verdict() {
            Verdict::Confirmed => Tone::Normal,
            _ => Tone::Warning,
        };
        let text = row.text(&self.clock(row.at()), &self.layout);
        self.write_lines(&text, text::style(tone))
    }

    /// Writes the lines of a row, after the heading if it is due.
    fn write_lines(&mut self, text: &str, style: Style) -> io::Result<()> {
        let (heading, height) = (self.layout.height(), text.lines().count());
        let screenful = self
            .terminal
            .map_or(usize::MAX, |terminal| terminal.lines.max(heading + height + 1) - 1);
        let since = match self.since_heading {
            Some(lines) if lines + height <= screenful => lines,
            _ => {
                writeln!(self.writer, "{0}{1}{0:#}", text::HEADING, self.layout.heading())?;
                heading
            }
        };
        self.since_heading = Some(since + height);
        writeln!(self.writer, "{style}{text}{style:#}")
    }

    /// Writes the closing page, after the last row.
    fn close(&mut self) -> io::Result<()> {
        self.write_row()?;
        if self.since_heading.is_some() {
            writeln!(self.writer)?;
        }
        text::write(&mut self.writer, &self.analyses.sections(&Input::default()))?;
        self.writer.flush()
    }

    fn clock(&self, at: Nanos) -> String {
        clock::time(self.header.clock_offset, at, &self.zone, "%H:%M:%S.%3f")
    }
}

impl<W: Write> Sink for Text<W> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.layout = Layout::new(self.terminal.map(|terminal| terminal.columns), header.nodes);
        self.header = header.clone();
        self.analyses.begin(header);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.analyses.event(event);
        if self.fold {
            let joined = match (event, &mut self.row) {
                (Event::Move(moved), Some(Pending::Moves(folding))) => {
                    return folding.add(moved).map_or(Ok(()), |row| self.write_moves(&row));
                }
                (Event::Failure(failure), Some(Pending::Failure(row))) => row.extend(failure),
                (Event::Unmapped(moved), Some(Pending::Unmapped(row))) => row.extend(moved),
                _ => false,
            };
            if joined {
                return Ok(());
            }
        }
        self.write_row()?;
        match event {
            Event::Move(moved) => self.row = Some(Pending::Moves(Box::new(moved::Folding::new(moved)))),
            Event::Failure(failure) => self.row = Some(Pending::Failure(failure::Row::new(failure))),
            Event::Unmapped(moved) => self.row = Some(Pending::Unmapped(unmapped::Row::new(moved))),
            Event::Compaction(pass) => {
                let text = compaction::text(pass, &self.clock(pass.at), &self.layout);
                self.write_lines(&text, text::style(Tone::Dim))?;
            }
        }
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.analyses.interval(interval);
        let account = &interval.account;
        let complaints = books::complaints(account);
        if complaints.is_empty() {
            return Ok(());
        }
        self.write_row()?;
        for complaint in complaints {
            let (begin, end) = (self.clock(account.begin), self.clock(account.end));
            let words = cells![begin, " to ", end, ": "].into_iter().chain(complaint);
            text::note(&mut self.writer, &Note::alarm("WARNING", words.collect()))?;
            self.since_heading = self.since_heading.map(|lines| lines + 1);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_row()?;
        self.writer.flush()
    }

    fn abandon(&mut self, unfinished: &Unfinished) -> io::Result<()> {
        self.analyses.abandon(unfinished);
        self.close()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.analyses.end(summary);
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up;

    /// How often the heading is among 100 rows.
    fn headings(terminal: Option<Terminal>) -> usize {
        let mut out = Vec::new();
        let mut sink = Text::new(&mut out, false, terminal);
        sink.begin(&made_up::header()).unwrap();
        for _ in 0..100 {
            sink.event(&Event::Move(made_up::moved())).unwrap();
        }
        sink.flush().unwrap();
        String::from_utf8(out).unwrap().matches("TIME").count()
    }

    #[test]
    fn what_is_no_move_has_rows_too() {
        let mut out = Vec::new();
        let mut sink = Text::new(&mut out, true, None);
        sink.begin(&made_up::header()).unwrap();
        sink.zone = TimeZone::UTC;
        for event in made_up::others() {
            sink.event(&event).unwrap();
            sink.event(&event).unwrap();
        }
        sink.flush().unwrap();
        insta::assert_snapshot!("others", String::from_utf8(out).unwrap());
    }

    #[test]
    fn an_interval_that_does_not_balance_is_told_at_once() {
        let mut interval = made_up::interval();
        let told = |interval: &Interval| {
            let mut out = Vec::new();
            let mut sink = Text::new(anstream::StripStream::new(&mut out), false, None);
            sink.begin(&made_up::header()).unwrap();
            sink.zone = TimeZone::UTC;
            sink.interval(interval).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(told(&interval), ""); // the tracepoint backend cannot see more
        interval.account.blind_to_unmapped = false;
        insta::assert_snapshot!("interval", told(&interval));
    }

    #[test]
    fn every_screenful_has_a_heading() {
        let terminal = |columns, lines| Some(Terminal { columns, lines });
        assert_eq!(headings(None), 1);
        assert_eq!(headings(terminal(200, 24)), 5); // 22 rows below each
        assert_eq!(headings(terminal(80, 24)), 10); // 10 rows of two lines
        assert_eq!(headings(terminal(80, 1)), 100);
    }
}
