//! The catalogue of cases, one topic per file.
//! Input: the files beside this one.

mod cli;
mod command;
mod doctor;
mod ending;
mod harness;
mod hidden;
mod kinds;
mod loaded;
mod moves;
mod outside;
mod program;
mod surroundings;

use crate::case::Case;

/// Every topic's cases, in the order in which they run.
pub const TOPICS: &[&[Case]] = &[
    harness::CASES,
    cli::CASES,
    command::CASES,
    doctor::CASES,
    ending::CASES,
    moves::CASES,
    kinds::CASES,
    kinds::OVERFLOW,
    outside::CASES,
    hidden::CASES,
];

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Case> {
    TOPICS.iter().copied().flatten()
}
