//! The table of proofs: the cases that compare with the truth, by kernel, and why a cell is empty.
//! Input: the results of all VMs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tracer_tests_report::tally::Verdict;

use super::args::TOPICS;
use super::results::Ended;

/// The end of a case's name if it uses the tracepoint backend.
const TRACEPOINT: &str = "_tracepoint";
const NOT_RUN: &str = "not among this VM's cases, or its VM ended before";

/// The column of one kernel.
pub struct Column {
    /// `uname -r`.
    pub release: String,
    pub ended: Vec<Ended>,
}

/// The table and, below it, each cell that did not run with its reason. Empty if no case of the truth ran.
pub fn table(columns: &[Column]) -> String {
    let rows = rows(columns);
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    let mut gaps: BTreeMap<&str, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    line(
        &mut text,
        "KIND",
        "BACKEND",
        columns.iter().map(|column| short(&column.release)),
    );
    for name in rows {
        let (kind, backend) = name
            .strip_suffix(TRACEPOINT)
            .map_or((name, "exact"), |kind| (kind, "tracepoint"));
        let cells = columns.iter().map(|column| {
            let ended = column.ended.iter().find(|ended| ended.name == name);
            let reason = match ended.map(|ended| (ended.verdict, ended.detail.as_str())) {
                Some((Verdict::Passed, _)) => return "ok".to_owned(),
                Some((Verdict::Failed, _)) => return "FAILED".to_owned(),
                Some((Verdict::Skipped | Verdict::NotApplicable, reason)) => reason,
                None => NOT_RUN,
            };
            let cells = gaps.entry(reason).or_default().entry(name).or_default();
            cells.push(short(&column.release));
            "-".to_owned()
        });
        line(&mut text, kind, backend, cells);
    }
    for (reason, cells) in gaps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- {reason}");
        for (name, kernels) in cells {
            let _ = writeln!(text, "    {name}: {}", kernels.join(", "));
        }
    }
    text
}

/// Every failure once more, with its kernel and its reason: results are far above, and a log may be kept in part.
pub fn failures(columns: &[Column]) -> String {
    let mut text = String::new();
    for column in columns {
        for ended in column.ended.iter().filter(|ended| ended.verdict == Verdict::Failed) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "FAILED on {}: {}", short(&column.release), ended.name);
            for reason in ended.detail.lines() {
                let _ = writeln!(text, "    {reason}");
            }
        }
    }
    text
}

/// Every case of the truth that any kernel ran, in the order in which it ran.
fn rows(columns: &[Column]) -> Vec<&str> {
    let mut rows: Vec<&str> = Vec::new();
    for ended in columns.iter().flat_map(|column| &column.ended) {
        let name = ended.name.as_str();
        if TOPICS
            .iter()
            .any(|topic| topic.of_truth && name.starts_with(topic.name))
            && !rows.contains(&name)
        {
            rows.push(name);
        }
    }
    rows
}

/// The version and the build: `6.12.117-cloud` of `6.12.117+deb12-cloud-amd64`.
fn short(release: &str) -> String {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.');
    let version = &release[..end.filter(|end| *end > 0).unwrap_or(release.len())];
    let build = if release.contains("-cloud") { "-cloud" } else { "" };
    format!("{version}{build}")
}

fn line(text: &mut String, kind: &str, backend: &str, cells: impl Iterator<Item = String>) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{kind:<32} {backend:<10}");
    for cell in cells {
        let _ = write!(text, "  {cell:<14}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::{Column, Ended, Verdict, failures, table};

    fn ended(name: &str, verdict: Verdict, detail: &str) -> Ended {
        Ended {
            name: name.into(),
            verdict,
            detail: detail.into(),
        }
    }

    #[test]
    fn every_empty_cell_has_its_reason() {
        let columns = [
            Column {
                release: "6.1.0-56-amd64".into(),
                ended: vec![
                    ended("cli/help", Verdict::Passed, ""),
                    ended("kinds/mbind", Verdict::Passed, ""),
                    ended("reasons/damon", Verdict::NotApplicable, "exists since 6.12"),
                    ended("reasons/damon_tracepoint", Verdict::NotApplicable, "exists since 6.12"),
                ],
            },
            Column {
                release: "6.12.117+deb12-cloud-amd64".into(),
                ended: vec![
                    ended("kinds/mbind", Verdict::Failed, "why"),
                    ended("reasons/damon", Verdict::Passed, ""),
                ],
            },
        ];
        let expected = "\
KIND                             BACKEND     6.1.0           6.12.117-cloud
kinds/mbind                      exact       ok              FAILED
reasons/damon                    exact       -               ok
reasons/damon                    tracepoint  -               -
- exists since 6.12
    reasons/damon: 6.1.0
    reasons/damon_tracepoint: 6.1.0
- not among this VM's cases, or its VM ended before
    reasons/damon_tracepoint: 6.12.117-cloud
";
        assert_eq!(table(&columns), expected);
        assert_eq!(failures(&columns), "FAILED on 6.12.117-cloud: kinds/mbind\n    why\n");
    }

    #[test]
    fn without_a_case_of_the_truth_there_is_no_table() {
        let column = Column {
            release: "x".into(),
            ended: vec![ended("cli/help", Verdict::Passed, "")],
        };
        assert_eq!(table(&[column]), "");
    }
}
