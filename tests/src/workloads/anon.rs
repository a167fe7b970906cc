//! Anonymous memory of base pages that lies still while the kernel moves it.
//! Input: `look` on stdin, answered by the moves since the last look.

use anyhow::{Context, Result, bail, ensure};

use super::{Workload, next_order, say};
use crate::memory::Memory;
use crate::truth::{Moves, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "anon",
    what: "anon MIB: fills MIB of base pages; `look` tells which of them moved",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let [mib] = args else { bail!("usage: anon MIB") };
    let mib: usize = mib.parse().context("parse MIB")?;
    let mut memory = Memory::base_pages(mib << 20)?;
    memory.fill();
    let mut before = Snapshot::take(memory.addresses())?;
    ensure!(
        before.present() == (mib << 20) / rustix::param::page_size(),
        "some pages have no frame after the fill"
    );
    say("ready")?;
    while let Some(order) = next_order()? {
        ensure!(order == "look", "unknown order {order:?}");
        let after = Snapshot::take(memory.addresses())?;
        say(&Moves::between(&before, &after)?.to_line()?)?;
        before = after;
    }
    Ok(())
}
