//! The running kernel: its types, hooks, nodes, counters, privileges and release.
//! Input: BTF, /sys and /proc files about the machine; no process.

pub mod btf;
pub mod capabilities;
pub mod clock;
pub mod config;
pub mod hooks;
pub mod kcore;
pub mod names;
pub mod preemption;
pub mod release;
pub mod topology;
pub mod types;
pub mod vmstat;
