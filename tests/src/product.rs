//! The product's own library, where a test cannot do with tracer's output: the only place here that names it.
//! Input: none. Made-up recordings are written as tracer writes them, damaged ones read block by block, and processes
//! looked up in /proc. No event that is compared with the truth of a workload comes this way.

/// What a made-up recording is made of.
pub use tracer_user::{
    event::{
        Event, Move, OwnerSource, Reason, Task, Verdict,
        compaction::Compaction,
        failure::{Cause, FailedPlace, Failure},
        unmapped::{Device, FilePlace, UnmappedMove},
    },
    proc::maps::{Perms, Vma},
    run::{
        clock::now,
        header::{Header, MissingHook},
        summary::Summary,
        totals::Totals,
    },
    units::{Nanos, NodeId, Order, Pfn, Tgid, Tid, VirtAddr},
};

/// How recordings are written.
pub use tracer_user::{
    recording::{
        block::{HEADER, renumber},
        files::{Files, Limit, Sync},
        store::Store,
        writer::Writer,
    },
    sink::Sink,
};

/// How what is left of a recording is read.
pub use tracer_user::recording::{
    header::End,
    reader::{Item, Missing, RecordingFile},
    rows::Step,
};

/// Look-ups of processes.
pub use tracer_user::proc::process::{Stat, Status, children, list};
