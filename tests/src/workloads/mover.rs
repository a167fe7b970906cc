//! Memory of every kind, moved by every system call that can: the workload requests the move, so it knows the truth.
//! Input: the kind of page and the call; on stdin `mark`, then `move`, answered by the reports of all that map the
//! memory.

use std::fs;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;

use super::protocol::{Workload, serve};
use super::sharer::Sharer;
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::machine::provoke::{self, Block, Group};
use crate::truth::{Moves, Report, Reports, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "mover",
    what: "mover PAGES CALL MIB [NODE]: `mark`, then `move` moves MIB of PAGES on NODE (0) by CALL and reports",
    run,
};

const HUGE: usize = 2 << 20;
const HUGE_ORDER: u8 = 9;

const HUGETLB_OF_NODE_1: &str = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages";

/// Orders of the anonymous folios between base pages and huge pages (mm/huge_memory.c, `THP_ORDERS_ALL_ANON`, 6.8 to
/// 7.3).
pub const MTHP: [u8; 7] = [2, 3, 4, 5, 6, 7, 8];

/// The order of the folio at an offset: memory of these folios has one order after the other, 2 MiB of each.
pub fn mthp_order(offset: u64) -> u8 {
    MTHP[offset as usize / HUGE % MTHP.len()]
}

/// The kind of the moved pages.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Anonymous base pages.
    Base,
    /// Anonymous folios of each order between base pages and huge pages.
    Mthp,
    /// Anonymous huge pages mapped by a PMD.
    Thp,
    /// Anonymous huge pages mapped by PTEs in three VMAs of different permissions.
    PteMappedThp,
    /// Base pages and huge pages, in a mapping that has become PROT_NONE.
    ProtNone,
    ThpProtNone,
    /// hugetlb, anonymous and of a file.
    Hugetlb,
    HugetlbShared,
    /// Base pages shared with a forked child.
    ForkShared,
    /// Base pages shared with five forked children.
    SharedBySix,
    /// Base pages shared with ten forked children.
    SharedByEleven,
    /// Huge pages shared with a forked child.
    ThpForkShared,
    /// tmpfs pages shared with a forked child.
    FileShared,
    /// Huge pages of tmpfs shared with a forked child.
    ThpFileShared,
    /// tmpfs pages that two VMAs of this process map.
    FileTwice,
    /// Pages of memfd_secret(2).
    Secret,
}

