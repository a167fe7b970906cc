//! A program that moves its own pages to node 1 as soon as it has some, and writes a report of it.
//! Input: the size, and the file to write; a child that does the same writes a second file.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::protocol::Workload;
use crate::machine::memory::Memory;
use crate::machine::numa::{move_pages, run_on};
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "hasty",
    what: "hasty MIB FILE [CHILD'S FILE]: moves MIB from node 0 to 1 at once, writes its number and the moves",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let [mib, file, childs @ ..] = args else {
        bail!("usage: hasty MIB FILE [CHILD'S FILE]")
    };
    let bytes = mib.parse::<usize>().context("parse MIB")? << 20;
    run_on(0)?;
    let mut memory = Memory::base_pages(bytes)?;
    memory.fill();
    let before = Snapshot::take(memory.addresses())?;
    move_pages(memory.addresses(), 1, false)?;
    let moves = Moves::between(&before, &Snapshot::take(memory.addresses())?)?;
    let report = Report::new(memory.addresses(), moves).to_line()?;
    fs::write(file, format!("{}\n{report}\n", std::process::id())).with_context(|| format!("write {file}"))?;
    if let [childs] = childs {
        let exe = std::env::current_exe().context("find this program")?;
        let status = Command::new(exe).args(["work", "hasty", mib, childs]).status()?;
        ensure!(status.success(), "the child: {status}");
    }
    Ok(())
}
