//! The errors of the command, how they are reported, and the exit codes that they give.
//! Input: whatever kept the command from doing what it was to do.

use std::io::{self, Write as _};

use crate::{session::command::CannotRun, source::bpf::attach};

/// A request that makes no sense, or a target that cannot be traced: said in one line, exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub String);

/// Prints an error for a person: what, why, and what to do.
pub fn report(error: &anyhow::Error) {
    // Where an error's own words give its cause, the cause is not said again. Where nobody hears it, the exit code tells.
    let _ = writeln!(io::stderr(), "tracer: {}", attach::chain(error.as_ref()));
}

/// The exit code of a failure.
#[must_use]
pub fn failure_code(error: &anyhow::Error) -> u8 {
    let cannot_run = error.chain().find_map(|cause| cause.downcast_ref::<CannotRun>());
    cannot_run.map_or(2, |cannot| cannot.code)
}
