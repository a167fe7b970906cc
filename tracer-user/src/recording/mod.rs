//! The recording: its format to the byte, its writer and its reader, its files, and what is done with whole recordings.
//! Input: events and books, or the bytes of a file. The format is described in docs/recording-format.md.

pub mod block;
pub mod blocks;
pub mod columns;
pub mod contents;
pub mod files;
pub mod header;
pub mod merge;
pub mod parts;
pub mod reader;
pub mod redact;
pub mod rows;
pub mod set;
pub mod store;
pub mod tables;
pub mod writer;

/// The version that is written. A reader takes files of this version and of those before.
pub const VERSION: u16 = 1;

/// Why bytes are not what they should be: the place is known to whom they were read for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub &'static str);
