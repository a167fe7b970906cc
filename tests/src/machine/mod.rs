//! The machine's memory as workloads use it: mapped, placed on nodes, and made to move.
//! Input: none; each file beside this one names its own.

pub mod fuse;
pub mod memory;
pub mod numa;
pub mod provoke;
pub mod userfaultfd;
