//! The definition of a workload, and the lines that it exchanges with its case.
//! Input: lines on stdin, as `crate::worker` describes.

use std::io::{self, BufRead, Write};
use std::ops::Range;

use anyhow::{Context, Result, bail};

use crate::truth::{Moves, Report, Snapshot};

/// A program that uses memory and knows what happened to it.
pub struct Workload {
    pub name: &'static str,
    /// Its arguments and its actions, in one line.
    pub what: &'static str,
    pub run: fn(&[String]) -> Result<()>,
}

/// Sends one line to the case at once: stdout is a pipe, which would hold it back.
pub fn say(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("answer the case")
}

/// The case's next order. `None` if it is `exit`, or if the case has ended.
pub fn next_order() -> Result<Option<String>> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("read the next order")?;
    let order = line.trim_end();
    Ok((!order.is_empty() && order != "exit").then(|| order.to_owned()))
}

/// Prints `ready`, then runs each order and answers with the moves of the range's pages meanwhile.
pub fn serve_steps(range: &Range<u64>, mut act: impl FnMut(&str) -> Result<()>) -> Result<()> {
    say("ready")?;
    while let Some(order) = next_order()? {
        let before = Snapshot::take(range.clone())?;
        act(&order)?;
        let moves = Moves::between(&before, &Snapshot::take(range.clone())?)?;
        say(&Report::new(range.clone(), moves).to_line()?)?;
    }
    Ok(())
}

/// Prints `ready`, then serves two orders: `mark` records the frames of the range's pages, and the order named by
/// `look` is answered with the changes since then.
pub fn serve(range: &Range<u64>, look: &str, mut answer: impl FnMut(&Snapshot) -> Result<String>) -> Result<()> {
    say("ready")?;
    let mut before = None;
    while let Some(order) = next_order()? {
        match &before {
            _ if order == "mark" => {
                before = Some(Snapshot::take(range.clone())?);
                say("marked")?;
            }
            Some(before) if order == look => say(&answer(before)?)?,
            _ => bail!("unknown order {order:?}, or {look} before mark"),
        }
    }
    Ok(())
}
