//! Requests that cannot be traced are refused with one clear message; requests that only look odd work.
//! Input: `tracer` with such arguments, or in such an environment.

use std::fs;
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::case::{Case, Env, Needs, Outcome};
use crate::product::{Stat, Status, Tgid, children, list};
use crate::tracer::environment::{without_bpf, without_directories};
use crate::tracer::invocation::{
    Program, SOON, ensure_harmless, in_workload, program_with, public_copy, run, this_program, tracer, workload,
};
use crate::worker::Worker;

const ROOT: Needs = Needs {
    root: true,
    ..Needs::NOTHING
};

pub const CASES: &[Case] = &[
    Case {
        name: "cli/help",
        what: "help and version go to stdout; unknown options and values are errors",
        needs: Needs::NOTHING,
        run: help,
    },
    Case {
        name: "cli/quiet",
        what: "-q prints nothing on stderr, not even for a refused backend or a thread's number",
        needs: ROOT,
        run: quiet,
    },
    Case {
        name: "cli/not_root",
        what: "a message advises an ordinary user to use sudo",
        needs: ROOT,
        run: not_root,
    },
    Case {
        name: "cli/no_such_process",
        what: "numbers that no process has, and words that are not numbers, are refused",
        needs: ROOT,
        run: no_such_process,
    },
    Case {
        name: "cli/kernel_thread",
        what: "a kernel thread has no memory of its own",
        needs: ROOT,
        run: kernel_thread,
    },
    Case {
        name: "cli/zombie",
        what: "a process that has ended has no memory",
        needs: ROOT,
        run: zombie,
    },
    Case {
        name: "cli/itself",
        what: "tracer does not trace itself",
        needs: ROOT,
        run: itself,
    },
    Case {
        name: "cli/thread",
        what: "a thread's number stands for its process, with a note",
        needs: ROOT,
        run: thread_given,
    },
    Case {
        name: "cli/namespace",
        what: "a process in a container is traced by its number outside; for its number inside, the message has the one outside",
        needs: ROOT,
        run: namespace,
    },
    Case {
        name: "cli/contained",
        what: "tracer in a PID namespace reports where to run it",
        needs: ROOT,
        run: contained,
    },
    Case {
        name: "cli/no_btf",
        what: "a kernel without type information",
        needs: ROOT,
        run: no_btf,
    },
    Case {
        name: "cli/bpf_refused",
        what: "a container that forbids bpf(2), with each backend; a COMMAND does not stay waiting",
        needs: ROOT,
        run: bpf_refused,
    },
    Case {
        name: "cli/no_tracefs",
        what: "tracefs and debugfs are not needed",
        needs: ROOT,
        run: no_tracefs,
    },
    Case {
        name: "cli/hostile_name",
        what: "a process whose name is an escape sequence: none reaches the terminal or JSON",
        needs: Needs {
            timeout: Duration::from_mins(4),
            ..ROOT
        },
        run: hostile_name,
    },
];

fn help(env: &Env) -> Result<Outcome> {
    for (arg, words) in [
        ("--help", "Usage: tracer"),
        ("-h", "Usage: tracer"),
        ("--version", "tracer "),
    ] {
        let ended = run(tracer(env, &[arg]))?;
        ended.ensure_code(0)?;
        ensure!(
            ended.stdout.contains(words) && ended.stderr.is_empty(),
            "{arg}: {ended:?}"
        );
    }
    let mistakes: &[(&[&str], &[&str])] = &[
        (&[], &["-p PID", "-a", "COMMAND"]),
        (&["-d", "1"], &["-p PID", "-a", "COMMAND"]),
        (&["--json"], &["-p PID"]),
        (&["--"], &["-p PID"]),
        (&["--nope", "-a"], &["--nope", "--help"]),
        (&["-a", "-p", "1"], &["--all", "--pid"]),
        (&["-p", "1", "--", "true"], &["--pid", "COMMAND"]),
        (&["-a", "--backend", "best"], &["best", "exact", "tracepoint"]),
        (&["-a", "-d", "0"], &["--duration", "more than 0"]),
        (&["-a", "-d", "-1"], &["--duration", "more than 0"]),
        (&["-a", "-d", "x"], &["--duration", "number of seconds"]),
        (&["-a", "-q", "-v"], &["--quiet", "--verbose"]),
    ];
    for (args, words) in mistakes {
        let ended = run(tracer(env, args))?;
        ended.ensure_refused(words).with_context(|| format!("{args:?}"))?;
    }
    Ok(Outcome::Passed)
}

