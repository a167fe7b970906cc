//! Memory of every kind, moved by every system call that can: the workload asks for the move, so it knows.
//! Input: which kind of page and which call; on stdin `mark`, then `move`, answered by the reports of all who map it.

use std::fs;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use super::sharer::Sharer;
use super::{Workload, serve};
use crate::memory::Memory;
use crate::numa;
use crate::truth::{Moves, Report, Reports, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "mover",
    what: "mover PAGES CALL MIB: `mark`, then `move` moves MIB of PAGES from node 0 to node 1 by CALL and tells",
    run,
};

const HUGE: usize = 2 << 20;

/// What the moved pages are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// Anonymous base pages.
    Base,
    /// Anonymous folios of 64 KiB.
    Mthp,
    /// Anonymous huge pages mapped by a PMD.
    Thp,
    /// The same, mapped by PTEs in three VMAs of different permissions.
    PteMappedThp,
    /// hugetlb.
    Hugetlb,
    /// Base pages shared with a forked child.
    ForkShared,
    /// tmpfs pages shared with a forked child.
    FileShared,
}

impl Pages {
    fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "base" => Self::Base,
            "mthp" => Self::Mthp,
            "thp" => Self::Thp,
            "pte_mapped_thp" => Self::PteMappedThp,
            "hugetlb" => Self::Hugetlb,
            "fork_shared" => Self::ForkShared,
            "file_shared" => Self::FileShared,
            other => bail!("no pages {other}"),
        })
    }

    fn shared(self) -> bool {
        matches!(self, Self::ForkShared | Self::FileShared)
    }

    fn map(self, len: usize) -> Result<Memory> {
        let mut memory = match self {
            Self::Base | Self::ForkShared => Memory::base_pages(len)?,
            Self::Mthp => {
                huge_pages_of(64)?;
                Memory::huge_pages(len)?
            }
            Self::Thp | Self::PteMappedThp => {
                huge_pages_of(2048)?;
                Memory::huge_pages(len)?
            }
            Self::Hugetlb => {
                let pages = (2 * len / HUGE).to_string();
                fs::write("/proc/sys/vm/nr_hugepages", &pages).context("reserve hugetlb pages")?;
                Memory::hugetlb(len)?
            }
            Self::FileShared => Memory::shared(len)?,
        };
        memory.fill();
        let frames = Snapshot::take(memory.addresses())?;
        let run = match self {
            Self::Thp | Self::PteMappedThp | Self::Hugetlb => HUGE,
            Self::Mthp => 64 << 10,
            Self::Base | Self::ForkShared | Self::FileShared => rustix::param::page_size(),
        };
        ensure!(
            frames.in_runs_of(run / rustix::param::page_size()),
            "the kernel gave other pages than asked for"
        );
        if self == Self::PteMappedThp {
            // Another VMA in the middle of each huge page: its PMD becomes a page table, its folio stays.
            memory.split_permissions(HUGE)?;
        }
        Ok(memory)
    }
}

/// Lets anonymous memory have huge pages of one size only, by the per-size knobs
/// (since 6.8, mm/huge_memory.c `thpsize_init`) where there are any.
fn huge_pages_of(kib: u32) -> Result<()> {
    let thp = "/sys/kernel/mm/transparent_hugepage";
    fs::write(format!("{thp}/enabled"), "always").context("switch THP on")?;
    for size in [64, 2048] {
        let knob = format!("{thp}/hugepages-{size}kB/enabled");
        if fs::exists(&knob)? {
            fs::write(&knob, if size == kib { "always" } else { "never" }).with_context(|| format!("write {knob}"))?;
        }
    }
    Ok(())
}

fn run(args: &[String]) -> Result<()> {
    let [pages, call, mib] = args else {
        bail!("usage: mover PAGES CALL MIB")
    };
    let pages = Pages::parse(pages)?;
    // 0: as many pages as a pipe can pin.
    let len = match mib.parse::<usize>().context("parse MIB")? {
        0 => 16 * rustix::param::page_size(),
        mib => mib << 20,
    };
    numa::run_on(0)?;
    let memory = pages.map(len)?;
    let range = memory.addresses();
    let mut child = if pages.shared() {
        Some(Sharer::fork(range.clone(), || Ok(()))?)
    } else {
        None
    };
    serve(&range, "move", |before| {
        move_by(call, &range, pages.shared())?;
        let moves = Moves::between(before, &Snapshot::take(range.clone())?)?;
        let mut reports = vec![(std::process::id(), Report::new(range.clone(), moves))];
        if let Some(child) = &mut child {
            reports.push((child.pid, child.report()?));
        }
        Reports(reports).to_line()
    })
}

fn move_by(call: &str, range: &Range<u64>, everybodys: bool) -> Result<()> {
    match call {
        "move_pages" => numa::move_pages(range.clone(), 1, everybodys),
        "mbind" => numa::mbind(range.clone(), 1, everybodys),
        "migrate_pages" => numa::migrate_pages(std::process::id(), 0, 1),
        "soft_offline" => numa::soft_offline(range.clone()),
        // A move that must fail: the pages are pinned meanwhile.
        "move_pinned" => {
            let _pinned = numa::Pinned::new(range.clone())?;
            numa::move_pages(range.clone(), 1, everybodys)
        }
        other => bail!("no call {other}"),
    }
}
