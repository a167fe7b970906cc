//! Answers to text for people. No analysis, no I/O of its own.
//! Input: events, sums and the run that they are of.

pub mod books;
pub mod clock;
pub mod contents;
pub mod groups;
pub mod health;
pub mod histogram;
pub mod losses;
pub mod parts;
pub mod quantity;
pub mod rows;
pub mod stuck;
pub mod summary;
