//! Pages whose owner could not be found, or that nobody asked about.
//! Input: counted by `correlate`.

use serde::{Deserialize, Serialize};

/// What was dropped or could not be answered here. Base pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Moves whose owner nobody could be found for.
    pub unattributed: Unattributed,
    /// Of those owners, pages nobody asked about because reading had fallen behind.
    pub not_asked_pages: u64,
    /// Tracepoint backend, which filters here: moves of other processes than the wanted ones.
    pub filtered_pages: u64,
    /// Tracepoint backend: moves dropped because nobody looked for their owners.
    pub unsearched_pages: u64,
    /// Runs that became events; None where the kernel names the owners, which then counts them itself.
    pub reported_pages: Option<u64>,
}

/// Pages of moves without an owner, by what is missing. Where every process is traced they are shown all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unattributed {
    /// The kernel named none: a process that was being forked or torn down (exact backend).
    pub unnamed: u64,
    /// Nobody looked, because reading had fallen behind (tracepoint backend, every process traced).
    pub unsearched: u64,
    /// No traced process's pagemap held the page (tracepoint backend).
    pub not_found: u64,
}

impl Unattributed {
    /// All of them.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.unnamed + self.unsearched + self.not_found
    }
}
