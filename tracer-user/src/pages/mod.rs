//! The places of pages: the mappings of a process, joined with its page tables, their frames and their nodes.
//! Input: /proc/PID/{maps,pagemap}, /proc/kpageflags, /proc/kpagecount, the topology. Runs of pages are streamed by
//! address.

pub mod chunks;
pub mod extent;
pub mod filter;
pub mod frames;
pub mod join;
pub mod map;
pub mod sums;
pub mod survey;
pub mod walk;
