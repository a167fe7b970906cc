//! Where the pages are: the mappings of a process, joined with its page tables, the frames behind them and their nodes.
//! Input: /proc/PID/{maps,pagemap}, /proc/kpageflags, /proc/kpagecount, the topology. Everything streams: runs of pages come by address.

pub mod chunks;
pub mod filter;
pub mod frames;
pub mod join;
pub mod map;
pub mod run;
pub mod sums;
pub mod survey;
pub mod walk;
