//! Events to answers. No I/O, no formatting.
//! Input: events, and the facts of the machine for the doctor.

pub mod groups;
pub mod health;
pub mod losses;
pub mod stuck;
