//! Passes selected events to another sink, with sums of their own.
//! Input: the runs of recordings.

use std::io;

use crate::{
    analysis::selection::Selection,
    event::Event,
    run::{header::Header, intervals::Interval, kept::Kept, kept::Unfinished, summary::Summary, totals::Totals},
    sink::Sink,
    units::Nanos,
};

/// Feeds a sink with the events that are selected.
pub struct Selected<'s> {
    sink: &'s mut dyn Sink,
    selection: Selection,
    totals: Totals,
}

impl<'s> Selected<'s> {
    /// A selection for `sink`.
    pub fn new(sink: &'s mut dyn Sink, selection: Selection) -> Self {
        Self {
            sink,
            selection,
            totals: Totals::default(),
        }
    }

    /// The selected events.
    #[must_use]
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    fn end(&mut self, lost: u64, duration: Option<Nanos>, kept: &Kept) -> io::Result<()> {
        self.sink.abandon(&Unfinished {
            totals: std::mem::take(&mut self.totals),
            lost,
            duration,
            kept: self.selection.narrow(kept),
            selected: true,
        })
    }
}

impl Sink for Selected<'_> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.selection.begin(header);
        self.sink.begin(header)
    }

    fn sums(&self) -> bool {
        true
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        if !self.selection.takes(event) {
            return Ok(());
        }
        self.totals.add(event);
        self.sink.event(event)
    }

    /// The books cover all events, not only the selected ones.
    fn interval(&mut self, _interval: &Interval) -> io::Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    fn abandon(&mut self, unfinished: &Unfinished) -> io::Result<()> {
        self.end(unfinished.lost, unfinished.duration, &unfinished.kept)
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.end(summary.books.lost.events(), Some(summary.duration), &summary.kept)
    }
}
