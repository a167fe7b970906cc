//! A program that only ends.
//! Input: the way in which it ends.

use anyhow::{Context, Result, bail};

use super::protocol::Workload;

pub const WORKLOAD: Workload = Workload {
    name: "end",
    what: "end exit CODE | end signal NUMBER: ends at once, that way",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let [how, number] = args else {
        bail!("usage: end exit CODE | end signal NUMBER")
    };
    let number: i32 = number.parse().context("parse the number")?;
    match how.as_str() {
        "exit" => std::process::exit(number),
        "signal" => {
            // SAFETY: raising a signal touches no memory; this program has no handlers.
            unsafe { libc::raise(number) };
            bail!("signal {number} does not end a process")
        }
        other => bail!("end by {other:?}?"),
    }
}
