//! Identical pages, merged by KSM, then written to, moved, and unmerged.
//! Input: whether a child inherits them; on stdin `merge`, `write`, `move`, `unmerge`, each answered by the report;
//! `wait`, which waits for another line and is answered by the changes of the pages meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::protocol::{Workload, next_order, say, serve, serve_steps};
use super::sharer::Sharer;
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::truth::{Moves, Report, Reports, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "ksm",
    what: "ksm: `merge` has KSM merge identical pages, `write`, `move` and `unmerge` do so to some of them; \
           merged forked: `mark`, then `move` moves those that a child inherited when they were merged already",
    run,
};

pub const PAGES: usize = 128;
/// The number of different contents, and so of the frames that are left.
pub const CONTENTS: usize = 4;
/// `write` writes to this number of pages, from the first one.
pub const WRITTEN: usize = 40;
/// ksmd merges within this time, or never.
const PATIENCE: Duration = Duration::from_mins(1);

fn run(args: &[String]) -> Result<()> {
    let forked = match args {
        [] => false,
        [how] if how == "forked" => true,
        _ => bail!("usage: ksm [forked]"),
    };
    let page = rustix::param::page_size();
    numa::run_on(0)?;
    let mut memory = Memory::base_pages(PAGES * page)?;
    for (index, bytes) in memory.bytes_mut().chunks_mut(page).enumerate() {
        bytes.fill(0xa0 + (index % CONTENTS).to_le_bytes()[0]);
    }
    let range = memory.addresses();
    ksm("sleep_millisecs", "10")?;
    ksm("pages_to_scan", "1000")?;
    if forked {
        merge(&memory)?;
        let mut child = Sharer::fork(range.clone(), || Ok(()))?;
        return serve(&range, "move", |before| {
            numa::move_pages(range.clone(), 1, true)?;
            let moves = Moves::between(before, &Snapshot::take(range.clone())?)?;
            let own = (std::process::id(), Report::new(range.clone(), moves));
            Reports(vec![own, (child.pid, child.report()?)]).to_line()
        });
    }
    serve_steps(&range, |order| match order {
        "merge" => merge(&memory),
        "write" => {
            for bytes in memory.bytes_mut().chunks_mut(page).take(WRITTEN) {
                bytes[0] = 1;
            }
            Ok(())
        }
        "move" => numa::move_pages(range.clone(), 1, true),
        // Another process acts on pages that are shared with this one.
        "wait" => {
            say("waiting")?;
            next_order().map(drop)
        }
        "unmerge" => memory.advise(libc::MADV_UNMERGEABLE).context("MADV_UNMERGEABLE"),
        other => bail!("unknown order {other:?}"),
    })
}

fn merge(memory: &Memory) -> Result<()> {
    memory.advise(libc::MADV_MERGEABLE).context("MADV_MERGEABLE")?;
    ksm("run", "1")?;
    let started = Instant::now();
    loop {
        let frames: BTreeSet<_> = Snapshot::take(memory.addresses())?.frames().collect();
        if frames.len() == CONTENTS {
            return ksm("run", "0");
        }
        ensure!(started.elapsed() < PATIENCE, "{} frames are left", frames.len());
        thread::sleep(Duration::from_millis(20));
    }
}

fn ksm(knob: &str, value: &str) -> Result<()> {
    fs::write(format!("/sys/kernel/mm/ksm/{knob}"), value).with_context(|| format!("write {value} to ksm/{knob}"))
}