impl Pages {
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "base" => Self::Base,
            "mthp" => Self::Mthp,
            "thp" => Self::Thp,
            "pte_mapped_thp" => Self::PteMappedThp,
            "prot_none" => Self::ProtNone,
            "thp_prot_none" => Self::ThpProtNone,
            "hugetlb" => Self::Hugetlb,
            "hugetlb_shared" => Self::HugetlbShared,
            "fork_shared" => Self::ForkShared,
            "shared_by_six" => Self::SharedBySix,
            "shared_by_eleven" => Self::SharedByEleven,
            "thp_fork_shared" => Self::ThpForkShared,
            "file_shared" => Self::FileShared,
            "thp_file_shared" => Self::ThpFileShared,
            "file_twice" => Self::FileTwice,
            "secret" => Self::Secret,
            other => bail!("no pages {other}"),
        })
    }

    /// The number of forked children that map the same pages.
    fn children(self) -> usize {
        match self {
            Self::ForkShared | Self::ThpForkShared | Self::FileShared | Self::ThpFileShared => 1,
            Self::SharedBySix => 5,
            Self::SharedByEleven => 10,
            _ => 0,
        }
    }

    /// The order of the folio at an offset into the memory.
    fn order_at(self, offset: u64) -> u8 {
        match self {
            Self::Base
            | Self::ProtNone
            | Self::ForkShared
            | Self::SharedBySix
            | Self::SharedByEleven
            | Self::FileShared
            | Self::FileTwice
            | Self::Secret => 0,
            Self::Mthp => mthp_order(offset),
            Self::Thp
            | Self::PteMappedThp
            | Self::ThpProtNone
            | Self::ThpForkShared
            | Self::ThpFileShared
            | Self::Hugetlb
            | Self::HugetlbShared => HUGE_ORDER,
        }
    }

    /// Maps `len` bytes on that node. For node 0, this thread has to run there.
    pub fn map(self, len: usize, node: u32) -> Result<Memory> {
        let mut memory = match self {
            Self::Base | Self::ProtNone | Self::ForkShared | Self::SharedBySix | Self::SharedByEleven => {
                Memory::base_pages(len)?
            }
            Self::Mthp => Memory::huge_pages(len)?,
            Self::Thp | Self::PteMappedThp | Self::ThpProtNone | Self::ThpForkShared => {
                huge_pages_of(&[HUGE_ORDER])?;
                Memory::huge_pages(len)?
            }
            Self::Hugetlb | Self::HugetlbShared => {
                let pages = (2 * len / HUGE).to_string();
                fs::write("/proc/sys/vm/nr_hugepages", &pages).context("reserve hugetlb pages")?;
                match self {
                    Self::HugetlbShared => Memory::hugetlb_shared(len)?,
                    _ => Memory::hugetlb(len)?,
                }
            }
            Self::FileShared | Self::ThpFileShared | Self::FileTwice => {
                // Since 6.11, each size has a knob of its own; the knob of huge pages inherits this one.
                let huge = if self == Self::ThpFileShared { "always" } else { "never" };
                provoke::write("/sys/kernel/mm/transparent_hugepage/shmem_enabled", huge)?;
                match self {
                    Self::FileTwice => Memory::twice(len)?,
                    _ => Memory::shared(len)?,
                }
            }
            Self::Secret => Memory::secret(len)?,
        };
        if node != 0 {
            numa::mbind(memory.addresses(), node, false)?;
        }
        let range = memory.addresses();
        for start in range.clone().step_by(HUGE) {
            let part = start..range.end.min(start + HUGE as u64);
            let order = self.order_at(start - range.start);
            if self == Self::Mthp {
                huge_pages_of(&[order])?;
            }
            memory.touch(&part);
            ensure!(
                Snapshot::take(part)?.in_runs_of(1 << order),
                "the kernel gave other pages than the requested ones of order {order}"
            );
        }
        if self == Self::PteMappedThp {
            // Each huge page gets another VMA in its middle: its PMD becomes a page table, its folio stays.
            memory.split_permissions(HUGE)?;
        }
        if matches!(self, Self::ProtNone | Self::ThpProtNone) {
            memory.forbid()?;
        }
        Ok(memory)
    }
}

/// Lets anonymous memory have only huge pages of these orders, by the per-size knobs
/// (since 6.8, mm/huge_memory.c `thpsize_init`) if there are any.
/// (since 6.8, mm/huge_memory.c `thpsize_init`) where there are any.
pub fn huge_pages_of(orders: &[u8]) -> Result<()> {
    let thp = "/sys/kernel/mm/transparent_hugepage";
    fs::write(format!("{thp}/enabled"), "always").context("switch THP on")?;
    for each in MTHP.into_iter().chain([HUGE_ORDER]) {
        let knob = format!("{thp}/hugepages-{}kB/enabled", 4 << each);
        if fs::exists(&knob)? {
            fs::write(&knob, if orders.contains(&each) { "always" } else { "never" })
                .with_context(|| format!("write {knob}"))?;
        }
    }
    Ok(())
}

