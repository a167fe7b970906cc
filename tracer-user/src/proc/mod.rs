//! What /proc says of processes, their mappings and their page frames.
//! Every module parses bytes with pure functions; the files are opened at the edge.

pub mod cgroup;
pub mod entry;
pub mod kpage;
pub mod maps;
pub mod page_flags;
pub mod pagemap;
pub mod process;
pub mod scan;
pub mod zones;
