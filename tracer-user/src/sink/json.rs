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
    analysis::{kept, runs::sums},
    escape,
    event::Event,
    render::json::Sections,
    run::{books::Lost, header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
    section::{Cell, Section},
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
    /// Kept for the summary, which states how the run was made.
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

    fn abandon(&mut self, unfinished: &Unfinished) -> io::Result<()> {
        let header = self.header.take();
        let sums = [
            kept(&unfinished.kept),
            sums::record(&unfinished.totals, Some(Cell::None)),
        ];
        self.line(&SummaryLine::unfinished(header.as_ref(), unfinished, &sums))?;
        self.writer.flush()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        let header = self.header.take();
        let deferred = Some(summary.books.compaction_deferred.into());
        let sums = [kept(&summary.kept), sums::record(&summary.totals, deferred)];
        self.line(&SummaryLine::new(header.as_ref(), summary, &sums))?;
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

/// Losses, and those during the run by place; None: they are not known.
#[derive(Serialize)]
struct LostLine<'a> {
    events: u64,
    mappings_by_cpu: Option<&'a [u64]>,
    mapping_pages: Option<u64>,
    process_events: Option<u64>,
    folios: Option<u64>,
    folio_pages: Option<u64>,
    failures: Option<u64>,
    failure_pages: Option<u64>,
    cut_failures: Option<u64>,
    compactions: Option<u64>,
    calls: Option<u64>,
    undecoded: Option<u64>,
    missed_runs: Option<u64>,
    missed_detail_runs: Option<u64>,
    stood_in_runs: Option<u64>,
    targets: Option<u64>,
    unsearched_pages: Option<u64>,
    unpaired_mappings: Option<u64>,
    merged_renames: Option<u64>,
    not_asked_pages: Option<u64>,
    unattributed_pages: Option<u64>,
}

impl<'a> LostLine<'a> {
    fn new(events: u64, places: Option<&'a Lost>) -> Self {
        let of = |count: fn(&Lost) -> u64| places.map(count);
        Self {
            events,
            mappings_by_cpu: places.map(|lost| &lost.mappings_by_cpu[..]),
            mapping_pages: of(|lost| lost.mapping_pages),
            process_events: of(|lost| lost.processes),
            folios: of(|lost| lost.folios),
            folio_pages: of(|lost| lost.folio_pages),
            failures: of(|lost| lost.failures),
            failure_pages: of(|lost| lost.failure_pages),
            cut_failures: of(|lost| lost.cut_failures),
            compactions: of(|lost| lost.compactions),
            calls: of(|lost| lost.calls),
            undecoded: of(|lost| lost.undecoded),
            missed_runs: of(|lost| lost.missed_runs.events),
            missed_detail_runs: of(|lost| lost.missed_runs.details),
            stood_in_runs: of(|lost| lost.missed_runs.stood_in),
            targets: of(|lost| lost.targets),
            unsearched_pages: of(|lost| lost.unsearched_pages),
            unpaired_mappings: of(|lost| lost.unpaired),
            merged_renames: of(|lost| lost.merged_renames),
            not_asked_pages: of(|lost| lost.not_asked_pages),
            unattributed_pages: of(|lost| lost.unattributed.pages()),
        }
    }
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
            // The range of i64 is 292 years.
            clock_offset_ns: i64::try_from(header.clock_offset).unwrap_or(i64::MAX),
        }
    }
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    kind: &'static str,
    /// Present unless no run ever began.
    #[serde(flatten)]
    run: Option<RunKeys<'a>>,
    duration_ns: Option<u64>,
    #[serde(flatten)]
    sums: Sections<'a>,
    lost: LostLine<'a>,
    books: Option<BooksLine>,
    startup_cpu_ns: Option<u64>,
    cpu_ns: Option<u64>,
    max_rss_bytes: Option<u64>,
}

impl<'a> SummaryLine<'a> {
    fn new(header: Option<&'a Header>, summary: &'a Summary, sums: &'a [Section]) -> Self {
        Self {
            kind: "summary",
            run: header.map(RunKeys::from),
            duration_ns: Some(summary.duration.0),
            sums: Sections(sums),
            lost: LostLine::new(summary.lost_events(), Some(&summary.books.lost)),
            books: Some(BooksLine::from(&summary.books)),
            startup_cpu_ns: Some(summary.startup_cpu.0),
            cpu_ns: Some(summary.cpu.0),
            max_rss_bytes: Some(summary.max_rss),
        }
    }

    fn unfinished(header: Option<&'a Header>, unfinished: &'a Unfinished, sums: &'a [Section]) -> Self {
        Self {
            kind: "summary",
            run: header.map(RunKeys::from),
            duration_ns: None,
            sums: Sections(sums),
            lost: LostLine::new(unfinished.lost_events(), None),
            books: None,
            startup_cpu_ns: None,
            cpu_ns: None,
            max_rss_bytes: None,
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
