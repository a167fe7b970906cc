//! The errors of the command, their messages, and their exit codes.
//! Input: errors of all other modules.

use std::io::{self, Write as _};

use crate::{session::command::CannotRun, source::bpf::attach};

/// A request that makes no sense, or a target that cannot be traced. It is reported in one line, with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub String);

/// Prints an error for a person: what happened, why, and what to do.
pub fn report(error: &anyhow::Error) {
    // A cause that the error's own text contains is not repeated. If stderr cannot be written, the exit code remains.
    let _ = writeln!(io::stderr(), "tracer: {}", attach::chain(error.as_ref()));
}

/// The exit code of a failure.
#[must_use]
pub fn failure_code(error: &anyhow::Error) -> u8 {
    let cannot_run = error.chain().find_map(|cause| cause.downcast_ref::<CannotRun>());
    cannot_run.map_or(2, |cannot| cannot.code)
}
