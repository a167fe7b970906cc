//! A process that changes while tracer runs: its name, its children, and the frames of its pages.
//! Input: on stdin `move CALL NODE`, answered by the moves; `rename NAME`; `fork`; `where`.

use std::ffi::CString;
use std::io;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::set_name;

use super::copy::write;
use super::protocol::{Workload, next_order, say};
use super::sharer::Sharer;
use crate::machine::memory::{HUGE, Memory};
use crate::machine::numa;
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "changing",
    what: "changing NAME [huge|collapsible]: `move CALL NODE` moves its memory and reports; `rename NAME`; `fork`",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let [name, pages @ ..] = args else {
        bail!("usage: changing NAME [huge|collapsible]")
    };
    rename(name)?;
    numa::run_on(0)?;
    let mut memory = fresh(pages.first().map(String::as_str))?;
    say("ready")?;
    while let Some(order) = next_order()? {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["where"] => {
                let range = memory.addresses();
                say(&Report::new(range, Moves::default()).to_line()?)?;
            }
            ["move", call, node] => say(&moved(&memory, call, node.parse()?)?)?,
            ["rename", name] => {
                rename(name)?;
                say("renamed")?;
            }
            ["fork"] => {
                if fork()? != 0 {
                    return child_ended();
                }
                // The child gets pages that it shares with no process.
                memory = fresh(None)?;
                say(&std::process::id().to_string())?;
            }
            _ => bail!("unknown order {order:?}"),
        }
    }
    Ok(())
}

fn rename(name: &str) -> Result<()> {
    set_name(&CString::new(name)?).context("change this process's name")
}

fn fresh(pages: Option<&str>) -> Result<Memory> {
    let mut memory = match pages {
        None => Memory::base_pages(1 << 20)?,
        Some("huge") => Memory::huge_pages(2 * HUGE)?,
        // These are base pages that can be collapsed into huge ones.
        Some("collapsible") => Memory::base_pages(2 * HUGE)?,
        Some(other) => bail!("no pages {other}"),
    };
    memory.fill();
    if pages == Some("huge") {
        let frames = Snapshot::take(memory.addresses())?;
        ensure!(frames.in_runs_of(512), "the kernel gave no huge pages");
    }
    Ok(memory)
}

fn moved(memory: &Memory, call: &str, node: u32) -> Result<String> {
    let range = memory.addresses();
    let before = Snapshot::take(range.clone())?;
    match call {
        "move_pages" => numa::move_pages(range.clone(), node.cast_signed(), false)?,
        "move_pinned" => {
            let _pinned = numa::Pinned::firsts(range.clone(), HUGE)?;
            numa::move_pages(range.clone(), node.cast_signed(), false)?;
        }
        "mbind" => numa::mbind(range.clone(), node, false)?,
        // The copies are made on the node of this CPU.
        "copy" => {
            let _sharer = Sharer::fork(range.clone(), || Ok(()))?;
            write(&range);
        }
        "collapse" => {
            memory.allow_huge_pages()?;
            memory.collapse()?;
        }
        // Another process moves the pages meanwhile.
        "wait" => {
            say("waiting")?;
            ensure!(next_order()?.as_deref() == Some("moved"), "not moved");
        }
        other => bail!("no call {other}"),
    }
    Report::new(range.clone(), Moves::between(&before, &Snapshot::take(range)?)?).to_line()
}

fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: this process has one thread, so the child may do anything that the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Waits for the child, and ends as it did.
fn child_ended() -> Result<()> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let ended = unsafe { libc::wait(&raw mut status) };
    ensure!(ended > 0 && status == 0, "the child ended with {status:#x}");
    Ok(())
}
