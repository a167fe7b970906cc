//! This machine: its programs, its packages, its memory, and the files that are kept on it between runs.
//! Input: none; each file beside this one names its own.

pub mod apt;
pub mod cache;
pub mod memory;
pub mod process;
pub mod programs;
