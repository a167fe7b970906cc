//! The hooks, one family per file.

pub mod compaction;
mod exact;
pub mod failure;
mod lifecycle;
mod migrate;
mod tracepoint;
pub mod unmapped;
