//! A process that changes under tracer's eyes: its name, its children, and the node its pages are on.
//! Input: on stdin `move CALL NODE`, answered by what moved; `rename NAME`; `fork`; `where`.

use std::ffi::CString;
use std::io;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::set_name;

use super::{Workload, next_order, say};
use crate::memory::{HUGE, Memory};
use crate::numa;
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "changing",
    what: "changing NAME [huge]: `move CALL NODE` moves its 1 or 4 MiB and tells; `rename NAME`; `fork`: the child goes on",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let [name, huge @ ..] = args else {
        bail!("usage: changing NAME [huge]")
    };
    rename(name)?;
    numa::run_on(0)?;
    let mut memory = fresh(!huge.is_empty())?;
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
                // Pages that it shares with nobody.
                memory = fresh(false)?;
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

fn fresh(huge: bool) -> Result<Memory> {
    let mut memory = if huge {
        Memory::huge_pages(4 << 20)?
    } else {
        Memory::base_pages(1 << 20)?
    };
    memory.fill();
    if huge {
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
        // Somebody else moves them meanwhile.
        "wait" => {
            say("waiting")?;
            ensure!(next_order()?.as_deref() == Some("moved"), "not moved");
        }
        other => bail!("no call {other}"),
    }
    Report::new(range.clone(), Moves::between(&before, &Snapshot::take(range)?)?).to_line()
}

fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: this process has one thread, so the child may do whatever the parent might.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// The parent lives as long as the child, and ends as it did.
fn child_ended() -> Result<()> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let ended = unsafe { libc::wait(&raw mut status) };
    ensure!(ended > 0 && status == 0, "the child ended with {status:#x}");
    Ok(())
}
