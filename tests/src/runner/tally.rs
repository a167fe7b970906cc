//! How cases end, and the closing line that counts them.
//! Input: the verdicts of single cases.

/// How a case ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
    NotApplicable,
}

/// What the closing line counts.
#[derive(Default)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// By design; with those that are not even begun, being for another place.
    pub not_applicable: usize,
}

impl Tally {
    pub fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
            Verdict::NotApplicable => self.not_applicable += 1,
        }
    }
}
