//! Recordings: their content equals what happened, and can be read back from a damaged file, too.
//! Input: tracer; the workload `recorder` for the cases of the file alone.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::case::{Case, Env, Needs, Outcome, Site};
use crate::product::{End, Event, Item, Missing, Nanos, RecordingFile, Step, now};
use crate::tracer::invocation::{Ended, Program, SOON, run, tracer};
use crate::tracer::lines::{CompactionLine, FailureLine, MoveLine};
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::Reports;
use crate::worker::Worker;

const ROOT: Needs = Needs {
    root: true,
    ..Needs::NOTHING
};
/// The cases are about the file alone, and start many processes: this is slow with one emulated CPU.
const HOST: Needs = Needs {
    site: Site::Host,
    ..Needs::NOTHING
};
const NODES: Needs = Needs { nodes: 2, ..Needs::VM };

pub const CASES: &[Case] = &[
    Case {
        name: "recording/moves",
        what: "record, then cat --json: the moves of the workload, exactly, and the books of the run",
        needs: NODES,
        run: |env| moves(env, "exact"),
    },
    Case {
        name: "recording/moves_tracepoint",
        what: "the same with the tracepoint backend",
        needs: NODES,
        run: |env| moves(env, "tracepoint"),
    },
    Case {
        name: "recording/nodes",
        what: "moves between nodes, failures and passes of compaction, all three in a small recording, which is sent",
        needs: NODES,
        run: nodes,
    },
    Case {
        name: "recording/killed",
        what: "SIGKILL at 200 moments: every file is readable, and at most a second is missing and reported",
        needs: HOST,
        run: killed,
    },
    Case {
        name: "recording/disk_full",
        what: "a full disk ends the recording with an error; everything before is complete",
        needs: Needs::VM,
        run: disk_full,
    },
    Case {
        name: "recording/rotated",
        what: "the requested number of full files is kept, each readable on its own; without rotation, the first one ends the recording",
        needs: Needs::NOTHING,
        run: rotated,
    },
    Case {
        name: "recording/files",
        what: "the file is for its owner alone; it never replaces another, follows no link, and is not written to a terminal",
        needs: ROOT,
        run: files,
    },
    Case {
        name: "recording/unwritable",
        what: "a full device or a limit of the process is an error, and the written part is complete; a reader that closes the pipe is none",
        needs: ROOT,
        run: unwritable,
    },
    Case {
        name: "recording/pipe",
        what: "record -o - into cat -: the same as without the pipe",
        needs: ROOT,
        run: pipe,
    },
];

/// The content of a recording.
#[derive(Default)]
struct Found {
    /// The time of each event, and the number that the workload gave it.
    events: Vec<(Nanos, u64)>,
    end: Option<End>,
    missing: Vec<Missing>,
}

fn read(path: &Path) -> Result<Found> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut recording = RecordingFile::new(file)?;
    let mut found = Found::default();
    while let Some(item) = recording
        .next_item()
        .with_context(|| format!("read {}", path.display()))?
    {
        match item {
            Item::Events => {
                let mut events = recording.events();
                while let Some(step) = events.next() {
                    match step {
                        Step::Event(Event::Move(moved)) => found.events.push((moved.at, moved.vaddr.0 >> 12)),
                        Step::Event(event) => bail!("not a move: {event:?}"),
                        Step::Turn => {}
                    }
                }
            }
            Item::End(end) => found.end = Some(*end),
            Item::Missing(missing) => found.missing.push(missing),
            Item::Begin(_) | Item::Interval(_) | Item::Unknown => {}
        }
    }
    Ok(found)
}

