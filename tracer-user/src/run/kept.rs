//! The part of a run that a recording holds: the files of its rotation, and the damage.
//! Input: filled while recordings are read; a live run is complete.

use crate::{run::totals::Totals, units::Nanos};

/// The part of a run that a recording holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Some files of a rotation; None: all of them, or the run has only one.
    pub part: Option<Part>,
    /// The damage in them.
    pub damaged: Damaged,
}

/// Some files of a rotated run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Ranges of files, numbered from 0: the first and the last of each.
    pub files: Vec<(u32, u32)>,
    /// The earliest and the latest event in them, from the begin of the run; None: there are no events.
    pub period: Option<(Nanos, Nanos)>,
}

/// The data that a recording has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damaged {
    /// Events that are known to be missing.
    pub events: u64,
    /// Bytes that cannot be read.
    pub bytes: u64,
    /// Places at which an unknown number of events is missing, perhaps none.
    pub unknown: u64,
}

impl Damaged {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// If an unknown number of events is missing, the number of events that the file had explains it: `found` are there.
    pub fn explain(&mut self, written: u64, found: u64) {
        let known = found.saturating_add(self.events);
        if self.unknown > 0 && written > known {
            self.events += written - known;
            self.unknown = 0;
        }
    }

    /// Adds more losses.
    pub fn add(&mut self, other: Self) {
        // A damaged recording may contain any number.
        self.events = self.events.saturating_add(other.events);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.unknown = self.unknown.saturating_add(other.unknown);
    }
}

/// Facts about a run that is not shown to its end: the recording lacks the end, or only some of the events are
/// selected. The duration and the books do not apply to a selection.
#[derive(Clone, Debug, Default)]
pub struct Unfinished {
    /// Sums over the events that are shown.
    pub totals: Totals,
    /// Events that were lost while the run was recorded, as far as its recording shows.
    pub lost: u64,
    /// The time from attaching to detaching; None: its end is not known.
    pub duration: Option<Nanos>,
    /// The part of it that was read.
    pub kept: Kept,
    /// Whether only some of its events are selected.
    pub selected: bool,
}

impl Unfinished {
    /// Events that are known to be lost, while tracing or from the recording.
    #[must_use]
    pub fn lost_events(&self) -> u64 {
        self.lost.saturating_add(self.kept.damaged.events)
    }
}
