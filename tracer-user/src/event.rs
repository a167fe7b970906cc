//! The program's own model of events: a page move with its owner, its reason and its cost.
//! Made by `correlate` from raw events and the answers of /proc; read by every sink.

pub mod compaction;
pub mod failure;
pub mod moved;
pub mod residence;
pub mod task;
pub mod unmapped;

pub use moved::{Move, OwnerSource, Verdict};
pub use residence::Residence;
pub use task::Task;

pub use crate::kernel::names::{KernelNames, Names, Reason};
use crate::{
    event::{compaction::Compaction, failure::Failure, unmapped::UnmappedMove},
    units::Nanos,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A range of neighbouring pages moved.
    Move(Move),
    /// A folio without a mapping moved.
    Unmapped(UnmappedMove),
    /// A folio could not be moved.
    Failure(Failure),
    /// Compaction scanned a zone.
    Compaction(Compaction),
}

impl Event {
    /// The time when it happened.
    #[must_use]
    pub fn at(&self) -> Nanos {
        match self {
            Self::Move(event) => event.at,
            Self::Unmapped(event) => event.at,
            Self::Failure(event) => event.at,
            Self::Compaction(event) => event.at,
        }
    }
}
