//! Ways in which runs end: a signal, the clock, the target's exit, a reader that leaves, a kill; each ends completely.
//! Input: a running tracer, and a workload if one is traced.

use std::fs::{self, File};
use std::io::{PipeWriter, Write as _};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Signal, kill_process};

use crate::case::{Case, Env, Needs, Outcome, Site};
use crate::cases::moves::ensure_same;
use crate::machine::fuse::{self, Unanswered};
use crate::machine::provoke;
use crate::product::{Tgid, children};
use crate::tracer::bpf_objects::Loaded;
use crate::tracer::environment::ignoring;
use crate::tracer::invocation::{Program, SOON, run, tracer};
use crate::tracer::trace::Tracing;
use crate::truth::Report;
use crate::worker::Worker;

const ROOT: Needs = Needs {
    root: true,
    ..Needs::NOTHING
};

pub const CASES: &[Case] = &[
    Case {
        name: "ending/signals",
        what: "SIGINT, SIGTERM and SIGHUP end a run with its summary, and leave nothing in the kernel",
        needs: ROOT,
        run: signals,
    },
    Case {
        name: "ending/nohup",
        what: "SIGHUP stays ignored if it was ignored from the start",
        needs: ROOT,
        run: nohup,
    },
    Case {
        name: "ending/killed",
        what: "after SIGKILL the kernel has no program, link or map of tracer's",
        needs: ROOT,
        run: killed,
    },
    Case {
        name: "ending/duration",
        what: "-d ends a run, and not too early",
        needs: ROOT,
        run: duration,
    },
    Case {
        name: "ending/reader_gone",
        what: "when the reader has closed the pipe, tracer ends by itself, even without an event",
        needs: ROOT,
        run: reader_gone,
    },
    Case {
        name: "ending/reader_stops",
        what: "a reader that does not read holds up neither a signal nor -d; a second signal ends the run at once",
        needs: ROOT,
        run: reader_stops,
    },
    Case {
        name: "ending/disk_full",
        what: "output that cannot be written is an error",
        needs: ROOT,
        run: disk_full,
    },
    Case {
        name: "ending/target_ends",
        what: "the run ends when the traced process exits, or is killed and not reaped",
        needs: ROOT,
        run: target_ends,
    },
    Case {
        name: "ending/child_lives_on",
        what: "a followed child keeps the run going; a child that is not followed does not",
        needs: ROOT,
        run: child_lives_on,
    },
    Case {
        name: "ending/silent_process",
        what: "a process whose mmap_lock is held for ever delays neither the end nor the owners of other pages",
        needs: Needs {
            site: Site::Host,
            ..ROOT
        },
        run: |env| {
            if !fuse::is_there()? {
                return Ok(Outcome::NotApplicable("this kernel has no FUSE".to_owned()));
            }
            Outcome::of_tries(5, "no page of the silent process moved", || silent_process(env))
        },
    },
];

/// The arguments that request text and JSON.
const FORMATS: [(bool, &[&str]); 2] = [(false, &["-a"]), (true, &["-a", "--json"])];

/// A run that must not end is observed for this time, in which a wrong run would have ended.
const A_WHILE: Duration = Duration::from_millis(500);

fn signals(env: &Env) -> Result<Outcome> {
    let formats = FORMATS.into_iter().cycle();
    for (signal, (json, args)) in [Signal::INT, Signal::TERM, Signal::HUP].into_iter().zip(formats) {
        let program = Program::attached(tracer(env, args))?;
        let loaded = Loaded::of(program.pid())?;
        program.signal(signal)?;
        let ended = program.wait()?;
        ended
            .ensure_complete(json)
            .with_context(|| format!("{signal:?} {args:?}"))?;
        loaded.ensure_freed()?;
    }
    Ok(Outcome::Passed)
}

fn nohup(env: &Env) -> Result<Outcome> {
    let mut command = tracer(env, &["-a"]);
    ignoring(&mut command, libc::SIGHUP);
    let mut program = Program::attached(command)?;
    program.signal(Signal::HUP)?;
    program.ensure_runs_for(A_WHILE)?;
    program.signal(Signal::TERM)?;
    program.wait()?.ensure_complete(false)?;
    Ok(Outcome::Passed)
}

