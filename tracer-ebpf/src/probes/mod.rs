//! The hooks, one family per file.

mod exact;
mod lifecycle;
mod migrate;
mod tracepoint;
