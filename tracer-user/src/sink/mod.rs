//! The destinations of events. A run begins, feeds and always finishes every sink.
//! Input: the header, the events and the summary of a run.

pub mod csv;
pub mod export;
pub mod folded;
pub mod json;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod partitions;
pub mod perfetto;
pub mod recording;
pub mod report;
pub mod selected;
pub mod several;
pub mod table;
pub mod text;

use std::io;

use crate::{
    event::Event,
    run::{header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
};

/// One destination. [`Sink::event`] is required; the other methods are for sinks that hold back or write more than
/// events.
pub trait Sink {
    /// Called before the first event.
    ///
    /// # Errors
    /// When the destination cannot be written; a broken pipe ends the run quietly.
    fn begin(&mut self, _header: &Header) -> io::Result<()> {
        Ok(())
    }

    /// Whether it computes its own sums: then those of a replayed run's [`Summary`] may be left empty.
    fn sums(&self) -> bool {
        false
    }

    /// Takes an event.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn event(&mut self, event: &Event) -> io::Result<()>;

    /// Takes a closed interval of the books in which something happened. Events of it may come after it.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn interval(&mut self, _interval: &Interval) -> io::Result<()> {
        Ok(())
    }

    /// Writes what was held back. Called after each batch, and at least each second.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Called after the last event of a run that is not shown to its end.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn abandon(&mut self, _unfinished: &Unfinished) -> io::Result<()> {
        self.flush()
    }

    /// Called after the last event, also when the run ends early.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn finish(&mut self, _summary: &Summary) -> io::Result<()> {
        Ok(())
    }
}
