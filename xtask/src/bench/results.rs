//! The measurements and the goals, as a table and as JSON.
//! Input: the numbers of all runs, and the reasons for missing ones.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::Args;
use super::goals::{GOALS, Goal, What};
use super::stats::Spread;

/// All measurements.
#[derive(Default)]
pub struct Results {
    /// Facts about the machine and the programs.
    pub machine: Vec<(String, String)>,
    rows: Vec<Row>,
    /// The measurements that could not be made, with the reasons.
    skipped: Vec<(String, String)>,
}

/// One quantity, measured several times.
struct Row {
    of: &'static str,
    what: What,
    values: Vec<f64>,
}

impl Results {
    /// Adds a number of one run. None adds nothing.
    pub fn add(&mut self, of: &'static str, what: What, value: Option<f64>) {
        let Some(value) = value else { return };
        match self.rows.iter_mut().find(|row| (row.of, row.what) == (of, what)) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row {
                of,
                what,
                values: vec![value],
            }),
        }
    }

    /// Records the reason why numbers are missing.
    pub fn skip(&mut self, of: &str, reason: String) {
        eprintln!("bench: no {of}: {reason}");
        self.skipped.push((of.to_owned(), reason));
    }

    /// Records the reason for each goal without a number.
    pub fn explain(&mut self, args: &Args) {
        for goal in &GOALS {
            let measured = self.rows.iter().any(|row| (row.of, row.what) == (goal.of, goal.what));
            let said = self.skipped.iter().any(|(of, _)| of == goal.of);
            let group = if matches!(goal.of, "report" | "cat" | "info") {
                "read"
            } else {
                goal.of
            };
            if measured || said {
                continue;
            }
            let reason = match goal.of {
                "uncorrelated" => "tracer has no mode without correlation",
                _ if !args.wants(group) => "not requested",
                _ => "not measured; a message above gives the reason",
            };
            self.skipped.push((goal.of.to_owned(), reason.to_owned()));
        }
    }

    /// Whether any goal that was measured is missed.
    pub fn is_missed(&self) -> bool {
        self.judged().any(|(_, _, goal)| matches!(goal, Some((_, false))))
    }

    /// Each row with its goal and whether that is reached.
    fn judged(&self) -> impl Iterator<Item = (&Row, Spread, Option<(&'static Goal, bool)>)> {
        self.rows.iter().filter_map(|row| {
            let spread = Spread::of(&row.values)?;
            let goal = Goal::of(row.of, row.what);
            Some((row, spread, goal.map(|goal| (goal, goal.is_reached(&spread)))))
        })
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for (key, value) in &self.machine {
            let _ = writeln!(text, "{key:<10} {value}");
        }
        let _ = writeln!(
            text,
            "\n{:<13} {:<37} {:>10} {:>10} {:>10}    {:>4}  {:>8}",
            "OF", "WHAT", "MEDIAN", "LEAST", "MOST", "RUNS", "GOAL"
        );
        for (row, spread, goal) in self.judged() {
            let unit = row.what.unit();
            let [median, least, most] = [spread.median, spread.least, spread.most].map(number);
            let _ = write!(
                text,
                "{:<13} {:<37} {median:>10} {least:>10} {most:>10} {unit:<2} {:>4}",
                row.of,
                row.what.name(),
                row.values.len()
            );
            if let Some((goal, reached)) = goal {
                let word = if reached { "reached" } else { "MISSED" };
                let _ = write!(text, "  {:>8}  {word}", format!("<= {}", goal.most));
            }
            text.push('\n');
        }
        if !self.skipped.is_empty() {
            text.push_str("\nNot measured:\n");
        }
        for (of, reason) in &self.skipped {
            let _ = writeln!(text, "{of:<13} {reason}");
        }
        text
    }

    pub fn json(&self) -> Value {
        let machine: serde_json::Map<_, _> = self
            .machine
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let rows: Vec<_> = self
            .judged()
            .map(|(row, spread, goal)| {
                json!({
                    "of": row.of,
                    "what": row.what.name(),
                    "unit": row.what.unit(),
                    "median": spread.median,
                    "least": spread.least,
                    "most": spread.most,
                    "values": row.values,
                    "goal": goal.map(|(goal, _)| goal.most),
                    "reached": goal.map(|(_, reached)| reached),
                })
            })
            .collect();
        let skipped: Vec<_> = self
            .skipped
            .iter()
            .map(|(of, reason)| json!({ "of": of, "reason": reason }))
            .collect();
        json!({ "machine": machine, "measured": rows, "not_measured": skipped })
    }
}

/// Formats a number with its significant digits.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || value >= 1000.0 {
        format!("{value:.0}")
    } else if value >= 20.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Results, What};

    #[test]
    fn a_missed_goal_is_said_and_what_was_not_measured_is_no_success() {
        let mut results = Results::default();
        results.add("encode", What::EventCpu, Some(80.0));
        results.add("encode", What::EventBytes, None);
        assert!(!results.is_missed());
        results.skip("perf", "why".to_owned());
        results.add("record", What::Lost, Some(0.0));
        results.add("record", What::Lost, Some(2.0));
        assert!(results.is_missed());
        let text = results.text();
        assert!(
            text.contains("reached") && text.contains("MISSED") && text.contains("perf          why\n"),
            "{text}"
        );
        assert_eq!(results.json()["measured"][1]["reached"], false);
    }
}
