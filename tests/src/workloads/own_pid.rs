//! A process that becomes a program, which gets its own number as an argument.
//! Input: the program and its arguments.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use super::protocol::Workload;

pub const WORKLOAD: Workload = Workload {
    name: "own_pid",
    what: "own_pid PROGRAM ARGS...: becomes PROGRAM, with its own process number for the argument SELF",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let (program, args) = args.split_first().context("usage: own_pid PROGRAM ARGS...")?;
    let own = std::process::id().to_string();
    let args = args.iter().map(|arg| if arg == "SELF" { &own } else { arg });
    Err(Command::new(program).args(args).exec()).with_context(|| format!("become {program}"))
}
