//! Readers of /proc for processes, their mappings and their page frames.
//! Input: files of /proc. Every module parses bytes with pure functions and opens its files at the edge.

pub mod cgroup;
pub mod entry;
pub mod kpage;
pub mod maps;
pub mod page_flags;
pub mod pagemap;
pub mod process;
pub mod questions;
pub mod scan;
pub mod zones;
