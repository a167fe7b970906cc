//! The `tracer` under test, seen from outside: its start, its output, and its objects in the kernel.
//! Input: none; each file beside this one names its own.

pub mod bpf_objects;
pub mod environment;
pub mod invocation;
pub mod lines;
pub mod trace;
