//! A run: how it was made, what its source could see, its sums, and whether its books balance.
//! Input: filled by a source and the pipeline, or read from a recording; used by sinks, analyses and reports.

pub mod account;
pub mod attribution;
pub mod backend;
pub mod books;
pub mod counters;
pub mod coverage;
pub mod ending;
pub mod failure;
pub mod folios;
pub mod header;
pub mod intervals;
pub mod kept;
pub mod kinds;
pub mod outside;
pub mod summary;
pub mod totals;
