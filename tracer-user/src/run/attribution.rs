//! Pages without an owner: none was found, or none was searched for.
//! Input: counted by `correlate`.

use serde::{Deserialize, Serialize};

/// Pages that correlation dropped or did not attribute, in base pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Pages of moves without an owner.
    pub unattributed: Unattributed,
    /// Pages whose owner is known but that were not checked against pagemap, because reading had fallen behind.
    pub not_asked_pages: u64,
    /// Tracepoint backend, which filters in user space: pages that only processes map which are not traced. These and
    /// the following fields count a page once, however many mappings it has.
    pub filtered_pages: u64,
    /// Tracepoint backend: pages that were dropped because their owners were not searched for.
    pub unsearched_pages: u64,
    /// Pages with an event; None if the BPF side counts them, because the kernel names the owners.
    pub reported_pages: Option<u64>,
    /// Pages with an event that moved outside migrate_pages.
    pub outside_pages: u64,
}

/// Pages of moves without an owner, by the cause. They are shown if every process is traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unattributed {
    /// The kernel named no owner: the process was being forked or torn down (exact backend).
    pub unnamed: u64,
    /// The owner was not searched for, because reading had fallen behind (tracepoint backend, every process traced).
    pub unsearched: u64,
    /// No traced process's pagemap held the page (tracepoint backend).
    pub not_found: u64,
}

impl Unattributed {
    /// All pages without an owner.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.unnamed + self.unsearched + self.not_found
    }
}
