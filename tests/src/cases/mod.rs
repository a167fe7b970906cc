//! The catalogue of cases, one topic per file.
//! Input: the files beside this one.

mod harness;
mod hidden;
mod kinds;
mod moves;

use crate::case::Case;

/// Every topic's cases, in the order in which they run.
pub const TOPICS: &[&[Case]] = &[harness::CASES, moves::CASES, kinds::CASES, hidden::CASES];

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Case> {
    TOPICS.iter().copied().flatten()
}
