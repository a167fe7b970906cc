//! What there is of a run where it is read again: which files of its rotation, and what damage took.
//! Input: filled while recordings are read; nothing of a live run is missing.

use crate::{run::totals::Totals, units::Nanos};

/// What there is of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Some files of a rotation; None: all of them, or the run has only one.
    pub part: Option<Part>,
    /// What cannot be read of them.
    pub damaged: Damaged,
}

/// Some files of a rotated run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Stretches of files, numbered from 0: the first and the last of each.
    pub files: Vec<(u32, u32)>,
    /// The earliest and the latest event in them, from the begin of the run; None: there is no event.
    pub period: Option<(Nanos, Nanos)>,
}

/// What a recording should hold and does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damaged {
    /// Events that are known to be missing.
    pub events: u64,
    /// Bytes that cannot be read.
    pub bytes: u64,
    /// Places where an unknown number of events is missing, perhaps none.
    pub unknown: u64,
}

impl Damaged {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what else is missing.
    pub fn add(&mut self, other: Self) {
        // A damaged recording may contain any number.
        self.events = self.events.saturating_add(other.events);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.unknown = self.unknown.saturating_add(other.unknown);
    }
}

/// What is known of a run that is not shown to its end: the recording does not have the end, or only some of the events
/// are selected, to which neither the duration nor the books belong.
#[derive(Clone, Debug, Default)]
pub struct Unfinished {
    /// Sums over the events that are shown.
    pub totals: Totals,
    /// Events that were lost while the run was recorded, as far as its recording says so.
    pub lost: u64,
    /// What there is of it.
    pub kept: Kept,
    /// Only some of its events are selected.
    pub selected: bool,
}

impl Unfinished {
    /// Events that are known to be lost, while tracing or from the recording.
    #[must_use]
    pub fn lost_events(&self) -> u64 {
        self.lost.saturating_add(self.kept.damaged.events)
    }
}