fn killed(env: &Env) -> Result<Outcome> {
    let mut program = Program::attached(tracer(env, &["-p", &std::process::id().to_string()]))?;
    let loaded = Loaded::of(program.pid())?;
    program.signal(Signal::KILL)?;
    program.ended()?;
    loaded.ensure_freed()?;
    Ok(Outcome::Passed)
}

fn duration(env: &Env) -> Result<Outcome> {
    let started = Instant::now();
    let ended = run(tracer(env, &["-a", "-d", "0.5"]))?;
    ensure!(started.elapsed() >= Duration::from_millis(500), "too early");
    ended.ensure_complete(false)?;
    Ok(Outcome::Passed)
}

fn reader_gone(env: &Env) -> Result<Outcome> {
    // Emulation makes everything slow, detaching most of all.
    let limit = Duration::from_secs(if env.in_vm { 10 } else { 2 });
    let mut worker = Worker::spawn("idle", &[])?;
    worker.wait_ready(SOON)?;
    let pid = worker.pid().to_string();
    for format in [&[][..], &["--json"]] {
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        // The process does nothing, so no event arrives.
        let mut command = tracer(env, &[&["-p", &pid], format].concat());
        command.stdout(writer);
        let mut program = Program::attached(command)?;
        program.ensure_runs_for(A_WHILE)?;
        drop(reader);
        let closed = Instant::now();
        program.ended()?;
        let took = closed.elapsed();
        println!("ended {took:?} after its reader");
        ensure!(took < limit, "ended {took:?} after its reader");
        let ended = program.wait()?;
        ended.ensure_code(0)?;
        let greeting = ended.stderr.lines().last().unwrap_or_default();
        ensure!(
            greeting.contains(" · Linux "),
            "more than the greeting: {}",
            ended.stderr
        );
    }
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

fn disk_full(env: &Env) -> Result<Outcome> {
    for (_, args) in FORMATS {
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .context("open /dev/full")?;
        let mut command = tracer(env, &[args, &["-q", "-d", "0.1"]].concat());
        command.stdout(Stdio::from(full));
        run(command)?.ensure_refused(&["cannot write to standard output", "No space left"])?;
    }
    Ok(Outcome::Passed)
}

fn target_ends(env: &Env) -> Result<Outcome> {
    for kill in [false, true] {
        let mut worker = Worker::spawn("idle", &[])?;
        worker.wait_ready(SOON)?;
        let pid = worker.pid();
        let number = pid.to_string();
        let format: &[&str] = if kill { &["--json"] } else { &[] };
        let program = Program::attached(tracer(env, &[&["-p", &number], format].concat()))?;
        if kill {
            // The process is not reaped before the end of this turn.
            signal(pid, Signal::KILL)?;
        } else {
            worker.send("exit")?;
        }
        program.wait()?.ensure_complete(kill)?;
    }
    Ok(Outcome::Passed)
}

fn reader_stops(env: &Env) -> Result<Outcome> {
    // Emulation makes everything slow, detaching most of all.
    let limit = Duration::from_secs(if env.in_vm { 20 } else { 3 });
    let pid = std::process::id().to_string();
    let started = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        // As large as tracer may make it.
        fcntl_setpipe_size(&writer, 1 << 20).context("enlarge a pipe")?;
        fill(&writer)?;
        let mut command = tracer(env, &[&["-p", &pid], args].concat());
        command.stdout(writer);
        Ok::<_, anyhow::Error>((reader, Program::attached(command)?))
    };
    for (args, signals) in [(&["--json"][..], 1), (&["--json", "-d", "2.5"], 0), (&["--json"], 2)] {
        let (reader, program) = started(args)?;
        let loaded = Loaded::of(program.pid())?;
        // It shows once a second what it holds back: by then it waits for its reader.
        thread::sleep(Duration::from_secs(2));
        let begun = Instant::now();
        for _ in 0..signals {
            program.signal(Signal::INT)?;
            // Two at once are one request, and half a second later it has given the reader up.
            thread::sleep(Duration::from_millis(350));
        }
        let ended = program.wait()?;
        let took = begun.elapsed();
        println!("{args:?} {signals} ended after {took:?}: {}", ended.stderr);
        ensure!(took < limit, "{args:?} ended {took:?} after the signal");
        if signals == 2 {
            ended.ensure_code(128 + libc::SIGINT)?;
        } else {
            ended.ensure_code(2)?;
            ensure!(ended.stderr.contains("does not read"), "{}", ended.stderr);
        }
        loaded.ensure_freed()?;
        drop(reader);
    }
    Ok(Outcome::Passed)
}

