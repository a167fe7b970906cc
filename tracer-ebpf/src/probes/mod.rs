//! The hooks, one family per file.
//! Input: arguments that the kernel passes to its tracepoints and functions.

mod collapse;
pub mod compaction;
mod copy;
mod exact;
pub mod failure;
mod ksm;
mod lifecycle;
mod migrate;
mod swap;
mod tracepoint;
pub mod unmapped;
