//! The recording: its format to the byte, its writer and its reader, its files, and operations on whole recordings.
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

/// The version that is written. A reader accepts files of this version and of earlier ones.
pub const VERSION: u16 = 1;

/// Why bytes are not valid. The caller, for whom they were read, knows the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub &'static str);
