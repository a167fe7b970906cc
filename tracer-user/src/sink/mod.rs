//! Where events go. A run begins, feeds and always finishes every sink.

pub mod csv;
pub mod export;
pub mod folded;
pub mod json;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod partitions;
pub mod perfetto;
pub mod place;
pub mod recording;
pub mod table;
pub mod text;

use std::io;

use serde::{Deserialize, Serialize};

use crate::{
    analysis::{books::Books, intervals::Interval, totals::Totals},
    event::Event,
    kernel::hooks::Kinds,
    source::{attach::Refusal, ring::Backend},
    units::{Nanos, NodeId, Pfn},
};

/// What is known before the first event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// tracer's own.
    pub version: String,
    /// uname -n.
    pub host: String,
    /// /proc/sys/kernel/random/boot_id: times of the same boot are of the same clock.
    pub boot_id: String,
    /// uname -r.
    pub kernel: String,
    /// NUMA nodes.
    pub nodes: usize,
    /// Which frames are of which node.
    pub frames: Vec<NodeFrames>,
    /// How tracer was called.
    pub command_line: Vec<String>,
    /// When it began to trace.
    pub begun: Nanos,
    /// How events are captured.
    pub backend: Backend,
    /// The kinds of moves that were asked for; the backend may not see them all.
    pub kinds: Kinds,
    /// Better backends that were refused, and why.
    pub fallbacks: Vec<String>,
    /// Hooks of this backend that were refused.
    pub refused: Vec<MissingHook>,
    /// Who is traced, in words.
    pub targets: String,
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC`, nanoseconds, at the begin.
    pub clock_offset: i128,
}

impl Header {
    /// Whether both are of one run: nothing else began on that machine at that nanosecond.
    #[must_use]
    pub fn same_run(&self, other: &Self) -> bool {
        (&self.host, &self.boot_id, self.begun) == (&other.host, &other.boot_id, other.begun)
    }

    /// Of a recording that has lost it.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            version: String::new(),
            host: String::new(),
            boot_id: String::new(),
            kernel: "unknown".to_owned(),
            nodes: 0,
            frames: Vec::new(),
            command_line: Vec::new(),
            begun: Nanos(0),
            backend: Backend::Exact,
            kinds: Kinds::ALL,
            fallbacks: Vec::new(),
            refused: Vec::new(),
            targets: "unknown".to_owned(),
            clock_offset: 0,
        }
    }
}

/// Frames of a node, from the first to before the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFrames {
    /// The first.
    pub first: Pfn,
    /// The first behind them.
    pub end: Pfn,
    /// Their node.
    pub node: NodeId,
}

/// A hook that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingHook {
    /// `fentry/remove_migration_pte`.
    pub hook: String,
    /// What the kernel said.
    pub reason: String,
    /// What is missing from the rows.
    pub loses: String,
}

impl From<&Refusal> for MissingHook {
    fn from(refusal: &Refusal) -> Self {
        Self {
            hook: refusal.hook.label(),
            reason: refusal.reason.clone(),
            loses: refusal.hook.loses.unwrap_or("nothing").to_owned(),
        }
    }
}

/// What is known after the last event.
#[derive(Clone, Debug, Default)]
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

    /// Whether it makes sums of its own: then those of a replayed run's [`Summary`] may be left empty.
    fn sums(&self) -> bool {
        false
    }

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

    /// After each batch, and at least each second: what was held back goes out.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn flush(&mut self) -> io::Result<()>;

    /// After the last event of a recording that does not say how its run ended.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn abandon(&mut self) -> io::Result<()> {
        self.flush()
    }

    /// After the last event, also when the run ends early.
    ///
    /// # Errors
    /// As [`Sink::begin`].
    fn finish(&mut self, summary: &Summary) -> io::Result<()>;
}
