//! Every reason for which the kernel itself moves pages: the set of moves must be the truth's.
//! Input: the workload `mover`, which brings the kernel to it and reads its own pagemap.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::case::{Case, Env, Needs, Outcome, Shape};
use crate::cases::kinds::{Kind, Moving, check};
use crate::child::Worker;
use crate::tracing::{Trace, Tracing};
use crate::truth::{Move, Report};

const SOON: Duration = Duration::from_mins(1);

/// Fewer moves than this prove little, where the kernel decides how many it are.
const ENOUGH: Moving = Moving::AtLeast(256);

/// Of so many MiB on node 0 at least 20 are in the block that goes offline. The rest of its movable zone has room for
/// 172, and is given out first once the block has come online again (mm/page_alloc.c, `__free_pages_core`, since 5.10).
/// Others leave room for all of it: of the zone's 300, the initramfs's files take 80 if node 0's CPU unpacked them.
const MORE_THAN_ELSEWHERE: usize = 192;

const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };
const MOVABLE: Needs = Needs {
    shape: Shape::Movable,
    ..NEEDS
};
const TIERED: Needs = Needs {
    shape: Shape::Tiered,
    ..NEEDS
};

macro_rules! reasons {
    ($($name:ident: $what:literal, $needs:expr, $run:expr;)*) => {
        pub const CASES: &[Case] = &[
            $(
                Case {
                    name: concat!("reasons/", stringify!($name)),
                    what: $what,
                    needs: $needs,
                    run: |env| $run(env, "exact"),
                },
                Case {
                    name: concat!("reasons/", stringify!($name), "_tracepoint"),
                    what: concat!($what, ", tracepoint backend"),
                    needs: $needs,
                    run: |env| $run(env, "tracepoint"),
                },
            )*
        ];
    };
}

reasons! {
    soft_offline_thp: "a page of a huge page is retired: the huge page is split, then one page moves", NEEDS,
        |env, backend| check(env, &Kind {
            pages: "thp", call: "soft_offline_middles", reason: "memory_failure", nodes: (0, 0),
            moving: Moving::Exactly(4), ..Kind::BASE
        }, backend);
    cpuset: "a control group gets other nodes, and its processes' pages follow", NEEDS,
        |env, backend| check(env, &Kind { call: "change_cpuset", actor: Some("kworker"), ..Kind::BASE }, backend);
    damon: "DAMON's migrate_cold", NEEDS,
        |env, backend| check(env, &Kind {
            call: "damon_migrate", reason: "damon", actor: Some("kdamond"), moving: ENOUGH,
            since: Some(("DAMON's migrate_cold came with 6.11", (6, 12))), ..Kind::BASE
        }, backend);
    hot_remove: "a memory block is taken offline", MOVABLE,
        |env, backend| check(env, &Kind {
            call: "offline", mib: MORE_THAN_ELSEWHERE, reason: "memory_hotplug", moving: ENOUGH, ..Kind::BASE
        }, backend);
    longterm_pin: "pages that leave a movable zone to be pinned for long", MOVABLE,
        |env, backend| check(env, &Kind {
            call: "pin_for_long", reason: "longterm_pin", nodes: (0, 0), ..Kind::BASE
        }, backend);
    unmapped_cache: "page cache that nobody maps moves: each page by file and place, and the books have it to the page", MOVABLE,
        unmapped_cache;
    demotion: "reclaim demotes to a node without CPUs", TIERED, demotion;
    contig_range: "a gigabyte is emptied to become a page", TIERED,
        |env, backend| check(env, &Kind {
            pages: "thp", call: "gigantic_page", mib: 2200, reason: "contig_range", order: |_| 9, nodes: (1, 1),
            moving: ENOUGH, ..Kind::BASE
        }, backend);
}

