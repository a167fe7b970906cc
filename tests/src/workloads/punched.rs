//! Memory with holes: three of every four pages are returned, so that compaction has pages to move.
//! Input: on stdin `mark` to record the frames, `look` to report the moves since.

use std::ffi::CString;

use anyhow::{Context, Result, bail};
use rustix::thread::set_name;

use super::protocol::{Workload, serve};
use crate::machine::memory::Memory;
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "punched",
    what: "punched MIB [NAME]: fills MIB of base pages and returns three of four; `mark`, then `look` reports which moved",
    run,
};

/// The size of the ballast, in sizes of the memory itself.
const BALLAST: usize = 3;

fn run(args: &[String]) -> Result<()> {
    let [mib, name @ ..] = args else {
        bail!("usage: punched MIB [NAME]")
    };
    if let [name] = name {
        set_name(&CString::new(name.as_str())?).context("change this process's name")?;
    }
    let mib: usize = mib.parse().context("parse MIB")?;
    let memory = memory(mib)?;
    let range = memory.addresses();
    serve(&range, "look", |before| {
        let after = Snapshot::take(range.clone())?;
        Report::new(range.clone(), Moves::between(before, &after)?).to_line()
    })
}

/// Base pages of that size in MiB, of which three of four were returned, with free memory above them.
pub fn memory(mib: usize) -> Result<Memory> {
    // Compaction moves pages up, so pages at the top of the zone stay. The kernel hands out the top first: ballast
    // takes the top and leaves it free again.
    let mut ballast = Memory::base_pages((BALLAST * mib) << 20)?;
    ballast.fill();
    let mut memory = Memory::base_pages(mib << 20)?;
    memory.fill();
    drop(ballast);
    let page = rustix::param::page_size();
    memory.thin_out(4 * page, page)?;
    Ok(memory)
}