fn run(args: &[String]) -> Result<()> {
    let [pages, call, mib, node @ ..] = args else {
        bail!("usage: mover PAGES CALL MIB [NODE]")
    };
    let node = node.first().map_or(Ok(0), |node| node.parse()).context("parse NODE")?;
    let pages = Pages::parse(pages)?;
    // 0 means as many pages as a pipe can pin.
    let len = match mib.parse::<usize>().context("parse MIB")? {
        0 => 16 * rustix::param::page_size(),
        mib => mib << 20,
    };
    numa::run_on(0)?;
    let group = match call.as_str() {
        "demote" => Some(Group::enter("memory")?),
        "change_cpuset" => Some(Group::enter("cpuset")?),
        _ => None,
    };
    let mut memory = pages.map(len, node)?;
    // khugepaged would collapse again the huge pages that were split for the move.
    rustix::thread::disable_transparent_huge_pages(true).context("keep khugepaged away")?;
    if call == "gigantic_page" {
        // Some memory stays in every part, so that the gigabyte has some, with room for it elsewhere.
        memory.thin_out(64 << 20, 2 * HUGE)?;
    }
    let range = memory.addresses();
    let mut children = (0..pages.children())
        .map(|_| Sharer::fork(range.clone(), || Ok(())))
        .collect::<Result<Vec<_>>>()?;
    let _ballast = match call.as_str() {
        "move_to_full_node" | "mbind_to_full_node" | "balance_to_full_node" => fill_node(1)?,
        _ => Vec::new(),
    };
    serve(&range, "move", |before| {
        match (call.as_str(), &group) {
            ("demote", Some(group)) => provoke::demote(group, &range)?,
            ("change_cpuset", Some(group)) => provoke::change_cpuset(group, &range)?,
            // A page with more than one mapping counts as shared, even if one process has all mappings.
            _ => move_by(call, &range, !children.is_empty() || pages == Pages::FileTwice)?,
        }
        let moves = Moves::between(before, &Snapshot::take(range.clone())?)?;
        let mut reports = vec![(std::process::id(), Report::new(range.clone(), moves))];
        for child in &mut children {
            reports.push((child.pid, child.report()?));
        }
        if call == "move_pages_and_without_youngest" {
            // The reports are of the first move.
            thread::sleep(BETWEEN);
            children.last_mut().context("no child")?.unmap()?;
            numa::move_pages(range.clone(), 0, true)?;
        }
        Reports(reports).to_line()
    })
}

fn move_by(call: &str, range: &Range<u64>, everybodys: bool) -> Result<()> {
    match call {
        "move_pages" | "move_pages_and_without_youngest" => numa::move_pages(range.clone(), 1, everybodys),
        "move_pages_and_back" => {
            numa::move_pages(range.clone(), 1, everybodys)?;
            thread::sleep(BETWEEN);
            numa::move_pages(range.clone(), 0, everybodys)
        }
        "mbind" => numa::mbind(range.clone(), 1, everybodys),
        "migrate_pages" => numa::migrate_pages(std::process::id(), 0, 1),
        "soft_offline" => numa::soft_offline(range.clone()),
        // A page in the middle of each huge page is retired, which splits the huge page.
        "soft_offline_middles" => range.clone().step_by(HUGE).try_for_each(|start| {
            let middle = start + HUGE as u64 / 2;
            numa::soft_offline(middle..middle + rustix::param::page_size() as u64)
        }),
        "offline" => Block::of_most(Snapshot::take(range.clone())?.frames())?.offline(),
        "gigantic_page" => provoke::gigantic_page(1),
        "pin_for_long" => provoke::pin_for_long(range).map(drop),
        "damon_migrate" => provoke::damon_migrate(range, 1),
        // The move must fail, because the pages are pinned meanwhile.
        "move_pinned" => {
            let _pinned = numa::Pinned::new(range.clone())?;
            numa::move_pages(range.clone(), 1, everybodys)
        }
        // The move must fail, because the pages are pinned as for a device.
        "move_registered" => {
            let _ring = provoke::pin_for_long(range)?;
            numa::move_pages(range.clone(), 1, everybodys)
        }
        // A pipe holds one page of each huge page.
        "move_pinned_huge" => {
            let _pinned = numa::Pinned::firsts(range.clone(), HUGE)?;
            numa::move_pages(range.clone(), 1, everybodys)
        }
        // The file refuses to move its pages. Without MPOL_MF_STRICT, mbind does not report that as an error.
        "mbind_refused" => match numa::mbind(range.clone(), 1, everybodys) {
            Err(error) if !says(&error, Errno::IO) => Err(error),
            _ => Ok(()),
        },
        // The moves find no room.
        "move_to_full_node" => {
            let _more = top_up(1)?;
            match numa::move_pages(range.clone(), 1, everybodys) {
                Err(error) if says(&error, Errno::NOMEM) => Ok(()),
                other => {
                    other?;
                    bail!("the node had room for everything")
                }
            }
        }
        // Only the last page is moved, because the index of the first would be 0 in any unit.
        "move_hugetlb_to_full_node" => {
            let last = range.end - HUGE as u64..range.end;
            let outcome =
                reserve_hugetlb_of_node_1().and_then(|_reserved| match numa::move_pages(last, 1, everybodys) {
                    Err(error) if says(&error, Errno::NOMEM) => Ok(()),
                    other => other,
                });
            fs::write(HUGETLB_OF_NODE_1, "0").context("give node 1's huge pages back")?;
            outcome
        }
        // It is a single call with only these pages on its list.
        "mbind_to_full_node" => {
            let _more = top_up(1)?;
            match numa::mbind(range.clone(), 1, everybodys) {
                Err(error) if says(&error, Errno::NOMEM) || says(&error, Errno::IO) => Ok(()),
                other => other,
            }
        }
        "balance_to_full_node" => {
            let _more = top_up(1)?;
            numa::run_on(1)?;
            let started = Instant::now();
            while started.elapsed() < BALANCING {
                read(range);
            }
            numa::run_on(0)
        }
        other => bail!("no call {other}"),
    }
}

