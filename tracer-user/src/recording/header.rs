//! The JSON parts of a recording: the first states how the run was made, the last how it ended.
//! Input: the run's header and summary; the content of a block.

use serde::{Deserialize, Serialize};

use crate::{
    run::{books::Books, header::Header, summary::Summary},
    units::Nanos,
};

/// The content of a header block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// How the run was made.
    pub header: Header,
    /// Which file of the run this is, from 0.
    pub part: u32,
    /// How many of the following files are joined to it.
    #[serde(default)]
    pub joined: u32,
    /// Ranges of files between these that are missing, each with its first and last number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<(u32, u32)>,
    /// Whether frames and file names are stand-ins.
    #[serde(default)]
    pub redacted: bool,
}

impl Begin {
    /// The begin of a run's first file.
    #[must_use]
    pub fn of(header: Header) -> Self {
        Self {
            header,
            part: 0,
            joined: 0,
            absent: Vec::new(),
            redacted: false,
        }
    }

    /// Whether both belong to the same file of one run.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.part == other.part && self.header.same_run(&other.header)
    }

    /// Ranges of the files that it holds, each with its first and last number.
    #[must_use]
    pub fn spans(&self) -> Vec<(u32, u32)> {
        let mut spans = Vec::new();
        let mut next = self.part;
        for &(first, last) in &self.absent {
            // A recording may contain any numbers.
            if next < first && first <= last && last < self.last_part() {
                spans.push((next, first - 1));
                next = last + 1;
            }
        }
        spans.push((next, self.last_part()));
        spans
    }

    /// The number of the last file of the run that is joined into this one.
    #[must_use]
    pub fn last_part(&self) -> u32 {
        self.part.saturating_add(self.joined)
    }
}

/// The content of an end block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Events of this file. If it was joined from damaged ones, this includes those that are known to be missing.
    pub events: u64,
    /// Events that could not be written into this file.
    #[serde(default)]
    pub unwritten: u64,
    /// How the run ended; None: it goes on in another file.
    pub finished: Option<Finished>,
}

/// How a run ended: the part of its [`Summary`] that cannot be computed from its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The time from attaching to detaching.
    pub duration: Nanos,
    /// Conservation and losses.
    pub books: Books,
    /// CPU time of tracer before the first event was possible.
    pub startup_cpu: Nanos,
    /// CPU time of tracer while tracing.
    pub cpu: Nanos,
    /// The peak resident memory of tracer, bytes.
    pub max_rss: u64,
}

impl From<&Summary> for Finished {
    fn from(summary: &Summary) -> Self {
        Self {
            duration: summary.duration,
            books: summary.books.clone(),
            startup_cpu: summary.startup_cpu,
            cpu: summary.cpu,
            max_rss: summary.max_rss,
        }
    }
}