fn quiet(env: &Env) -> Result<Outcome> {
    let mut worker = Worker::spawn("idle", &["thread"])?;
    worker.wait_ready(SOON)?;
    let tid = worker.read_line(SOON)?;
    let ended = run(tracer(env, &["-q", "-p", &tid, "-d", "0.1"]))?;
    ended.ensure_complete(false)?;
    ensure!(ended.stderr.is_empty(), "not quiet: {}", ended.stderr);
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

fn not_root(env: &Env) -> Result<Outcome> {
    // Its own directory may be open to root only.
    let program = public_copy(env, &env.tracer)?;
    let own = std::process::id().to_string();
    for args in [&["-a"][..], &["-p", &own], &["--", "true"]] {
        let mut command = program_with(&program, args);
        command.uid(65534).gid(65534);
        run(command)?.ensure_refused(&["CAP_", "sudo"])?;
    }
    Ok(Outcome::Passed)
}

fn no_such_process(env: &Env) -> Result<Outcome> {
    for nobody in ["4194303", "4194305", "4294967295"] {
        ensure!(!fs::exists(format!("/proc/{nobody}"))?, "somebody is {nobody}");
        let ended = run(tracer(env, &["-p", nobody]))?;
        ended.ensure_refused(&[&format!("no process {nobody}")])?;
    }
    for word in ["0", "-1", "abc", "", "1x", "4294967296", "1,,2"] {
        let ended = run(tracer(env, &["-p", word]))?;
        ended.ensure_refused(&["--pid"]).with_context(|| format!("{word:?}"))?;
    }
    // One valid number does not make up for an invalid one.
    let ended = run(tracer(env, &["-p", &std::process::id().to_string(), "-p", "4194303"]))?;
    ended.ensure_refused(&["no process 4194303"])?;
    Ok(Outcome::Passed)
}

fn kernel_thread(env: &Env) -> Result<Outcome> {
    let is_one = |tgid: &Tgid| Stat::read(tgid.0).is_ok_and(|stat| stat.kernel_thread());
    let Some(found) = list()?.into_iter().find(is_one) else {
        return Ok(Outcome::NotApplicable("no kernel thread is visible from here".into()));
    };
    let ended = run(tracer(env, &["-p", &found.to_string()]))?;
    ended.ensure_refused(&[&found.to_string(), "kernel thread"])?;
    Ok(Outcome::Passed)
}

fn zombie(env: &Env) -> Result<Outcome> {
    let mut child = in_workload(&["end", "exit", "0"])?.spawn().context("start a child")?;
    let started = Instant::now();
    while !Status::read(child.id())?.ended() {
        ensure!(started.elapsed() < SOON, "the child does not end");
        thread::sleep(Duration::from_millis(1));
    }
    let ended = run(tracer(env, &["-p", &child.id().to_string()]));
    child.wait().context("wait for the child")?;
    ended?.ensure_refused(&["zombie", &child.id().to_string(), &std::process::id().to_string()])?;
    Ok(Outcome::Passed)
}

fn itself(env: &Env) -> Result<Outcome> {
    let program = env.tracer.to_str().context("tracer's path is no text")?;
    let ended = run(in_workload(&["own_pid", program, "-p", "SELF"])?)?;
    ended.ensure_refused(&["tracer itself"])?;
    Ok(Outcome::Passed)
}

fn thread_given(env: &Env) -> Result<Outcome> {
    let mut worker = Worker::spawn("idle", &["thread"])?;
    worker.wait_ready(SOON)?;
    let tid = worker.read_line(SOON)?;
    let ended = run(tracer(env, &["-p", &tid, "-d", "0.1"]))?;
    ended.ensure_complete(false)?;
    let note = format!("{tid} is a thread of {}", worker.pid());
    ensure!(ended.stderr.contains(&note), "no note {note:?}: {}", ended.stderr);
    ensure!(
        ended.stderr.contains(&format!("[{}]", worker.pid())),
        "the greeting names another one: {}",
        ended.stderr
    );
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

/// A number below the highest possible that no process has.
fn free_number() -> Result<u32> {
    let max = fs::read_to_string("/proc/sys/kernel/pid_max").context("read pid_max")?;
    let max: u32 = max.trim().parse().context("parse pid_max")?;
    let free = |number: &u32| !fs::exists(format!("/proc/{number}")).unwrap_or(true);
    (2..max).rev().find(free).context("every number is taken")
}

fn namespace(env: &Env) -> Result<Outcome> {
    let exe = this_program()?;
    let inner = free_number()?.to_string();
    let mut worker = Worker::spawn("pid_namespace", &[&inner, &exe, "work", "idle"])?;
    worker.wait_ready(SOON)?;
    let first = |of: u32| children(Tgid(of))?.first().copied().context("no child");
    let outer = first(first(worker.pid())?.0)?;
    let ended = run(tracer(env, &["-p", &outer.to_string(), "-d", "0.1"]))?;
    ended.ensure_complete(false)?;
    let ended = run(tracer(env, &["-p", &inner]))?;
    ended.ensure_refused(&[
        &format!("no process {inner}"),
        "PID namespace",
        &format!("--pid {outer}"),
    ])?;
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

fn contained(env: &Env) -> Result<Outcome> {
    let program = env.tracer.to_str().context("tracer's path is no text")?;
    for args in [&["-a"][..], &["-p", "1"], &["--", "true"]] {
        let ended = run(in_workload(&[&["pid_namespace", "2", program], args].concat())?)?;
        ended.ensure_refused(&["PID namespace", "on the host"])?;
    }
    Ok(Outcome::Passed)
}

fn no_btf(env: &Env) -> Result<Outcome> {
    let exe = this_program()?;
    for args in [vec!["-a"], workload(&exe, &["end", "exit", "0"])] {
        let mut command = tracer(env, &args);
        without_directories(&mut command, &[c"/sys/kernel/btf"]);
        run(command)?.ensure_refused(&["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"])?;
    }
    Ok(Outcome::Passed)
}

fn bpf_refused(env: &Env) -> Result<Outcome> {
    let exe = this_program()?;
    let command = workload(&exe, &["end", "exit", "0"]);
    for (backend, target) in [
        ("auto", command.as_slice()),
        ("exact", &["-a"]),
        ("tracepoint", &["-a"]),
    ] {
        let mut command = tracer(env, &[&["--backend", backend], target].concat());
        without_bpf(&mut command);
        run(command)?
            .ensure_refused(&["BPF", "Operation not permitted", "seccomp", "on the host"])
            .context(backend)?;
    }
    Ok(Outcome::Passed)
}

fn no_tracefs(env: &Env) -> Result<Outcome> {
    let mut command = tracer(env, &["-a", "-d", "0.1"]);
    without_directories(&mut command, &[c"/sys/kernel/debug", c"/sys/kernel/tracing"]);
    run(command)?.ensure_complete(false)?;
    Ok(Outcome::Passed)
}

/// Characters that would turn a terminal red, and their form in JSON.
const RED: &str = "\x1b[31mred";
const RED_AS_JSON: &str = r#""comm":"\u001b[31mred""#;
const RED_AS_TEXT: &str = r"\x1b[31mred[";

fn hostile_name(env: &Env) -> Result<Outcome> {
    for json in [false, true] {
        red_rows(env, json)?;
    }
    Ok(Outcome::Passed)
}

/// Whether compaction moves anything depends on where the kernel put the pages, so it is repeated until it does.
fn red_rows(env: &Env, json: bool) -> Result<()> {
    let in_rows = if json { RED_AS_JSON } else { RED_AS_TEXT };
    let started = Instant::now();
    while started.elapsed() < SOON {
        let mut worker = Worker::spawn("punched", &["64", RED])?;
        worker.wait_ready(SOON)?;
        let pid = worker.pid().to_string();
        let format = if json { "--json" } else { "--each" };
        let program = Program::attached(tracer(env, &["-p", &pid, format]))?;
        fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
        program.signal(Signal::INT)?;
        let ended = program.wait()?;
        ended.ensure_complete(json)?;
        ensure_harmless(&ended.stdout)?;
        ensure_harmless(&ended.stderr)?;
        ensure!(ended.stderr.contains(RED_AS_TEXT), "who is traced? {}", ended.stderr);
        worker.exit(SOON)?;
        if ended.stdout.contains(in_rows) {
            return Ok(());
        }
    }
    bail!("no row with the name {in_rows}: nothing moved for {SOON:?}")
}