/// Whether this error of the system is the cause.
fn says(error: &anyhow::Error, errno: Errno) -> bool {
    let root = error.root_cause().downcast_ref::<std::io::Error>();
    root.and_then(std::io::Error::raw_os_error) == Some(errno.raw_os_error())
}

/// After this number of failed pieces in a row, the node is down to the kernel's reserve.
const FULL: usize = 8;
const PIECE: usize = 1 << 20;

/// Makes all pieces of node 1's memory that are large enough into hugetlb pages, and reserves every free one: a move
/// finds neither a free hugetlb page nor memory for a new one.
fn reserve_hugetlb_of_node_1() -> Result<Vec<Memory>> {
    let number = |name: &str| -> Result<usize> {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        text.trim().parse().with_context(|| format!("parse {path}"))
    };
    // A move would make room by dropping page cache.
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop caches")?;
    let mut reserved = Vec::new();
    loop {
        fs::write(HUGETLB_OF_NODE_1, "4096").context("take node 1's memory for huge pages")?;
        match number("free_hugepages")? - number("resv_hugepages")? {
            0 => return Ok(reserved),
            more => reserved.push(Memory::hugetlb(more * HUGE)?),
        }
    }
}

/// Fills a node by moves, because moves themselves show best when they find no room.
fn fill_node(node: u32) -> Result<Vec<Memory>> {
    // A move would make room by dropping page cache.
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop caches")?;
    let target = i32::try_from(node)?;
    let mut ballast = Vec::new();
    let mut full = 0;
    while full < FULL {
        let mut piece = Memory::base_pages(PIECE)?;
        piece.fill();
        match numa::move_pages(piece.addresses(), target, false) {
            Err(error) if says(&error, Errno::NOMEM) => {
                full += 1;
                // kswapd may still free some memory.
                thread::sleep(Duration::from_millis(10));
            }
            moved => {
                moved?;
                full = 0;
            }
        }
        ballast.push(piece);
    }
    Ok(ballast)
}

/// Takes the memory that has become free since then, until the kernel turns to another node.
fn top_up(node: u32) -> Result<Vec<Memory>> {
    let mut ballast = Vec::new();
    let mut full = 0;
    while full < FULL {
        let mut piece = Memory::base_pages(PIECE)?;
        numa::prefer(piece.addresses(), node)?;
        piece.fill();
        full = if numa::node_of(piece.addresses().end - 1)? == node {
            0
        } else {
            full + 1
        };
        ballast.push(piece);
    }
    Ok(ballast)
}

/// Reads a byte of every page.
pub fn read(range: &Range<u64>) {
    for address in range.clone().step_by(rustix::param::page_size()) {
        // SAFETY: the range is a live mapping of this process.
        std::hint::black_box(unsafe { std::ptr::with_exposed_provenance::<u8>(address as usize).read_volatile() });
    }
}

/// Long enough for tracer to look up the owners, short enough for it to still know them.
const BETWEEN: Duration = Duration::from_millis(150);

/// Long enough for hint faults on every page, several times.
const BALANCING: Duration = Duration::from_secs(5);
