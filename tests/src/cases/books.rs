//! The books: every second and the whole run balance to the page. If they cannot, `--strict` reports it.
//! Input: all kinds of moves at once; page cache that nobody maps; tracer's own account of them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use tracer_tests_report::shape::Shape;

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::kinds::ensure_one_first;
use crate::cases::moves::{balance_eagerly, ensure_same};
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::tracer::lines::{Check, MoveLine};
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::{Report, vmstat};
use crate::worker::Worker;
use crate::workloads::zram;

const SOON: Duration = Duration::from_mins(1);
const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };

pub const CASES: &[Case] = &[
    Case {
        name: "books/everything_at_once",
        what: "NUMA balancing, compaction, move_pages of THP and hugetlb at once: each second and every count agree",
        // Three tries: killed in one of them, it would leave NUMA balancing on for the cases after it.
        needs: Needs {
            timeout: Duration::from_mins(5),
            ..NEEDS
        },
        run: |env| Outcome::of_tries(3, "the kernel skipped programs", || everything_at_once(env)),
    },
    Case {
        name: "books/rows",
        what: "pages move before tracing, during it and after it: rows and books are of the same calls",
        needs: NEEDS,
        run: |env| rows(env, "exact"),
    },
    Case {
        name: "books/rows_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NEEDS,
        run: |env| rows(env, "tracepoint"),
    },
    Case {
        name: "books/shared_by_eleven_tracepoint",
        what: "pages that eleven processes share: each is one page in the books, of all processes and of one of them",
        needs: NEEDS,
        run: shared_by_eleven,
    },
    Case {
        name: "books/pinned",
        what: "pages that cannot move: the kernel's count of failures equals the sum over its calls",
        needs: NEEDS,
        run: pinned,
    },
    Case {
        name: "books/unmapped_page_cache",
        what: "page cache that nobody maps is in the exact books: exit code 0 with --strict",
        needs: Needs::VM,
        run: |env| Outcome::of_tries(3, NOTHING_UNMAPPED, || unmapped_page_cache(env, "exact", true, 0)),
    },
    Case {
        name: "books/unmapped_page_cache_tracepoint",
        what: "the tracepoint backend cannot see it, and reports that: exit code 0",
        needs: Needs::VM,
        run: |env| Outcome::of_tries(3, NOTHING_UNMAPPED, || unmapped_page_cache(env, "tracepoint", false, 0)),
    },
    Case {
        name: "books/unmapped_page_cache_strict",
        what: "the same with --strict: exit code 1",
        needs: Needs::VM,
        run: |env| Outcome::of_tries(3, NOTHING_UNMAPPED, || unmapped_page_cache(env, "tracepoint", true, 1)),
    },
    Case {
        name: "books/zram",
        what: "pages of zram, a driver, move: the exact books have them, too",
        needs: Needs {
            shape: Shape::Movable,
            ..NEEDS
        },
        run: zram,
    },
];

const THP_MIB: u64 = 16;
const BALANCED_MIB: u64 = 48;

