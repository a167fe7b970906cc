//! Durations as a small histogram: a line for each power of two, with a bar.
//! Input: durations; output: lines of text that fit 80 columns.

use std::fmt;

use crate::{
    render::quantity::{Count, Duration},
    run::totals::Durations,
    units::Nanos,
};

/// The longest bar, characters.
const BAR: u64 = 40;

/// Writes the histogram under its heading; nothing where all durations are in one bucket.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl fmt::Write, heading: &str, counted: &str, durations: &Durations) -> fmt::Result {
    let buckets: Vec<(Nanos, Nanos, u64)> = durations.buckets().collect();
    if buckets.len() < 2 {
        return Ok(());
    }
    writeln!(out, "\n{heading:<19} {counted:>11}")?;
    let most = buckets.iter().map(|&(.., count)| count).max().unwrap_or(1);
    let mut next = buckets[0].0;
    for (lower, upper, count) in buckets {
        if lower != next {
            writeln!(out, "{:>7}", "...")?;
        }
        let bar = "#".repeat(usize::try_from(count.saturating_mul(BAR).div_ceil(most)).unwrap_or(0));
        writeln!(
            out,
            "{:>7} to {:<8} {:>11}  {bar}",
            Duration(lower).to_string(),
            Duration(upper).to_string(),
            Count(count).to_string()
        )?;
        next = upper;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(counts: &[(u64, u64)]) -> String {
        let mut durations = Durations::default();
        for &(nanos, times) in counts {
            durations.add(Nanos(nanos), times);
        }
        let mut out = String::new();
        write(&mut out, "BLACKOUT", "MAPPINGS", &durations).unwrap();
        out
    }

    #[test]
    fn bars() {
        let text = text(&[
            (0, 1),
            (9_000, 12),
            (20_000, 1_234_567),
            (30_000, 300_000),
            (40_000, 600_000),
            (5_000_000, 3),
        ]);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn nothing_to_compare() {
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[(9_000, 12), (10_000, 5)]), "");
    }
}
