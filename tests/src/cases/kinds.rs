//! Every kind of page, moved by every system call that moves pages: the reported moves must equal the truth.
//! Input: the workload `mover`, which maps the pages, requests the move, and reads its own pagemap.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::moves::ensure_same;
use crate::tracer::lines::MoveLine;
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::{Report, Reports};
use crate::worker::Worker;
use crate::workloads::mover::{MTHP, mthp_order};

const SOON: Duration = Duration::from_mins(1);
const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };

/// The pages, the call that moves them, and the expected events.
pub struct Scenario {
    pub pages: &'static str,
    pub call: &'static str,
    pub mib: usize,
    pub reason: &'static str,
    /// The order of the folio at an offset into the memory.
    pub order: fn(u64) -> u8,
    /// The reason why older kernels cannot run this, and the first tested kernel that can. None: all can.
    pub since: Option<(&'static str, (u32, u32))>,
    /// Pages that must move.
    pub moving: Moving,
    /// The source and the target node; the workload's memory is on the first one.
    pub nodes: (u32, u32),
    /// The beginning of the actor's name. None: the workload itself moves the pages.
    pub actor: Option<&'static str>,
    /// Only the child that was forked last is requested, of all processes that share the pages.
    pub of_youngest: bool,
    /// The number of lines for each folio that moves: one for each run of its pages that a page table maps.
    pub runs: usize,
}

/// The number of pages.
pub enum Moving {
    All,
    Exactly(usize),
    AtLeast(usize),
}

impl Moving {
    fn fits(&self, moved: usize, pages: usize) -> bool {
        match self {
            Self::All => moved == pages,
            Self::Exactly(count) => moved == *count,
            Self::AtLeast(count) => moved >= *count,
        }
    }
}

impl Scenario {
    pub const BASE: Self = Self {
        pages: "base",
        call: "move_pages",
        mib: 8,
        reason: "syscall_or_cpuset",
        order: |_| 0,
        since: None,
        moving: Moving::All,
        nodes: (0, 1),
        actor: None,
        of_youngest: false,
        runs: 1,
    };
}

pub const OVERFLOW: &[Case] = &[Case {
    name: "kinds/ring_overflow",
    what: "a ring that is far too small: reported moves are true, missing ones are counted to the page",
    needs: NEEDS,
    run: ring_overflow,
}];

pub const AGAIN: &[Case] = &[
    Case {
        name: "kinds/moved_twice_one_of_six",
        what: "pages that six processes share move there and back: each move is reported once, for the requested process",
        needs: NEEDS,
        run: |env| again(env, "move_pages_and_back", 2, "exact"),
    },
    Case {
        name: "kinds/moved_twice_one_of_six_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| again(env, "move_pages_and_back", 2, "tracepoint"),
    },
    Case {
        name: "kinds/moved_without_one_of_six",
        what: "the requested process of the six unmaps the pages between the moves: the second move is not reported",
        needs: NEEDS,
        run: |env| again(env, "move_pages_and_without_youngest", 1, "exact"),
    },
    Case {
        name: "kinds/moved_without_one_of_six_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| again(env, "move_pages_and_without_youngest", 1, "tracepoint"),
    },
    Case {
        name: "kinds/without_kcore_tracepoint",
        what: "pages that six processes share, and /proc/kcore cannot be read: owners come from the kernel all the same",
        needs: NEEDS,
        run: without_kcore,
    },
];

fn without_kcore(env: &Env) -> Result<Outcome> {
    const KCORE: &str = "/proc/kcore";
    mount_bind("/dev/null", KCORE).with_context(|| format!("cover {KCORE}"))?;
    let shared = Scenario {
        pages: "shared_by_six",
        mib: 1,
        of_youngest: true,
        ..Scenario::BASE
    };
    let outcome = check(env, &shared, "tracepoint");
    unmount(KCORE, UnmountFlags::empty()).with_context(|| format!("uncover {KCORE}"))?;
    outcome
}

macro_rules! kinds {
    ($($name:ident: $what:literal, $scenario:expr;)*) => {
        pub const CASES: &[Case] = &[
            $(
                Case {
                    name: concat!("kinds/", stringify!($name)),
                    what: $what,
                    needs: NEEDS,
                    run: |env| check(env, &$scenario, "exact"),
                },
                Case {
                    name: concat!("kinds/", stringify!($name), "_tracepoint"),
                    what: concat!($what, ", tracepoint backend"),
                    needs: NEEDS,
                    run: |env| check(env, &$scenario, "tracepoint"),
                },
            )*
        ];
    };
}

kinds! {
    move_pages: "move_pages(2) of base pages", Scenario::BASE;
    move_pages_mthp: "move_pages(2) of folios of each order between base pages and huge pages",
        Scenario {
            pages: "mthp", mib: 2 * MTHP.len(), order: mthp_order,
            since: Some(("anonymous folios of such orders came with 6.8", (6, 12))), ..Scenario::BASE
        };
    move_pages_thp: "move_pages(2) of huge pages", Scenario { pages: "thp", order: |_| 9, ..Scenario::BASE };
    move_pages_pte_mapped_thp: "move_pages(2) of huge pages in three VMAs each",
        Scenario { pages: "pte_mapped_thp", order: |_| 9, runs: 3, ..Scenario::BASE };
    move_pages_thp_fork_shared: "move_pages(2) of huge pages that two processes share by fork",
        Scenario { pages: "thp_fork_shared", order: |_| 9, runs: 2, ..Scenario::BASE };
    move_pages_thp_file_shared: "move_pages(2) of huge pages of tmpfs that two processes map",
        Scenario { pages: "thp_file_shared", order: |_| 9, runs: 2, ..Scenario::BASE };
    move_pages_hugetlb: "move_pages(2) of hugetlb pages", Scenario { pages: "hugetlb", order: |_| 9, ..Scenario::BASE };
    move_pages_hugetlb_shared: "move_pages(2) of hugetlb pages of a file",
        Scenario { pages: "hugetlb_shared", order: |_| 9, ..Scenario::BASE };
    move_pages_fork_shared: "move_pages(2) of pages that two processes share by fork",
        Scenario { pages: "fork_shared", runs: 2, ..Scenario::BASE };
    move_pages_one_of_six: "move_pages(2) of pages that six processes share by fork; only the last is requested",
        Scenario { pages: "shared_by_six", mib: 1, of_youngest: true, ..Scenario::BASE };
    move_pages_file_shared: "move_pages(2) of tmpfs pages that two processes map",
        Scenario { pages: "file_shared", runs: 2, ..Scenario::BASE };
    move_pages_file_twice: "move_pages(2) of tmpfs pages that one process maps twice: a line for each address",
        Scenario { pages: "file_twice", runs: 2, ..Scenario::BASE };
    move_pages_prot_none: "move_pages(2) of pages in a mapping that was made PROT_NONE",
        Scenario {
            pages: "prot_none",
            // include/linux/mm.h, `gup_can_follow_protnone`.
            since: Some(("from 6.1 to 6.5 move_pages finds no page in a PROT_NONE mapping", (6, 12))), ..Scenario::BASE
        };
    mbind: "mbind(2)", Scenario { call: "mbind", reason: "mempolicy_mbind", ..Scenario::BASE };
    mbind_prot_none: "mbind(2) of pages in a mapping that was made PROT_NONE",
        Scenario { pages: "prot_none", call: "mbind", reason: "mempolicy_mbind", ..Scenario::BASE };
    mbind_thp_prot_none: "the same with huge pages",
        Scenario { pages: "thp_prot_none", order: |_| 9, call: "mbind", reason: "mempolicy_mbind", ..Scenario::BASE };
    migrate_pages: "migrate_pages(2)", Scenario { call: "migrate_pages", ..Scenario::BASE };
    soft_offline: "MADV_SOFT_OFFLINE of base pages",
        Scenario { call: "soft_offline", mib: 1, reason: "memory_failure", nodes: (0, 0), ..Scenario::BASE };
    pinned: "pages that are pinned do not move, and no move is reported",
        Scenario { call: "move_pinned", mib: 0, moving: Moving::Exactly(0), ..Scenario::BASE };
}

pub fn check(env: &Env, scenario: &Scenario, backend: &str) -> Result<Outcome> {
    if let Some((lack, _)) = scenario.since.filter(|(_, first)| env.version() < *first) {
        return Ok(Outcome::NotApplicable(lack.into()));
    }
    let mut worker = Worker::spawn(
        "mover",
        &[
            scenario.pages,
            scenario.call,
            &scenario.mib.to_string(),
            &scenario.nodes.0.to_string(),
        ],
    )?;
    worker.wait_ready(SOON)?;
    let pid = if scenario.of_youngest {
        worker.youngest_child()?
    } else {
        worker.pid()
    };
    let tracing = Tracing::start(&env.tracer, &["-p", &pid.to_string(), "--backend", backend])?;
    worker.mark(SOON)?;
    let asked = Instant::now();
    let truth = Reports::parse(&worker.request("move", SOON)?)?;
    let took = asked.elapsed();
    let trace = tracing.finish()?;
    let truth = if scenario.of_youngest {
        truth.only_of(pid)?
    } else {
        truth
    };
    let traced: Vec<u32> = truth.0.iter().map(|(pid, _)| *pid).collect();
    trace.ensure_only(&traced)?;
    for (pid, report) in &truth.0 {
        let pages = ((report.end - report.start) as usize) / rustix::param::page_size();
        let moved = report.moves.len();
        ensure!(
            scenario.moving.fits(moved, pages),
            "{moved} of {pages} pages of {pid} moved: nothing is proven"
        );
        ensure_same(&trace, *pid, report)?;
        let mine = |line: &&MoveLine| line.pid == Some(*pid) && report.range().contains(&line.vaddr.0);
        // The daemon may decide to compact. The workload saw the result of that.
        let (daemons, moves): (Vec<&MoveLine>, Vec<_>) = trace.moves.iter().filter(mine).partition(|line| {
            let actor = line.actor_comm.as_deref().unwrap_or_default();
            line.reason == "compaction" && actor.starts_with("kcompactd")
        });
        for line in moves {
            ensure!(line.reason == scenario.reason, "reason: {line:?}");
            match scenario.actor {
                None => ensure!(line.actor_pid == worker.pid(), "actor: {line:?}"),
                Some(start) => {
                    let name = line.actor_comm.as_deref().unwrap_or_default();
                    ensure!(name.starts_with(start), "actor: {line:?}");
                }
            }
            let again = daemons.iter().any(|other| other.vaddr.0 == line.vaddr.0);
            ensure!(line.verdict == "confirmed" || again, "verdict: {line:?}");
            ensure!(
                line.owner_source.as_deref() == Some("kernel"),
                "owner's source: {line:?}"
            );
            if backend == "exact" {
                let order = (scenario.order)(line.vaddr.0 - report.start);
                ensure!(line.order == order, "order, not {order}: {line:?}");
                ensure!(
                    line.blackout_ns
                        .is_some_and(|nanos| nanos > 0 && u128::from(nanos) < took.as_nanos())
                        || line.blackout_ns.is_none() && trace.summary.lost.missed_detail_runs > 0,
                    "blackout, of a move that took {took:?}: {line:?}"
                );
            }
            let (from, to) = scenario.nodes;
            ensure!(
                (line.old_node, line.new_node) == (Some(from), Some(to)),
                "nodes: {line:?}"
            );
        }
    }
    if backend == "exact" {
        trace.ensure_exact_books()?;
        if !scenario.of_youngest {
            ensure_numbered(&trace.moves, &truth, scenario.reason, scenario.runs)?;
        }
    } else {
        trace.ensure_sound()?;
        trace.ensure_each_page_once(false)?;
        ensure_one_first(&trace.moves)?;
    }
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

/// Checks that the lines of a folio are numbered from 1 to the number of its runs: this lets a reader count folios.
pub fn ensure_numbered(lines: &[MoveLine], truth: &Reports, reason: &str, runs: usize) -> Result<()> {
    let mut folios: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.reason == reason) {
        let mine = |(pid, report): &(u32, Report)| line.pid == Some(*pid) && report.range().contains(&line.vaddr.0);
        if !truth.0.iter().any(mine) {
            continue;
        }
        let (Some(old), Some(new), Some(nth)) = (line.old_pfn, line.new_pfn, line.nth) else {
            bail!("no frame, or no number: {line:?}")
        };
        folios
            .entry((old.0 >> line.order, new.0 >> line.order))
            .or_default()
            .push(nth);
    }
    for (frames, mut numbers) in folios {
        numbers.sort_unstable();
        ensure!(
            numbers.iter().map(|nth| usize::from(*nth)).eq(1..=runs),
            "{} lines, not {runs}, of the folio that went from block {:#x} to {:#x}: {numbers:?}",
            numbers.len(),
            frames.0,
            frames.1
        );
    }
    Ok(())
}

/// Checks, for the tracepoint backend, that each move of a page, told by its frames, has a line with number 1.
pub fn ensure_one_first(lines: &[MoveLine]) -> Result<()> {
    let mut pages: BTreeMap<_, BTreeMap<u8, u64>> = BTreeMap::new();
    for line in lines {
        let (Some(old), Some(new), Some(nth)) = (line.old_pfn, line.new_pfn, line.nth) else {
            bail!("no frame, or no number: {line:?}")
        };
        for page in 0..line.pages {
            let numbers = pages.entry((old.0 + page, new.0 + page)).or_default();
            *numbers.entry(nth).or_default() += 1;
        }
    }
    let wrong = pages
        .iter()
        .find(|(_, numbers)| !numbers.contains_key(&1) || numbers.keys().any(|nth| *nth > 2));
    ensure!(wrong.is_none(), "frames and how many lines of each number: {wrong:x?}");
    Ok(())
}

/// Checks that each page has `moves` lines, and that they match the child's pagemap.
fn again(env: &Env, call: &str, moves: u64, backend: &str) -> Result<Outcome> {
    let mut worker = Worker::spawn("mover", &["shared_by_six", call, "1"])?;
    worker.wait_ready(SOON)?;
    let pid = worker.youngest_child()?;
    let args = ["-p", &pid.to_string(), "--backend", backend];
    let (truth, trace) = Trace::during(&env.tracer, &args, &mut worker, "move", SOON)?;
    let truth = truth.only_of(pid)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    trace.ensure_only(&[pid])?;
    let range = report.range();
    let told = trace.moves.iter().filter(|line| range.contains(&line.vaddr.0));
    let told: u64 = told.map(|line| line.pages).sum();
    let pages = range.step_by(rustix::param::page_size()).count() as u64;
    ensure!(
        told == moves * pages,
        "{told} lines for {pages} pages that moved {moves} times"
    );
    ensure_same(&trace, pid, report)?;
    if backend == "exact" {
        trace.ensure_exact_books()?;
    } else {
        trace.ensure_sound()?;
        trace.ensure_each_page_once(false)?;
    }
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

fn ring_overflow(env: &Env) -> Result<Outcome> {
    let mut worker = Worker::spawn("mover", &["base", "move_pages", "8"])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let args = ["-p", &pid.to_string(), "--ring-size", "4K", "--backend", "exact"];
    let (truth, trace) = Trace::during(&env.tracer, &args, &mut worker, "move", SOON)?;
    let [(_, truth)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    trace.ensure_only(&[pid])?;
    let seen = trace.of(pid, truth.range())?;
    for (vaddr, moved) in &seen.0 {
        ensure!(
            truth.moves.0.get(vaddr) == Some(moved),
            "invented: {vaddr:#x} {moved:x?}"
        );
    }
    let lost = &trace.summary.lost;
    println!(
        "{} pages moved, {} reported, {} lost",
        truth.moves.len(),
        seen.len(),
        lost.mapping_pages
    );
    ensure!(lost.events > 0, "a ring of 4 KiB held 2,048 events: nothing is proven");
    ensure!(
        (seen.len() as u64 + lost.mapping_pages) == truth.moves.len() as u64,
        "{} reported and {lost:?} of {}",
        seen.len(),
        truth.moves.len()
    );
    ensure!(trace.status.code() == Some(1), "exit code: {}", trace.status);
    ensure!(
        trace.summary.books.imbalance == Some(0),
        "the books: {:?}",
        trace.summary.books
    );
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}
