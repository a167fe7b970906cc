//! What a recording says of its run, as JSON: first how it was made, last how it ended.
//! Input: the run's header and summary; the content of a block.

use serde::{Deserialize, Serialize};

use crate::{
    analysis::books::Books,
    sink::{Header, Summary},
    units::Nanos,
};

/// The content of a header block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// How the run was made.
    pub header: Header,
    /// Which file of the run this is, from 0.
    pub part: u32,
}

/// The content of an end block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Events in this file.
    pub events: u64,
    /// Events of the run that could not be written.
    #[serde(default)]
    pub unwritten: u64,
    /// How the run ended; None: it goes on in another file.
    pub finished: Option<Finished>,
}

/// How a run ended: of its [`Summary`] what its events do not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// From attaching to detaching.
    pub duration: Nanos,
    /// Conservation and losses.
    pub books: Books,
    /// CPU time of tracer before the first event could come.
    pub startup_cpu: Nanos,
    /// CPU time of tracer while tracing.
    pub cpu: Nanos,
    /// Most memory that tracer had, bytes.
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
