//! The recording: what it looks like on disk, to the byte. Described in docs/recording-format.md.
//! Written by `sink::recording`, read by `source::recording`; both sides of the format stand here together.

pub mod block;
pub mod columns;
pub mod header;
pub mod redact;
pub mod rows;
pub mod tables;

/// The version that is written. A reader takes files of this version and of those before.
pub const VERSION: u16 = 1;

/// Why bytes are not what they should be: the place is known to whom they were read for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub &'static str);
