//! The hooks, one family per file.

mod collapse;
mod exact;
mod lifecycle;
mod migrate;
mod tracepoint;
