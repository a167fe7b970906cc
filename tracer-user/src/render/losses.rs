//! When events were lost, for a person and as JSON.
//! Input: the time line of a run's losses.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    analysis::losses::{Loss, Losses},
    render::quantity::{Count, Duration},
};

/// A line for each of the first `rows` stretches, and one for the rest.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl fmt::Write, losses: &Losses, rows: usize) -> fmt::Result {
    let (shown, rest) = losses.0.split_at(rows.min(losses.0.len()));
    for Loss { begin, end, events } in shown {
        writeln!(
            out,
            "          {:>11} between {} and {} after the begin",
            Count(*events).to_string(),
            Duration(*begin),
            Duration(*end)
        )?;
    }
    if !rest.is_empty() {
        let events = rest.iter().fold(0, |sum: u64, loss| sum.saturating_add(loss.events));
        let times = Count(rest.len() as u64);
        writeln!(
            out,
            "          {:>11} at {times} other times",
            Count(events).to_string()
        )?;
    }
    Ok(())
}

/// All of them; times in ns after the begin of the run.
#[must_use]
pub fn json(losses: &Losses) -> Value {
    let object = |loss: &Loss| json!({ "begin_ns": loss.begin.0, "end_ns": loss.end.0, "events": loss.events });
    losses.0.iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Nanos;

    #[test]
    fn the_rest_is_summed_up() {
        let loss = |second: u64, events| Loss {
            begin: Nanos(second * 1_000_000_000),
            end: Nanos((second + 1) * 1_000_000_000),
            events,
        };
        let losses = Losses(vec![loss(0, 1234), loss(7, 5), loss(8, 6)]);
        let mut out = String::new();
        write(&mut out, &losses, 1).unwrap();
        let lines: Vec<_> = out.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            ["1,234 between 0 ns and 1.0 s after the begin", "11 at 2 other times"]
        );
        assert_eq!(json(&losses)[1]["begin_ns"], 7_000_000_000_u64);
    }
}
