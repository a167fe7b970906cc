//! Verdicts of cases, and the closing line that counts them.
//! Input: the verdicts of single cases.

/// The verdict of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
    NotApplicable,
}

/// The counts of the closing line.
#[derive(Default)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// Not applicable by design, including cases of another place, which are not even begun.
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
