//! JSON lines: one object per event, a summary last. Keys are documented in docs/json.md and stable.
//! Input: events; output: any writer.

mod books;
mod compaction;
mod failure;
mod moved;
mod objects;
mod unmapped;

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    analysis::runs::sums,
    escape,
    event::Event,
    render::json::Sections,
    run::{header::Header, intervals::Interval, summary::Summary},
    section::Section,
    sink::{Sink, export::Export},
};

use books::{BooksLine, IntervalLine};
use compaction::CompactionLine;
use failure::FailureLine;
use moved::MoveLine;
use unmapped::UnmappedLine;

/// Writes JSON lines.
pub struct JsonLines<W> {
    writer: W,
    /// Kept for the summary, which tells how the run was made.
    header: Option<Header>,
}

impl<W: Write> JsonLines<W> {
    /// `writer` should be buffered.
    pub fn new(writer: W) -> Self {
        Self { writer, header: None }
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        escape::json(&mut self.writer, value)?;
        self.writer.write_all(b"\n")
    }
}

impl<W: Write> Sink for JsonLines<W> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.header = Some(header.clone());
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Move(moved) => self.line(&MoveLine::from(moved)),
            Event::Unmapped(moved) => self.line(&UnmappedLine::from(moved)),
            Event::Failure(failure) => self.line(&FailureLine::from(failure)),
            Event::Compaction(pass) => self.line(&CompactionLine::from(pass)),
        }
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.line(&IntervalLine::from(interval))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let header = self.header.take();
        let deferred = Some(summary.books.compaction_deferred);
        let totals = [sums::record(&summary.totals, deferred)];
        self.line(&SummaryLine::new(header.as_ref(), summary, &totals))?;
        self.writer.flush()
    }
}

impl<W: Write> Export for JsonLines<W> {
    fn takes(&self, _event: &Event) -> bool {
        true
    }

    fn close(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[derive(Serialize)]
struct LostLine<'a> {
    events: u64,
    mappings_by_cpu: &'a [u64],
    mapping_pages: u64,
    process_events: u64,
    folios: u64,
    folio_pages: u64,
    failures: u64,
    failure_pages: u64,
    cut_failures: u64,
    compactions: u64,
    calls: u64,
    undecoded: u64,
    missed_runs: u64,
    missed_detail_runs: u64,
    stood_in_runs: u64,
    targets: u64,
    unsearched_pages: u64,
    unpaired_mappings: u64,
    not_asked_pages: u64,
    unattributed_pages: u64,
}

/// How the run was made.
#[derive(Serialize)]
struct RunKeys<'a> {
    version: &'a str,
    kernel: &'a str,
    backend: &'a str,
    kinds: Vec<&'a str>,
    refused: Vec<String>,
    fallbacks: &'a [String],
    targets: &'a str,
    clock_offset_ns: i64,
}

impl<'a> From<&'a Header> for RunKeys<'a> {
    fn from(header: &'a Header) -> Self {
        Self {
            version: &header.version,
            kernel: &header.kernel,
            backend: header.backend.name(),
            kinds: header.kinds.names().collect(),
            refused: header.refused.iter().map(|refusal| refusal.hook.clone()).collect(),
            fallbacks: &header.fallbacks,
            targets: &header.targets,
            // 292 years fit.
            clock_offset_ns: i64::try_from(header.clock_offset).unwrap_or(i64::MAX),
        }
    }
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    kind: &'static str,
    /// There unless nothing ever began.
    #[serde(flatten)]
    run: Option<RunKeys<'a>>,
    duration_ns: u64,
    #[serde(flatten)]
    totals: Sections<'a>,
    lost: LostLine<'a>,
    books: BooksLine,
    startup_cpu_ns: u64,
    cpu_ns: u64,
    max_rss_bytes: u64,
}

impl<'a> SummaryLine<'a> {
    fn new(header: Option<&'a Header>, summary: &'a Summary, totals: &'a [Section]) -> Self {
        let lost = &summary.books.lost;
        Self {
            kind: "summary",
            run: header.map(RunKeys::from),
            duration_ns: summary.duration.0,
            totals: Sections(totals),
            lost: LostLine {
                events: lost.events(),
                mappings_by_cpu: &lost.mappings_by_cpu,
                mapping_pages: lost.mapping_pages,
                process_events: lost.processes,
                folios: lost.folios,
                folio_pages: lost.folio_pages,
                failures: lost.failures,
                failure_pages: lost.failure_pages,
                cut_failures: lost.cut_failures,
                compactions: lost.compactions,
                calls: lost.calls,
                undecoded: lost.undecoded,
                missed_runs: lost.missed_runs.events,
                missed_detail_runs: lost.missed_runs.details,
                stood_in_runs: lost.missed_runs.stood_in,
                targets: lost.targets,
                unsearched_pages: lost.unsearched_pages,
                unpaired_mappings: lost.unpaired,
                not_asked_pages: lost.not_asked_pages,
                unattributed_pages: lost.unattributed.pages(),
            },
            books: BooksLine::from(&summary.books),
            startup_cpu_ns: summary.startup_cpu.0,
            cpu_ns: summary.cpu.0,
            max_rss_bytes: summary.max_rss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up;

    #[test]
    fn every_key() {
        let mut out = Vec::new();
        let mut sink = JsonLines::new(&mut out);
        sink.begin(&made_up::header()).unwrap();
        sink.event(&Event::Move(made_up::moved())).unwrap();
        sink.event(&Event::Move(made_up::unknown())).unwrap();
        sink.event(&Event::Move(made_up::compared())).unwrap();
        for event in made_up::others() {
            sink.event(&event).unwrap();
        }
        sink.interval(&made_up::interval()).unwrap();
        sink.finish(&made_up::summary()).unwrap();
        insta::assert_snapshot!("every_key", String::from_utf8(out).unwrap());
    }
}