fn moves(env: &Env, backend: &str) -> Result<Outcome> {
    let path = env.scratch.join("moves.data");
    let path = path.to_string_lossy();
    let mut worker = Worker::spawn("mover", &["base", "move_pages", "16"])?;
    worker.wait_ready(SOON)?;
    let pid = worker.pid();
    let target = ["-p", &pid.to_string(), "--backend", backend].map(str::to_owned);
    let recording = Tracing::start_as(&env.tracer, &["record", "-o", &path], &target)?;
    worker.mark(SOON)?;
    let truth = Reports::parse(&worker.request("move", SOON)?)?;
    let (status, said) = recording.finish_silently()?;
    worker.exit(SOON)?;
    ensure!(status.success(), "{status}: {said}");
    let shown = run(tracer(env, &["cat", "--json", &path]))?;
    ensure!(shown.status.code() == Some(0), "cat: {shown:?}");
    let trace = Trace::read(&shown.stdout, shown.stderr.clone(), status)?;
    let [(owner, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure!(*owner == pid && report.moves.len() == 4096, "nothing is proven");
    let seen = trace.of(pid, report.range())?;
    ensure!(seen == report.moves, "{} moves of {}", seen.len(), report.moves.len());
    trace.ensure_sound()?;
    let info = run(tracer(env, &["info", &path]))?;
    ensure!(
        info.status.code() == Some(0) && info.stdout.contains(": whole;"),
        "info: {info:?}"
    );
    let rows = run(tracer(env, &["cat", &path]))?;
    ensure!(
        rows.stdout.contains("16.0 MiB in 4,096 pages moved"),
        "rows: {}",
        rows.stdout
    );
    Ok(Outcome::Passed)
}

/// The recording is of the exact backend: one of its kind is among the golden ones.
fn nodes(env: &Env) -> Result<Outcome> {
    let path = env.scratch.join("nodes.data");
    let text = path.to_string_lossy();
    let mut movers = [("move_pages", "1"), ("move_pinned", "0")]
        .map(|(call, mib)| Worker::spawn("mover", &["base", call, mib]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    for mover in &mut movers {
        mover.wait_ready(SOON)?;
    }
    let all = ["-a", "--backend", "exact"].map(str::to_owned);
    let recording = Tracing::start_as(&env.tracer, &["record", "-o", &text], &all)?;
    let mut truth = Vec::new();
    for mover in &mut movers {
        mover.mark(SOON)?;
        truth.extend(Reports::parse(&mover.request("move", SOON)?)?.0);
    }
    fs::write("/sys/devices/system/node/node1/compact", "1").context("compact a node")?;
    let (status, said) = recording.finish_silently()?;
    for mover in movers {
        mover.exit(SOON)?;
    }
    ensure!(status.success(), "{status}: {said}");
    let shown = run(tracer(env, &["cat", "--json", &text]))?;
    shown.ensure_code(0)?;
    let mut trace = Trace::read(&shown.stdout, shown.stderr.clone(), status)?;
    let [(mover, moved), (stuck, stayed)] = &truth[..] else {
        bail!("two processes were expected")
    };
    ensure!(moved.moves.len() == 256 && stayed.moves.len() == 0, "nothing is proven");
    let between = |line: &&MoveLine| line.pid == Some(*mover) && line.old_node == Some(0) && line.new_node == Some(1);
    ensure!(trace.moves.iter().any(|line| between(&line)), "no move between nodes");
    let of_stuck = |failure: &&FailureLine| failure.owners.iter().any(|place| place.pid == *stuck);
    ensure!(trace.failures.iter().any(|failure| of_stuck(&failure)), "no failure");
    let own = |run: &&CompactionLine| run.actor_pid == std::process::id() && run.node == Some(1);
    ensure!(trace.compactions.iter().any(|run| own(&run)), "no pass of compaction");
    trace.ensure_sound()?;
    // Compaction after the reports may move the workload's pages, too.
    trace.moves.retain(|line| line.reason == "syscall_or_cpuset");
    ensure!(
        trace.of(*mover, moved.range())? == moved.moves,
        "other moves than happened"
    );
    env.send_file("nodes.data", &path)?;
    Ok(Outcome::Passed)
}

/// The number of recorders at the same time, and the number of times.
const TOGETHER: usize = 8;
const TIMES: u64 = 25;
/// A block is due after a second; the rest of the time is for the machine.
const LOST: Duration = Duration::from_millis(1500);

fn killed(env: &Env) -> Result<Outcome> {
    let mut with_events = 0;
    for time in 0..TIMES {
        let mut recorders = Vec::new();
        for number in 0..TOGETHER {
            let path = env.scratch.join(format!("killed-{time}-{number}.data"));
            let mut worker = Worker::spawn("recorder", &[&path.to_string_lossy(), "0"])?;
            ensure!(worker.read_line(SOON)? == "begun", "it has not begun");
            recorders.push((worker, path));
        }
        // Each time ends at another moment, from before the first block to after the third.
        thread::sleep(Duration::from_millis(time * 100));
        for (worker, path) in recorders {
            thread::sleep(Duration::from_millis(7));
            let killed = now();
            worker.kill()?;
            with_events += usize::from(is_prefix(&path, killed)?);
            fs::remove_file(&path).context("remove the recording")?;
        }
    }
    ensure!(with_events > 50, "{with_events} with events: nothing is proven");
    Ok(Outcome::Passed)
}

/// Whether there are events; they must include all events until shortly before.
fn is_prefix(path: &Path, killed: Nanos) -> Result<bool> {
    let found = read(path)?;
    ensure!(found.end.is_none(), "it has an end");
    let last = found.missing.last().context("nothing is reported as missing")?;
    ensure!(last.what.contains("it has no end"), "{:?}", found.missing);
    let numbers = found.events.iter().map(|(_, number)| *number);
    ensure!(numbers.eq(1..=found.events.len() as u64), "events are missing");
    let Some((at, _)) = found.events.last() else {
        return Ok(false);
    };
    let lost = Duration::from_nanos(killed.0.saturating_sub(at.0));
    ensure!(lost < LOST, "{lost:?} are missing");
    Ok(true)
}

fn disk_full(env: &Env) -> Result<Outcome> {
    let disk = env.scratch.join("disk");
    fs::create_dir(&disk).context("create a directory")?;
    rustix::mount::mount(
        "tmpfs",
        &disk,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        Some(c"size=2m"),
    )
    .context("mount a small tmpfs")?;
    let path = disk.join("full.data");
    let mut worker = Worker::spawn("recorder", &[&path.to_string_lossy(), "1000000"])?;
    ensure!(worker.read_line(SOON)? == "begun", "it has not begun");
    let status = worker.wait(SOON)?;
    let found = read(&path);
    rustix::mount::unmount(&disk, rustix::mount::UnmountFlags::empty()).context("unmount it")?;
    let found = found?;
    ensure!(status.code() == Some(2), "{status}");
    let end = found.end.context("no end")?;
    let [missing] = &found.missing[..] else {
        bail!("{:?}", found.missing)
    };
    ensure!(missing.events == Some(end.unwritten), "{missing:?}, {end:?}");
    let numbers = found.events.iter().map(|(_, number)| *number);
    ensure!(
        !found.events.is_empty() && numbers.eq(1..=end.events) && end.unwritten > 0,
        "{} events: {end:?}",
        found.events.len()
    );
    Ok(Outcome::Passed)
}

fn rotated(env: &Env) -> Result<Outcome> {
    let path = env.scratch.join("rotated.data");
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    let mut worker = Worker::spawn("recorder", &[&path.to_string_lossy(), "1000000", "1000000", "3"])?;
    ensure!(worker.read_line(SOON)? == "begun", "it has not begun");
    ensure!(worker.wait(SOON)?.success(), "it has not ended well");
    ensure!(!numbered(4).exists(), "more than three are kept");
    let mut last = 1_000_000;
    for number in 0..=3 {
        let part = if number == 0 { path.clone() } else { numbered(number) };
        let found = read(&part)?;
        let end = found.end.context("no end")?;
        ensure!(found.missing.is_empty(), "{:?}", found.missing);
        ensure!(end.finished.is_some() == (number == 0), "part {number}: {end:?}");
        // A file ends when the next block, an eighth of it at most, may not fit.
        let size = fs::metadata(&part)?.len();
        ensure!(size <= 1_000_000, "part {number} is too large: {size} bytes");
        ensure!(number == 0 || size > 875_000, "part {number} is not full: {size} bytes");
        // The files continue each other without a gap.
        let Some((_, first)) = found.events.first().copied() else {
            // The file before became full with the very last event.
            ensure!(number == 0, "part {number} has no events");
            continue;
        };
        let numbers = found.events.iter().map(|(_, number)| *number);
        ensure!(numbers.eq(first..=last), "part {number}: {first} to {last}");
        last = first - 1;
    }
    let path = env.scratch.join("limited.data");
    let mut worker = Worker::spawn("recorder", &[&path.to_string_lossy(), "1000000", "1000000", "0"])?;
    ensure!(worker.read_line(SOON)? == "begun", "it has not begun");
    ensure!(!worker.wait(SOON)?.success(), "nobody said that it is full");
    let found = read(&path)?;
    ensure!(
        found.missing.is_empty() && found.end.is_some_and(|end| end.finished.is_some()),
        "not whole: {:?}",
        found.missing
    );
    Ok(Outcome::Passed)
}

fn files(env: &Env) -> Result<Outcome> {
    let path = env.scratch.join("files.data");
    let text = path.to_string_lossy();
    let record = |args: &[&str]| {
        run(tracer(
            env,
            &[&["record", "-a", "-d", "0.1", "-q", "-o"], args].concat(),
        ))
    };
    let first = record(&[&text])?;
    ensure!(first.status.code() == Some(0), "{first:?}");
    let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o600, "mode {mode:o}");
    let again = record(&[&text])?;
    ensure!(
        again.status.code() == Some(2) && again.stderr.contains("--force replaces it"),
        "{again:?}"
    );
    let forced = record(&[&text, "--force"])?;
    ensure!(forced.status.code() == Some(0), "{forced:?}");
    let link = env.scratch.join("link.data");
    symlink(env.scratch.join("elsewhere"), &link).context("make a link")?;
    for args in [&[&*link.to_string_lossy()][..], &[&link.to_string_lossy(), "--force"]] {
        let linked = record(args)?;
        ensure!(
            linked.status.code() == Some(2) && linked.stderr.contains("symbolic link"),
            "{linked:?}"
        );
    }
    ensure!(!env.scratch.join("elsewhere").exists(), "the link was followed");
    let folder = record(&[&env.scratch.to_string_lossy()])?;
    ensure!(folder.status.code() == Some(2), "{folder:?}");
    Ok(Outcome::Passed)
}

/// The largest size of the file, bytes: it has room for headers, but not for many events.
const MAY_HAVE: u64 = 4000;

fn unwritable(env: &Env) -> Result<Outcome> {
    let (limited, fifo) = (env.scratch.join("limited"), env.scratch.join("fifo"));
    let record = |path: &Path| tracer(env, &["record", "-a", "-d", "30", "-q", "-o", &path.to_string_lossy()]);
    let full = run(record(Path::new("/dev/full")))?;
    full.ensure_refused(&["cannot write /dev/full", "No space left"])?;

    let mut command = record(&limited);
    // SAFETY: only a system call.
    unsafe {
        command.pre_exec(|| {
            let (current, maximum) = (Some(MAY_HAVE), Some(MAY_HAVE));
            Ok(setrlimit(Resource::Fsize, Rlimit { current, maximum })?)
        });
    }
    let program = Program::start(command)?;
    let mut punched = Worker::spawn("punched", &["16"])?;
    punched.wait_ready(SOON)?;
    let ended = compacted_to_its_end(program)?;
    ended.ensure_refused(&["cannot write", "File too large"])?;
    let mut recording = RecordingFile::new(File::open(&limited).context("open the recording")?)?;
    while let Some(item) = recording.next_item().context("read the recording")? {
        if let Item::Missing(missing) = item {
            // The end reports it, if there was room for an end.
            let of_the_end = ["no end", "could not be written"];
            ensure!(
                of_the_end.iter().any(|what| missing.what.contains(what)),
                "not whole: {missing:?}"
            );
        }
    }

    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("make a fifo")?;
    // Nobody reads the fifo. tracer waits for a reader until it gets a signal.
    let mut program = Program::start(record(&fifo))?;
    let waits = PathBuf::from(format!("/proc/{}/wchan", program.pid()));
    while fs::read_to_string(&waits).context("where tracer waits")? != "wait_for_partner" {
        ensure!(program.runs()?, "it did not wait for a reader");
        thread::sleep(Duration::from_millis(100));
    }
    program.signal(Signal::TERM)?;
    let ended = program.ended()?;
    ensure!(ended.signal() == Some(Signal::TERM.as_raw()), "{ended}");
    let path = fifo.clone();
    let reader = thread::spawn(move || File::open(path));
    // There is no -q, because the greeting shows when tracer has begun.
    let record = ["record", "-a", "-d", "30", "-o", &fifo.to_string_lossy()];
    let program = Program::attached(tracer(env, &record))?;
    let reader = reader.join().ok().context("a reader")?;
    drop(reader.context("open the fifo")?);
    let ended = compacted_to_its_end(program)?;
    punched.exit(SOON)?;
    ended.ensure_code(0)?;
    ensure!(!ended.stderr.contains("cannot write"), "{}", ended.stderr);
    Ok(Outcome::Passed)
}

/// Waits for the program's end, and compacts memory so that there is always something to record.
fn compacted_to_its_end(mut program: Program) -> Result<Ended> {
    let begun = Instant::now();
    while program.runs()? {
        fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
        thread::sleep(Duration::from_millis(100));
    }
    ensure!(
        begun.elapsed() < Duration::from_secs(30),
        "it ended by its duration alone"
    );
    program.wait()
}

fn pipe(env: &Env) -> Result<Outcome> {
    let mut recording = tracer(env, &["record", "-a", "-d", "2", "-q", "-o", "-"])
        .spawn()
        .context("start tracer record")?;
    let mut cat = tracer(env, &["cat", "-", "--json"]);
    cat.stdin(recording.stdout.take().context("a piped stdout")?);
    let cat = Program::start(cat)?;
    thread::sleep(Duration::from_secs(1));
    let compacted = fs::write("/proc/sys/vm/compact_memory", "1");
    let shown = cat.wait()?;
    let status = recording.wait().context("wait for tracer record")?;
    compacted.context("compact memory")?;
    shown.ensure_code(0)?;
    ensure!(status.success(), "{status}");
    let last = shown.stdout.lines().last().context("no line")?;
    ensure!(last.contains(r#""kind":"summary""#), "the last line: {last}");
    Ok(Outcome::Passed)
}