fn demotion(env: &Env, backend: &str) -> Result<Outcome> {
    let tiers = fs::read_dir("/sys/devices/virtual/memory_tiering").context("list the memory tiers")?;
    let is_tier = |name: &str| {
        name.strip_prefix("memory_tier")
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    };
    let tiers = tiers.filter(|entry| {
        entry
            .as_ref()
            .is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_tier))
    });
    let tiers = tiers.count();
    if env.version() < (6, 12) {
        ensure!(tiers == 1, "{tiers} memory tiers, where this kernel should make one");
        return Ok(Outcome::NotApplicable(
            "before 6.7 the kernel puts every node into one memory tier, whatever the firmware's HMAT says".into(),
        ));
    }
    ensure!(tiers == 2, "{tiers} memory tiers, not two: the HMAT was not heard");
    let kind = Kind {
        call: "demote",
        mib: 32,
        reason: "demotion",
        moving: ENOUGH,
        ..Kind::BASE
    };
    check(env, &kind, backend)
}

/// The file's pages are some of those that nobody maps; of all these the books must have the number.
fn unmapped_cache(env: &Env, backend: &str) -> Result<Outcome> {
    let path = env.scratch.join("file");
    let mut worker = Worker::spawn("cached", &[&MORE_THAN_ELSEWHERE.to_string(), &path.to_string_lossy()])?;
    worker.wait_ready(SOON)?;
    let metadata = fs::metadata(&path).context("look at the file")?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let place = (format!("{major:02x}:{minor:02x}"), metadata.ino());
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", backend])?;
    worker.send("move")?;
    let answer = worker.read_line(SOON)?;
    let trace = tracing.finish()?;
    worker.exit(SOON)?;
    let (unmapped, report) = answer.split_once(' ').context("two answers")?;
    let unmapped: u64 = unmapped.parse().context("how many pages")?;
    let truth = Report::parse(report)?;
    let moved = truth.moves.len();
    println!(
        "{moved} pages of the file and {unmapped} of anybody moved; {:?}",
        trace.summary.books
    );
    ensure!(moved > 1000, "{moved} pages of the file moved: nothing is proven");
    ensure!(unmapped >= moved as u64, "{moved} pages of the file, {unmapped} in all");
    let books = &trace.summary.books;
    if backend == "exact" {
        trace.ensure_exact_books()?;
        let pages: u64 = trace.unmapped.iter().map(|line| line.pages).sum();
        ensure!(
            books.unmapped_pages == unmapped && pages == unmapped,
            "{unmapped} unmapped pages moved, {pages} reported: {books:?}"
        );
        ensure_same_file(&trace, &place, &truth)
    } else {
        trace.ensure_sound()?;
        ensure!(trace.unmapped.is_empty(), "invented: {:?}", trace.unmapped.first());
        let unseen = books.imbalance.context("the kernel does not count")?;
        ensure!(
            unseen.cast_unsigned() >= unmapped,
            "{unmapped} unmapped pages moved: {books:?}"
        );
        Ok(Outcome::Passed)
    }
}

/// What is reported of the file is what moved of it.
fn ensure_same_file(trace: &Trace, (dev, inode): &(String, u64), truth: &Report) -> Result<Outcome> {
    let page = rustix::param::page_size() as u64;
    let mut seen = BTreeMap::new();
    for line in &trace.unmapped {
        let Some(file) = line
            .file
            .as_ref()
            .filter(|file| (&file.dev, &file.inode) == (dev, inode))
        else {
            continue;
        };
        ensure!(file.name.as_deref() == Some("file"), "name: {line:?}");
        ensure!(line.reason == "memory_hotplug", "reason: {line:?}");
        let (Some(old), Some(new)) = (line.old_pfn, line.new_pfn) else {
            bail!("no frame: {line:?}")
        };
        for at in 0..line.pages {
            let moved = Move {
                old: old.0 + at,
                new: new.0 + at,
            };
            let twice = seen.insert(file.offset + at * page, moved).is_some();
            ensure!(!twice, "moved twice: {line:?}");
        }
    }
    let differ = |(offset, moved): &(&u64, &Move)| truth.moves.0.get(offset) != Some(moved);
    let invented: Vec<_> = seen.iter().filter(differ).take(5).collect();
    ensure!(
        invented.is_empty() && seen.len() == truth.moves.len(),
        "{} of {} pages, invented {invented:x?}",
        seen.len(),
        truth.moves.len()
    );
    Ok(Outcome::Passed)
}
