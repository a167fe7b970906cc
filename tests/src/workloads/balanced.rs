//! Memory on the wrong node: filled by CPU 0, read by CPU 1, until NUMA balancing has moved it.
//! Input: on stdin `mark` to record the frames, `balance` to read until all pages have moved, and to report the moves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::mover::Pages;
use super::protocol::{Workload, serve};
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "balanced",
    what: "balanced MIB PAGES: fills MIB of PAGES (see mover) on CPU 0; `mark`, then `balance` reads them on CPU 1 until all have moved",
    run,
};

/// Pages that have not moved within this time will not move.
const PATIENCE: Duration = Duration::from_secs(45);

fn run(args: &[String]) -> Result<()> {
    let [mib, pages] = args else {
        bail!("usage: balanced MIB PAGES")
    };
    let mib: usize = mib.parse().context("parse MIB")?;
    numa::run_on(0)?;
    let memory = Pages::parse(pages)?.map(mib << 20, 0)?;
    serve(&memory.addresses(), "balance", |before| {
        numa::run_on(1)?;
        balance(&memory, before)?.to_line()
    })
}

fn balance(memory: &Memory, before: &Snapshot) -> Result<Report> {
    let started = Instant::now();
    let pages = memory.bytes().len() / rustix::param::page_size();
    loop {
        std::hint::black_box(memory.read());
        let moves = Moves::between(before, &Snapshot::take(memory.addresses())?)?;
        if moves.len() == pages || started.elapsed() > PATIENCE {
            return Ok(Report::new(memory.addresses(), moves));
        }
    }
}
