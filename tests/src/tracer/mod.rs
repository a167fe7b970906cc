//! The `tracer` under test, seen from outside: how it is started, what it prints, what it leaves in the kernel.
//! Input: none; each file beside this one names its own.

pub mod bpf_objects;
pub mod environment;
pub mod invocation;
pub mod lines;
pub mod trace;
