//! The only way into a sink, for a live run and for a recording: runs, one after the other, each with its sums.
//! Input: headers, events, intervals and ends, in the order in which they came.

use std::io;

use crate::{
    event::Event,
    recording::header::Finished,
    run::{
        header::Header,
        intervals::Interval,
        kept::{Kept, Unfinished},
        summary::Summary,
        totals::Totals,
    },
    sink::Sink,
};

/// Feeds a sink. Each run that it begins is finished or abandoned, once.
pub struct Feed<'s> {
    sink: &'s mut dyn Sink,
    /// Whether the sink computes its own sums.
    own_sums: bool,
    run: Option<OpenRun>,
}

/// The run that is being fed.
struct OpenRun {
    header: Header,
    totals: Totals,
    /// Events that were lost in its intervals.
    lost: u64,
}

impl<'s> Feed<'s> {
    /// A feed of `sink` in which no run has begun.
    #[must_use]
    pub fn new(sink: &'s mut dyn Sink) -> Self {
        Self {
            own_sums: sink.sums(),
            sink,
            run: None,
        }
    }

    /// The run that is being fed.
    #[must_use]
    pub fn run(&self) -> Option<&Header> {
        self.run.as_ref().map(|run| &run.header)
    }

    /// Begins a run, after the end of the one before.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.sink.begin(header)?;
        self.run = Some(OpenRun {
            header: header.clone(),
            totals: Totals::default(),
            lost: 0,
        });
        Ok(())
    }

    /// Begins a run without any facts if none has begun, because all headers of a recording may be damaged.
    fn started(&mut self) -> io::Result<()> {
        match self.run {
            Some(_) => Ok(()),
            None => self.begin(&Header::unknown()),
        }
    }

    /// Feeds an event.
    ///
    /// # Errors
    /// The errors of the sink.
    #[inline]
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        self.started()?;
        if !self.own_sums
            && let Some(run) = &mut self.run
        {
            run.totals.add(event);
        }
        self.sink.event(event)
    }

    /// Feeds a closed interval of the books.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.started()?;
        if let Some(run) = &mut self.run {
            run.lost = run.lost.saturating_add(interval.lost);
        }
        self.sink.interval(interval)
    }

    /// Makes the sink show what it holds back.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn flush(&mut self) -> io::Result<()> {
        match self.run {
            Some(_) => self.sink.flush(),
            None => Ok(()),
        }
    }

    /// Ends the run. `kept` describes the part of it that was read.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn finish(&mut self, finished: Finished, kept: Kept) -> io::Result<Summary> {
        self.started()?;
        let totals = self.run.take().map(|run| run.totals).unwrap_or_default();
        let Finished {
            duration,
            books,
            startup_cpu,
            cpu,
            max_rss,
        } = finished;
        let summary = Summary {
            duration,
            totals,
            books,
            startup_cpu,
            cpu,
            max_rss,
            kept,
        };
        self.sink.finish(&summary).map(|()| summary)
    }

    /// Ends the run, if one has begun, without the facts about its end. `kept` describes the part of it that was read.
    /// Returns the number of events that were lost while it was traced.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn abandon(&mut self, kept: Kept) -> io::Result<u64> {
        let Some(OpenRun { totals, lost, .. }) = self.run.take() else {
            return Ok(0);
        };
        let unfinished = Unfinished {
            totals,
            lost,
            duration: None,
            kept,
            selected: false,
        };
        self.sink.abandon(&unfinished).map(|()| lost)
    }
}