/// Whether the kernel ran every program. A kernel that may preempt programs skips some of them: the run reports it, and
/// proves nothing.
fn everything_at_once(env: &Env) -> Result<bool> {
    // Huge pages come first, while there are some.
    let mut movers = Vec::new();
    for pages in ["hugetlb", "thp"] {
        let mut mover = Worker::spawn("mover", &[pages, "move_pages", &THP_MIB.to_string()])?;
        mover.wait_ready(SOON)?;
        numa::run_first(mover.pid(), 1)?;
        movers.push(mover);
    }
    let mut balanced = Worker::spawn("balanced", &[&BALANCED_MIB.to_string(), "base"])?;
    balanced.wait_ready(SOON)?;
    let mut punched = Worker::spawn("punched", &["48"])?;
    punched.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--strict", "--backend", "exact"])?;
    // The movers are on CPU 0, compaction and the balanced pages on CPU 1. Where the kernel preempts tasks inside programs,
    // tracer attaches each program twice, which is enough for two of these a CPU, not for more: none but the balanced pages
    // (the kernel balances no thread with real-time priority) is preempted by one of the others.
    // tracer, which moves nothing, comes before all of them, to close its seconds.
    numa::run_on(1)?;
    numa::run_first(0, 1)?;
    numa::run_first(tracing.pid(), 2)?;
    for worker in movers.iter_mut().chain([&mut balanced]) {
        worker.mark(SOON)?;
    }
    balance_eagerly()?;
    let moved = move_at_once(&mut movers, &mut balanced);
    fs::write("/proc/sys/kernel/numa_balancing", "0").context("switch NUMA balancing off")?;
    moved?;
    let trace = tracing.finish()?;
    for worker in movers.into_iter().chain([balanced, punched]) {
        worker.exit(SOON)?;
    }
    println!("{:?}", trace.summary.lost);
    if trace.summary.lost.missed_runs > 0 {
        ensure!(trace.status.code() == Some(1), "nobody said so: {}", trace.status);
        return Ok(false);
    }
    trace.ensure_exact_books()?;
    ensure_each_second(&trace)?;
    let books = &trace.summary.books;
    ensure!(books.proven, "the books: {books:?}");
    let at_least = |name: &str, least: u64| {
        let check = find(&books.checks, name)?;
        ensure!(check.kernel >= least, "{check:?}, not {least}: nothing is proven");
        Ok(())
    };
    at_least("thp_migration_success", THP_MIB / 2)?;
    // Compaction may have moved some of them, or kept the kernel from moving them.
    at_least("numa_pages_migrated", BALANCED_MIB << 6)?;
    ensure!(
        trace.moves.iter().any(|line| line.reason == "compaction"),
        "compaction moved nothing that is mapped: nothing is proven"
    );
    Ok(true)
}

/// Moves everything at the same time, and compacts until the others are done, for some seconds at least.
fn move_at_once(movers: &mut [Worker], balanced: &mut Worker) -> Result<()> {
    balanced.send("balance")?;
    for mover in &mut *movers {
        mover.send("move")?;
    }
    let started = Instant::now();
    thread::scope(|scope| {
        let others = scope.spawn(|| -> Result<()> {
            for worker in movers.iter_mut().chain([balanced]) {
                worker.read_line(SOON)?;
            }
            Ok(())
        });
        while !others.is_finished() || started.elapsed() < Duration::from_secs(5) {
            fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
            thread::sleep(Duration::from_millis(200));
        }
        others.join().map_err(|_| anyhow::anyhow!("the readers panicked"))?
    })
}

/// Checks that each second balances, and that the seconds together are the run.
fn ensure_each_second(trace: &Trace) -> Result<()> {
    let books = &trace.summary.books;
    let intervals = &trace.intervals;
    println!("{} intervals; {:?}", intervals.len(), books.checks);
    ensure!(
        intervals.len() >= 3 && books.intervals.closed == intervals.len() as u64,
        "{} intervals are reported, {:?} counted",
        intervals.len(),
        books.intervals
    );
    let mut end = 0;
    for interval in intervals {
        ensure!(
            end <= interval.begin_ns && interval.begin_ns < interval.end_ns,
            "after {end}: {interval:?}"
        );
        end = interval.end_ns;
        let wrong = interval.checks.iter().any(|check| check.exact && check.difference != 0);
        ensure!(
            interval.balanced && interval.settled && interval.imbalance == Some(0) && !wrong,
            "does not balance: {interval:?}"
        );
        ensure!(interval.lost_events == 0, "lost: {interval:?}");
    }
    let sum = intervals.iter().map(|interval| interval.kernel_pages).sum();
    ensure!(
        books.kernel_pages == sum,
        "{:?} pages in the run, {sum:?} in its seconds",
        books.kernel_pages
    );
    for check in &books.checks {
        let parts = |of: fn(&Check) -> u64| -> Result<u64> {
            let each = intervals
                .iter()
                .map(|interval| find(&interval.checks, &check.name).map(of));
            each.sum()
        };
        let sums = (parts(|check| check.kernel)?, parts(|check| check.seen)?);
        ensure!(
            !check.exact || sums == (check.kernel, check.seen),
            "{check:?} in the run, {sums:?} in its seconds"
        );
    }
    Ok(())
}

