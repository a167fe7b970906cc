//! A machine whose free memory is holes: all free huge pages are taken, then three of every four pages are returned.
//! Input: on stdin `crowd` to make the holes, then `mark` to record the frames, `look` to report the moves since.

use anyhow::{Context, Result, bail, ensure};

use super::protocol::{Workload, next_order, say, serve};
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::machine::provoke::{self, Knob};
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "crowded",
    what: "crowded MIB [stuck]: fills MIB of base pages; `crowd` takes the free huge pages and returns three of four base \
           pages; `mark`, then `look` reports which moved; stuck: compaction has to leave them",
    run,
};

const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";
/// The setting that lets compaction move locked pages (Documentation/admin-guide/sysctl/vm.rst, 6.1 to 7.3).
const TAKES_LOCKED: &str = "/proc/sys/vm/compact_unevictable_allowed";
/// The memory that is left to other processes, on both nodes.
const LEFT_MIB: u64 = 64;

fn run(args: &[String]) -> Result<()> {
    let [mib, stuck @ ..] = args else {
        bail!("usage: crowded MIB [stuck]")
    };
    let mib: usize = mib.parse().context("parse MIB")?;
    let page = rustix::param::page_size();
    numa::run_on(0)?;
    let mut memory = Memory::base_pages(mib << 20)?;
    memory.fill();
    let range = memory.addresses();
    say("ready")?;
    ensure!(next_order()?.as_deref() == Some("crowd"), "crowd is the first order");
    // There are no holes yet, so taking huge pages moves no page.
    let whole = provoke::free_mib()?.saturating_sub(LEFT_MIB) / 2;
    provoke::write(HUGE_PAGES, &whole.to_string())?;
    memory.thin_out(4 * page, page)?;
    let _leaves_locked = if stuck.is_empty() {
        None
    } else {
        let leaves_locked = Knob::set(TAKES_LOCKED, "0")?;
        lock_what_is_there()?;
        Some(leaves_locked)
    };
    serve(&range, "look", |before| {
        let after = Snapshot::take(range.clone())?;
        Report::new(range.clone(), Moves::between(before, &after)?).to_line()
    })?;
    provoke::write(HUGE_PAGES, "0")
}

/// Locks the present pages with mlockall(2), without those that were returned.
fn lock_what_is_there() -> Result<()> {
    // SAFETY: the call changes no content.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) };
    ensure!(result == 0, "mlockall: {}", std::io::Error::last_os_error());
    Ok(())
}
