//! Answers to text for people. No analysis, no I/O of its own.

pub mod escape;
pub mod quantity;
pub mod rows;
pub mod summary;
