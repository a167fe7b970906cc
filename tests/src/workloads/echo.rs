//! A program that prints its user on stderr and its stdin on stdout.
//! Input: stdin, to its end.

use std::io;

use anyhow::{Context, Result};
use rustix::process::{getgid, getgroups, getuid};

use super::protocol::Workload;

pub const WORKLOAD: Workload = Workload {
    name: "echo",
    what: "echo: prints `uid gid groups` on stderr and copies stdin to stdout",
    run,
};

fn run(_: &[String]) -> Result<()> {
    let groups = getgroups().context("ask for the groups")?;
    let groups: Vec<String> = groups.iter().map(|group| group.as_raw().to_string()).collect();
    eprintln!(
        "uid {} gid {} groups {}",
        getuid().as_raw(),
        getgid().as_raw(),
        groups.join(",")
    );
    io::copy(&mut io::stdin().lock(), &mut io::stdout().lock()).context("copy stdin to stdout")?;
    Ok(())
}
