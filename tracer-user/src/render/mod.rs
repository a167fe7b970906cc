//! Answers to text for people. No analysis, no I/O of its own.

pub mod escape;
pub mod health;
pub mod quantity;
pub mod rows;
pub mod summary;
