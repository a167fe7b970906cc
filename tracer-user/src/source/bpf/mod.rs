//! The kernel as a source: BPF programs at its hooks, and the ring that they fill.
//! Input: the embedded object, and the kernel's BTF.

pub mod attach;
pub mod object;
pub mod ring;
pub mod trial;
