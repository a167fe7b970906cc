//! Events to answers. No I/O, no formatting.

pub mod books;
pub mod health;
pub mod totals;
