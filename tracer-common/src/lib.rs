//! The wire: what the BPF programs and user space say to each other.
//! Integers only, explicit padding, sizes asserted; compiled for both sides.
#![no_std]

pub mod arch;
pub mod config;
pub mod counter;
pub mod event;
pub mod filter;
pub mod names;
pub mod nesting;
pub mod task;
