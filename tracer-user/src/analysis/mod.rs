//! Events to answers. No I/O, no formatting.

pub mod groups;
pub mod health;
pub mod losses;
pub mod stuck;