fn find<'a>(checks: &'a [Check], name: &str) -> Result<&'a Check> {
    let found = checks.iter().find(|check| check.name == name);
    found.with_context(|| format!("no {name} among {checks:?}"))
}

/// Runs of tracer, each of which begins and ends while pages move.
const TRIES: usize = 2;
/// Moved by one call, which may take longer than tracer waits for it at the end.
const MOVED_MIB: usize = 4;
/// Long enough for several calls.
const RUN: Duration = Duration::from_secs(1);

fn rows(env: &Env, backend: &str) -> Result<Outcome> {
    let mut memory = Memory::base_pages(MOVED_MIB << 20)?;
    memory.fill();
    let range = memory.addresses();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let mover = scope.spawn(|| -> Result<()> {
            for node in [1, 0].into_iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                numa::move_pages(range.clone(), node, false)?;
            }
            Ok(())
        });
        let checked = (0..TRIES).try_for_each(|_| rows_once(env, backend));
        done.store(true, Ordering::Relaxed);
        mover.join().map_err(|_| anyhow::anyhow!("the mover panicked"))??;
        checked
    })?;
    Ok(Outcome::Passed)
}

fn rows_once(env: &Env, backend: &str) -> Result<()> {
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", backend])?;
    thread::sleep(RUN);
    let trace = tracing.finish()?;
    let (books, lost) = (&trace.summary.books, &trace.summary.lost);
    ensure!(lost.events == 0, "lost: {lost:?}");
    trace.ensure_rows_in_books()?;
    ensure!(books.unbooked_pages == 0 || !books.proven, "proven: {books:?}");
    Ok(())
}

fn shared_by_eleven(env: &Env) -> Result<Outcome> {
    for everybody in [true, false] {
        let mut worker = Worker::spawn("mover", &["shared_by_eleven", "move_pages", "4"])?;
        worker.wait_ready(SOON)?;
        let youngest = worker.youngest_child()?.to_string();
        let of: &[&str] = if everybody { &["-a"] } else { &["-p", &youngest] };
        let args = [of, &["--backend", "tracepoint"]].concat();
        let (truth, trace) = Trace::during(&env.tracer, &args, &mut worker, "move", SOON)?;
        worker.exit(SOON)?;
        ensure!(truth.0.len() == 11, "{} processes map the pages", truth.0.len());
        let moves = truth.0.iter().flat_map(|(_, report)| report.moves.0.values());
        let moved: BTreeSet<_> = moves.map(|moved| (moved.old, moved.new)).collect();
        ensure!(moved.len() == 4 << 8, "{} pages moved: nothing is proven", moved.len());
        trace.ensure_sound()?;
        trace.ensure_each_page_once(everybody)?;
        ensure_one_first(&trace.moves)?;
        // Others' pages may have moved, too.
        let theirs = |line: &&MoveLine| {
            let frames = line.old_pfn.zip(line.new_pfn);
            frames.is_some_and(|(old, new)| moved.contains(&(old.0, new.0)))
        };
        let (theirs, others): (Vec<_>, Vec<_>) = trace.moves.iter().partition(theirs);
        let mappings = moved.len() * if everybody { 11 } else { 1 };
        ensure!(theirs.len() == mappings, "{} lines, not {mappings}", theirs.len());
        let others: u64 = others
            .iter()
            .filter(|line| line.nth == Some(1))
            .map(|line| line.pages)
            .sum();
        let books = &trace.summary.books;
        ensure!(
            books.reported_pages == moved.len() as u64 + others && trace.summary.pages == books.reported_pages,
            "{} pages of theirs and {others} others, {} in all: {books:?}",
            moved.len(),
            trace.summary.pages
        );
    }
    Ok(Outcome::Passed)
}

