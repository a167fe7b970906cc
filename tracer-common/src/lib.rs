//! The wire: the data that the BPF programs and user space exchange.
//! It holds integers only, with explicit padding and asserted sizes, and is compiled for both sides.
#![no_std]

pub mod arch;
pub mod bases;
pub mod config;
pub mod counter;
pub mod event;
pub mod filter;
pub mod names;
pub mod nesting;
pub mod renames;
pub mod task;
