//! Answers to text for people. No analysis, no I/O of its own.

pub mod escape;
pub mod failure;
pub mod health;
#[cfg(test)]
pub(crate) mod made_up;
pub mod others;
pub mod quantity;
pub mod rows;
pub mod summary;
