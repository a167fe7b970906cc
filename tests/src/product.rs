//! The product's own library, for tests that need more than tracer's output. Only this file names it.
//! Input: none. It is used to write made-up recordings as tracer does, to read damaged ones block by block, and to look
//! up processes in /proc. No event that is compared with the truth of a workload comes this way.

/// The parts of a made-up recording.
pub use tracer_user::{
    event::{
        Event, Move, OwnerSource, Reason, Task, Verdict,
        compaction::Compaction,
        failure::{Cause, FailedPlace, Failure},
        unmapped::{Device, FilePlace, UnmappedMove},
    },
    kernel::clock::now,
    proc::maps::{Perms, Vma},
    run::{
        header::{Header, MissingHook},
        summary::Summary,
        totals::Totals,
    },
    units::{Nanos, NodeId, Order, Pfn, Tgid, Tid, VirtAddr},
};

/// The writer of recordings.
pub use tracer_user::{
    recording::{
        block::{HEADER, renumber},
        files::{Files, Limit, Sync},
        store::Store,
        writer::Writer,
    },
    sink::Sink,
};

/// The reader of damaged recordings.
pub use tracer_user::recording::{
    header::End,
    reader::{Item, Missing, RecordingFile},
    rows::Step,
};

/// Look-ups of processes.
pub use tracer_user::proc::process::{Stat, Status, children, list};