/// Fills a pipe as far as it takes bytes without waiting.
fn fill(mut pipe: &PipeWriter) -> Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    while poll(&mut [PollFd::new(pipe, PollFlags::OUT)], Some(&now)).context("poll a pipe")? > 0 {
        pipe.write_all(&[0; 4096]).context("fill a pipe")?;
    }
    Ok(())
}

fn child_lives_on(env: &Env) -> Result<Outcome> {
    for follow in [true, false] {
        let mut worker = Worker::spawn("idle", &["child"])?;
        worker.wait_ready(SOON)?;
        let pid = worker.pid();
        let child = children(Tgid(pid))?.first().copied().context("no child")?.0;
        let mut args = vec!["-p"];
        let number = pid.to_string();
        args.push(&number);
        args.extend((!follow).then_some("--no-children"));
        let mut program = Program::attached(tracer(env, &args))?;
        worker.exit(SOON)?;
        if follow {
            program.ensure_runs_for(2 * A_WHILE)?;
            signal(child, Signal::KILL)?;
        }
        let ended = program.wait()?;
        if !follow {
            signal(child, Signal::KILL)?;
        }
        ended.ensure_complete(false)?;
        ensure!(
            ended.stderr.contains("and 1 child") == follow,
            "the greeting: {}",
            ended.stderr
        );
    }
    Ok(Outcome::Passed)
}

/// Whether a page of the silent process moved, so that tracer asked for it.
fn silent_process(env: &Env) -> Result<bool> {
    const MIB: &str = "64";
    // It is dropped before the file: while the file does not answer, it cannot be killed.
    let mut silent;
    // It is served here, and not by the process that waits for it: that one could not end.
    let path = env.scratch.join("unanswered");
    let file = Unanswered::mount(&path, 4096)?;
    silent = Worker::spawn("silent", &[path.to_str().context("its name")?, MIB])?;
    silent.wait_ready(SOON)?;
    silent.send("hold")?;
    let begun = Instant::now();
    while waiting_threads(silent.pid())? < 2 {
        ensure!(begun.elapsed() < SOON, "nobody holds its mmap_lock");
        thread::sleep(Duration::from_millis(50));
    }
    let mut worker = Worker::spawn("punched", &[MIB])?;
    worker.wait_ready(SOON)?;
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", "tracepoint"])?;
    worker.mark(SOON)?;
    // Compaction may wait for the page that never comes. It goes on when the file is gone.
    let compaction = thread::spawn(|| provoke::write("/proc/sys/vm/compact_memory", "1"));
    let started = Instant::now();
    while !compaction.is_finished() && started.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(50));
    }
    let ended = Instant::now();
    let trace = tracing.finish()?;
    let took = ended.elapsed();
    let truth = Report::parse(&worker.request("look", SOON)?)?;
    drop(file);
    silent.exit(SOON)?;
    let Ok(compacted) = compaction.join() else {
        bail!("the compaction panicked")
    };
    compacted?;
    println!("ended {took:?} after the signal; {:?}", trace.summary.lost);
    ensure_same(&trace, worker.pid(), &truth)?;
    worker.exit(SOON)?;
    // Events that wait in the ring are reported first.
    ensure!(took < SOON / 2, "ended {took:?} after the signal");
    let lost = &trace.summary.lost;
    Ok(trace.stderr.contains("does not answer") && lost.not_asked_pages + lost.unattributed_pages > 0)
}

/// The number of threads that sleep without being interruptible.
fn waiting_threads(pid: u32) -> Result<usize> {
    let mut waiting = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("list the threads")? {
        let stat = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        waiting += usize::from(stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D')));
    }
    Ok(waiting)
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
    kill_process(pid, signal).context("signal the workload")
}
