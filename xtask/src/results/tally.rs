//! Verdicts of tests, and the closing line that counts them.
//! Input: the verdicts of single tests, and other tallies.

/// The result of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    Skipped,
    NotApplicable,
}

/// The counts of the closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    /// Not part of the closing line, whose form other programs read; see [`Tally::aside`].
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

    pub fn sum(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            not_applicable: self.not_applicable + other.not_applicable,
        }
    }

    /// One test with this verdict.
    pub fn of(verdict: Verdict) -> Self {
        let mut tally = Self::default();
        tally.add(verdict);
        tally
    }

    /// The line above the closing one.
    pub fn aside(self) -> String {
        format!("{} not applicable here", self.not_applicable)
    }

    /// With `CI=true`, a skipped test counts as failed.
    pub fn is_bad(self, ci: bool) -> bool {
        self.failed > 0 || (ci && self.skipped > 0)
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}
