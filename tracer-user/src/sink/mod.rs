//! Where events go. A run begins, feeds and always finishes every sink.

pub mod json;
pub mod text;

use std::io;

use crate::{
    analysis::{books::Books, intervals::Interval, totals::Totals},
    event::Event,
    kernel::hooks::Kinds,
    source::{attach::Refusal, ring::Backend},
    units::Nanos,
};

/// What is known before the first event.
#[derive(Clone, Debug)]
pub struct Header {
    /// uname -r.
    pub kernel: String,
    /// NUMA nodes.
    pub nodes: usize,
    /// How events are captured.
    pub backend: Backend,
    /// The kinds of moves that were asked for; the backend may not see them all.
    pub kinds: Kinds,
    /// Better backends that were refused, and why.
    pub fallbacks: Vec<String>,
    /// Hooks of this backend that were refused.
    pub refused: Vec<Refusal>,
    /// Who is traced, in words.
    pub targets: String,
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`, nanoseconds, at the begin.
    pub clock_offset: i128,
}

/// What is known after the last event.
#[derive(Clone, Debug)]
pub struct Summary {
    /// From attaching to detaching.
    pub duration: Nanos,
    /// Sums over the events.
    pub totals: Totals,
    /// Conservation and losses.
    pub books: Books,
    /// CPU time of this process before the first event could come.
    pub startup_cpu: Nanos,
    /// CPU time of this process while tracing.
    pub cpu: Nanos,
    /// Most memory that this process had, bytes.
    pub max_rss: u64,
}

/// One destination.
pub trait Sink {
    /// Before the first event.
    ///
    /// # Errors
    /// When the destination cannot be written; a broken pipe ends the run quietly.
    fn begin(&mut self, header: &Header) -> io::Result<()>;

    /// Each event.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn event(&mut self, event: &Event) -> io::Result<()>;

    /// Each closed interval of the books in which something happened. Events of it may come after it.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn interval(&mut self, interval: &Interval) -> io::Result<()>;

    /// After each batch: what was held back goes out.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn flush(&mut self) -> io::Result<()>;

    /// After the last event, also when the run ends early.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn finish(&mut self, summary: &Summary) -> io::Result<()>;
}
