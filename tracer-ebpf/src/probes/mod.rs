//! The hooks, one family per file.

mod collapse;
mod copy;
mod exact;
mod ksm;
mod lifecycle;
mod migrate;
mod swap;
mod tracepoint;
