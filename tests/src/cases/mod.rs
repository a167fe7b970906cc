//! The catalogue of cases, one topic per file.
//! Input: the files beside this one.

pub mod bad_ends;
mod books;
mod churn;
mod cli;
mod command;
mod compaction;
mod confinement;
mod doctor;
mod ending;
mod export;
mod failure;
mod filters;
mod flood;
mod harness;
mod inputs;
mod kinds;
mod moves;
mod outside;
mod pages;
mod reasons;
mod recording;
mod unmapped;

use crate::case::Case;

/// The cases of every topic, in the order in which they run.
pub const TOPICS: &[&[Case]] = &[
    harness::CASES,
    cli::CASES,
    command::CASES,
    doctor::CASES,
    ending::CASES,
    confinement::CASES,
    moves::CASES,
    books::CASES,
    kinds::CASES,
    kinds::AGAIN,
    kinds::OVERFLOW,
    failure::CASES,
    compaction::CASES,
    reasons::CASES,
    unmapped::CASES,
    churn::CASES,
    flood::CASES,
    filters::CASES,
    filters::cost::CASES,
    outside::CASES,
    pages::CASES,
    recording::CASES,
    inputs::CASES,
    export::CASES,
    bad_ends::CASES,
];

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Case> {
    TOPICS.iter().copied().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The topics whose cases compare tracer with the truth (`xtask/src/vm/table.rs`).
    const TRUTH: [&[Case]; 10] = [
        moves::CASES,
        kinds::CASES,
        kinds::OVERFLOW,
        failure::CASES,
        compaction::CASES,
        reasons::CASES,
        unmapped::CASES,
        churn::CASES,
        flood::CASES,
        outside::CASES,
    ];

    #[test]
    fn what_the_tracepoint_backend_cannot_serve_is_listed() {
        let page = include_str!("../../../docs/backends.md");
        let names: Vec<&str> = TRUTH.iter().copied().flatten().map(|case| case.name).collect();
        for name in &names {
            let served = name.ends_with("_tracepoint") || names.contains(&&*format!("{name}_tracepoint"));
            let listed = page.contains(&format!("`{name}`"));
            assert!(
                served || listed,
                "{name} has no row of the tracepoint backend, and docs/backends.md not why"
            );
        }
    }
}
