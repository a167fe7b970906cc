//! Verdicts of tests, the lines that show them, and the closing line that counts them.
//! Input: the verdicts of single tests, and other tallies.

use std::{str::FromStr, time::Duration};

use anyhow::{Context as _, Result};

/// The result of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ran, and holds.
    Passed,
    /// It ran, and does not hold.
    Failed,
    /// It could not run, and says what is missing.
    Skipped,
    /// It is not meant for this machine or kernel.
    NotApplicable,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Passed, Self::Failed, Self::Skipped, Self::NotApplicable];

    /// The word in a report.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::NotApplicable => "not-applicable",
        }
    }
}

impl FromStr for Verdict {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|verdict| verdict.word() == word);
        found.with_context(|| format!("{word:?} is no verdict"))
    }
}

/// The line that a person reads, and the indented reason of a failure below it.
#[must_use]
pub fn result_line(name: &str, verdict: Verdict, took: Duration, detail: &str) -> String {
    let end = match verdict {
        Verdict::Passed => format!("ok ({:.1} s)", took.as_secs_f64()),
        Verdict::Failed => format!("FAILED ({:.1} s)", took.as_secs_f64()),
        Verdict::Skipped => format!("skipped ({detail})"),
        Verdict::NotApplicable => format!("n/a ({detail})"),
    };
    let mut line = format!(
        "{name} {:.<width$} {end}",
        "",
        width = 36_usize.saturating_sub(name.len())
    );
    if verdict == Verdict::Failed {
        for reason in detail.lines() {
            line.push_str("\n    ");
            line.push_str(reason);
        }
    }
    line
}

/// The counts of the closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Tests that could not run.
    pub skipped: usize,
    /// Tests that are not meant for this machine or kernel, including cases of another place, which are not even begun.
    /// They are not part of the closing line, whose form other programs read; see [`Tally::aside`].
    pub not_applicable: usize,
}

impl Tally {
    /// Counts a test.
    pub fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed => self.failed += 1,
            Verdict::Skipped => self.skipped += 1,
            Verdict::NotApplicable => self.not_applicable += 1,
        }
    }

    /// Both together.
    #[must_use]
    pub fn sum(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            not_applicable: self.not_applicable + other.not_applicable,
        }
    }

    /// One test with this verdict.
    #[must_use]
    pub fn of(verdict: Verdict) -> Self {
        let mut tally = Self::default();
        tally.add(verdict);
        tally
    }

    /// The line above the closing one.
    #[must_use]
    pub fn aside(self) -> String {
        format!("{} not applicable here", self.not_applicable)
    }

    /// With `CI=true`, a skipped test counts as failed.
    #[must_use]
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

#[cfg(test)]
mod tests {
    use super::{Tally, Verdict};

    #[test]
    fn a_failure_is_bad_and_in_ci_so_is_a_skip() {
        let bad = |verdict, ci| Tally::of(verdict).is_bad(ci);
        assert!(bad(Verdict::Failed, false) && bad(Verdict::Skipped, true));
        assert!(!bad(Verdict::Skipped, false) && !bad(Verdict::NotApplicable, true) && !bad(Verdict::Passed, true));
    }

    #[test]
    fn words_come_back() {
        assert!(
            Verdict::ALL
                .iter()
                .all(|verdict| verdict.word().parse().ok() == Some(*verdict))
        );
        assert!("perhaps".parse::<Verdict>().is_err());
    }
}
