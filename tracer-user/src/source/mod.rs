//! Where events come from.
//! Input: the running kernel.

pub mod bpf;
