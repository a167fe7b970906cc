//! Events to answers. No I/O, no formatting.

pub mod account;
pub mod books;
pub mod contents;
pub mod groups;
pub mod health;
pub mod intervals;
pub mod losses;
pub mod parts;
pub mod totals;
