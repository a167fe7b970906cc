//! Results of tests: the tally that every step returns, and the report that the end-to-end tests write.
//! Input: none; `tally` counts, `report` reads.

pub mod report;
pub mod tally;
