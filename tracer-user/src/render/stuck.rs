//! The table of folios that could not be moved, by process, for a person and as JSON.
//! Input: the sums of each process.

use std::fmt;

use serde_json::{Value, json};

use crate::{
    analysis::stuck::{Holder, StuckByProcess},
    escape::Printable,
    render::quantity::{Bytes, Count},
    units::PAGE_SIZE,
};

/// The first `most` rows under their heading, and how many more there are; nothing where everything could be moved.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl fmt::Write, stuck: &StuckByProcess, most: usize) -> fmt::Result {
    let rows = stuck.sorted();
    if rows.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = rows.iter().take(most).map(|(holder, _)| name(holder)).collect();
    let heading = "NOT MOVED OF";
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
    let width = widest.max(heading.len());
    writeln!(
        out,
        "\n{heading:<width$}  {:>11} {:>10} {:>11}",
        "FOLIOS", "SIZE", "ATTEMPTS"
    )?;
    for (name, (_, sums)) in names.iter().zip(&rows) {
        writeln!(
            out,
            "{name:<width$}  {:>11} {:>10} {:>11}",
            Count(sums.folios).to_string(),
            Bytes(sums.pages.saturating_mul(PAGE_SIZE)).to_string(),
            Count(sums.attempts).to_string(),
        )?;
    }
    match rows.len() - names.len() {
        0 => Ok(()),
        1 => writeln!(out, "1 process more"),
        more => writeln!(out, "{} processes more", Count(more as u64)),
    }
}

fn name(holder: &Holder) -> String {
    match holder {
        Holder::Process(_, tgid, Some(comm)) => format!("{}[{tgid}]", Printable(comm)),
        Holder::Process(_, tgid, None) => format!("?[{tgid}]"),
        Holder::Unknown => "no known mapping".to_owned(),
        Holder::Other => "all others".to_owned(),
    }
}

/// The first `most` rows as objects.
#[must_use]
pub fn json(stuck: &StuckByProcess, most: Option<usize>) -> Value {
    let rows = stuck.sorted().into_iter().take(most.unwrap_or(usize::MAX));
    let rows = rows.map(|(holder, sums)| {
        let (host, pid, comm) = match holder {
            Holder::Process(host, tgid, comm) => (Some(host), Some(tgid.0), comm.as_ref()),
            Holder::Unknown | Holder::Other => (None, None, None),
        };
        json!({
            "host": host.map(|host| &**host), "pid": pid, "comm": comm.map(|comm| &**comm), "all_others": *holder == Holder::Other,
            "folios": sums.folios, "pages": sums.pages, "attempts": sums.attempts,
        })
    });
    rows.collect()
}