fn pinned(env: &Env) -> Result<Outcome> {
    let mut worker = Worker::spawn("mover", &["base", "move_pinned", "0"])?;
    worker.wait_ready(SOON)?;
    let args = ["-a", "--strict", "--backend", "exact"];
    let (_, trace) = Trace::during(&env.tracer, &args, &mut worker, "move", SOON)?;
    trace.ensure_exact_books()?;
    let failed = find(&trace.summary.books.checks, "pgmigrate_fail")?;
    ensure!(failed.kernel >= 16 && failed.difference == 0, "{failed:?}");
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

/// Fewer pages than this may belong to other processes.
const ENOUGH: u64 = 1000;
const NOTHING_UNMAPPED: &str = "nothing unmapped moved: nothing is proven";

/// Whether page cache moved that nobody maps: compaction may have found enough else to move.
fn unmapped_page_cache(env: &Env, backend: &str, strict: bool, code: i32) -> Result<bool> {
    let _file = punched_file(64 << 20)?;
    let mut args = vec!["-a", "--backend", backend];
    args.extend(strict.then_some("--strict"));
    let tracing = Tracing::start(&env.tracer, &args)?;
    let before = vmstat("pgmigrate_success")?;
    for _ in 0..20 {
        if vmstat("pgmigrate_success")? - before > ENOUGH {
            break;
        }
        fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
    }
    let trace = tracing.finish()?;
    let books = &trace.summary.books;
    println!("{books:?}");
    let invisible = match backend {
        "exact" => books.unmapped_pages,
        _ => u64::try_from(books.imbalance.context("no imbalance")?).context("more was seen than moved")?,
    };
    ensure!(books.balanced, "{books:?}");
    if invisible <= ENOUGH / 2 {
        return Ok(false);
    }
    ensure!(
        trace.status.code() == Some(code),
        "exit code {}, not {code}; books {books:?}; stderr: {}",
        trace.status,
        trace.stderr
    );
    let said = trace.stderr.contains("--strict: ") && trace.stderr.contains("this backend cannot see");
    ensure!(said == (code == 1), "what is wrong: {}", trace.stderr);
    ensure!(books.proven == (backend == "exact"), "{books:?}");
    Ok(true)
}

/// A driver moves its own pages: within `move_to_new_folio`, and since 6.17 (and 6.12.86) without it.
fn zram(env: &Env) -> Result<Outcome> {
    if !fs::exists(zram::MODULE)? {
        return Ok(Outcome::NotApplicable(
            "the initramfs has no module zram of this kernel".to_owned(),
        ));
    }
    let mut worker = Worker::spawn("zram", &[])?;
    let pid = worker.pid();
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--strict", "--backend", "exact"])?;
    let truth = Report::parse(&worker.request("offline", SOON)?)?;
    let trace = tracing.finish()?;
    worker.exit(SOON)?;
    ensure_same(&trace, pid, &truth)?;
    trace.ensure_exact_books()?;
    let books = &trace.summary.books;
    let seen = trace.unmapped.iter().filter(|line| line.file.is_none()).count() as u64;
    println!("{seen} pages of no file, {} released; {books:?}", books.released_pages);
    let (most, least) = (seen.max(books.released_pages), seen.min(books.released_pages));
    ensure!(most > ENOUGH && least < ENOUGH, "{most} and {least} pages; {books:?}");
    Ok(Outcome::Passed)
}

/// A file in memory that keeps every fourth page, so that there is room to compact. Nobody maps it.
fn punched_file(len: u64) -> Result<File> {
    let file = File::from(memfd_create("books", MemfdFlags::CLOEXEC).context("make a file in memory")?);
    let piece = vec![1; 1 << 20];
    // Compaction moves pages up, and pages at the top stay. The kernel hands out the top first, so ballast takes it.
    let ballast = File::from(memfd_create("ballast", MemfdFlags::CLOEXEC).context("make a file in memory")?);
    for at in (0..len).step_by(piece.len()) {
        ballast.write_all_at(&piece, at).context("fill the ballast")?;
    }
    for at in (0..len).step_by(piece.len()) {
        file.write_all_at(&piece, at).context("fill the file")?;
    }
    drop(ballast);
    let page = rustix::param::page_size() as u64;
    for at in (0..len).step_by(4 * rustix::param::page_size()) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, at + page, 3 * page).context("punch the file")?;
    }
    Ok(file)
}
