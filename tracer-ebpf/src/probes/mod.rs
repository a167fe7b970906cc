//! The hooks, one family per file.

mod collapse;
mod copy;
mod exact;
mod ksm;
mod lifecycle;
mod migrate;
mod tracepoint;
