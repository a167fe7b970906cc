//! `tracer -- COMMAND`: the program runs as it would alone, is traced from its first page, and tracer ends with it.
//! Input: workloads of `tracer-tests` as COMMAND.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::case::{Case, Env, Needs, Outcome};
use crate::machine::provoke;
use crate::tracer::invocation::{Program, SOON, public_copy, run, this_program, tracer, workload};
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::Report;
use crate::worker::Worker;

const ROOT: Needs = Needs {
    root: true,
    ..Needs::NOTHING
};

pub const CASES: &[Case] = &[
    Case {
        name: "command/cannot_run",
        what: "exit code 127 if the COMMAND does not exist, 126 if it cannot be executed",
        needs: ROOT,
        run: cannot_run,
    },
    Case {
        name: "command/exit_code",
        what: "tracer exits with the COMMAND's exit code, or with 128 plus the signal that killed it",
        needs: ROOT,
        run: exit_code,
    },
    Case {
        name: "command/passes_through",
        what: "the COMMAND gets stdin, stdout and stderr, and runs as root if sudo was not used",
        needs: ROOT,
        run: passes_through,
    },
    Case {
        name: "command/user",
        what: "the COMMAND runs as the user who called sudo; exit code 126 if that user may not execute it",
        needs: ROOT,
        run: user,
    },
    Case {
        name: "command/sudo_numbers",
        what: "a SUDO_UID or SUDO_GID that is no number of a user starts nothing, least of all as root",
        needs: ROOT,
        run: sudo_numbers,
    },
    Case {
        name: "command/first_page",
        what: "a COMMAND and its child move their own pages to node 1 at once: all moves are reported",
        needs: Needs { nodes: 2, ..ROOT },
        run: |env| first_page(env, true),
    },
    Case {
        name: "command/no_children",
        what: "the same with --no-children: the child's moves are not reported",
        needs: Needs { nodes: 2, ..ROOT },
        run: |env| first_page(env, false),
    },
    Case {
        name: "command/all",
        what: "with -a, every process is traced while the COMMAND runs",
        needs: ROOT,
        run: |env| Outcome::of_tries(5, "no page of another process moved", || all(env)),
    },
    Case {
        name: "command/duration",
        what: "the clock ends the tracing, not the COMMAND",
        needs: ROOT,
        run: duration,
    },
    Case {
        name: "command/interrupted",
        what: "Ctrl-C ends the COMMAND and with it the run, with 130 and a summary",
        needs: ROOT,
        run: interrupted,
    },
    Case {
        name: "command/stubborn",
        what: "tracer waits for a COMMAND that ignores Ctrl-C, and ends alone at the second one",
        needs: ROOT,
        run: stubborn,
    },
    Case {
        name: "command/terminated",
        what: "SIGTERM during the run and SIGHUP after it, to tracer alone, end the COMMAND",
        needs: ROOT,
        run: terminated,
    },
];

fn cannot_run(env: &Env) -> Result<Outcome> {
    let plain = env.scratch.join("plain");
    fs::write(&plain, "text\n").context("write a file")?;
    let plain = plain.to_str().context("a path that is text")?;
    let directory = env.scratch.to_str().context("a path that is text")?;
    let missing = format!("{directory}/nothing/here");
    let below_file = format!("{plain}/program");
    for (program, code) in [
        ("no-such-program", 127),
        ("", 127),
        (missing.as_str(), 127),
        (below_file.as_str(), 127),
        (plain, 126),
        (directory, 126),
    ] {
        let ended = run(tracer(env, &["--", program, "argument"]))?;
        ended.ensure_code(code)?;
        ended.ensure_one_message(&["cannot run", program, "(os error", "\n  "])?;
    }
    // Only the kernel can report this: a file of a format that it does not know, found after the greeting.
    fs::write(plain, "\x7fELF").context("write a file")?;
    fs::set_permissions(plain, fs::Permissions::from_mode(0o755)).context("make it executable")?;
    let ended = run(tracer(env, &["-q", "--", plain]))?;
    ensure!(
        matches!(ended.status.code(), Some(126 | 127)),
        "a broken program: {ended:?}"
    );
    Ok(Outcome::Passed)
}

fn exit_code(env: &Env) -> Result<Outcome> {
    let exe = this_program()?;
    for (how, number, code) in [("exit", "7", 7), ("signal", "9", 137)] {
        let ended = run(tracer(env, &workload(&exe, &["end", how, number])))?;
        ended.ensure_code(code)?;
        ended.ensure_summary(false)?;
    }
    Ok(Outcome::Passed)
}

fn passes_through(env: &Env) -> Result<Outcome> {
    let exe = this_program()?;
    let mut command = tracer(env, &workload(&exe, &["echo"]));
    command.stdin(Stdio::piped());
    let mut program = Program::attached(command)?;
    let mut stdin = program.take_stdin()?;
    stdin
        .write_all(b"through and through\n")
        .context("write to the COMMAND")?;
    drop(stdin);
    let ended = program.wait()?;
    ended.ensure_complete(false)?;
    ensure!(
        ended.stdout.starts_with("through and through\n"),
        "stdout: {}",
        ended.stdout
    );
    ensure!(ended.stderr.contains("uid 0 gid 0 "), "stderr: {}", ended.stderr);
    Ok(Outcome::Passed)
}

fn user(env: &Env) -> Result<Outcome> {
    let exe = public_copy(env, this_program()?.as_ref())?;
    let as_user = |program: &str| {
        let mut command = tracer(env, &workload(program, &["echo"]));
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65534");
        run(command)
    };
    let ended = as_user(exe.to_str().context("a path that is text")?)?;
    ended.ensure_complete(false)?;
    ensure!(
        ended.stderr.contains("uid 65534 gid 65534 groups 65534\n"),
        "not the user: {}",
        ended.stderr
    );
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o700)).context("make it root's alone")?;
    let ended = as_user(exe.to_str().context("a path that is text")?)?;
    ended.ensure_code(126)?;
    ended.ensure_one_message(&["cannot run", "user who called sudo"])?;
    Ok(Outcome::Passed)
}

fn sudo_numbers(env: &Env) -> Result<Outcome> {
    let exe = this_program()?;
    // The highest number means "unchanged" to the kernel.
    for (key, value) in [
        ("SUDO_UID", "4294967295"),
        ("SUDO_UID", "-1"),
        ("SUDO_UID", "root"),
        ("SUDO_UID", ""),
        ("SUDO_GID", "4294967295"),
    ] {
        let mut command = tracer(env, &workload(&exe, &["echo"]));
        command
            .env("SUDO_UID", "65534")
            .env("SUDO_GID", "65534")
            .env(key, value);
        let ended = run(command)?;
        ended.ensure_code(2)?;
        ended.ensure_one_message(&[key])?;
        ensure!(!ended.stderr.contains("uid "), "it ran: {}", ended.stderr);
    }
    Ok(Outcome::Passed)
}

/// The workload's own report: its number and its moves.
fn word_of(file: &Path) -> Result<(u32, Report)> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let (pid, report) = text.split_once('\n').context("two lines")?;
    Ok((
        pid.parse().context("parse its number")?,
        Report::parse(report.trim_end())?,
    ))
}

fn ensure_all_seen(trace: &Trace, pid: u32, truth: &Report) -> Result<()> {
    ensure!(
        truth.moves.len() == (4 << 20) / rustix::param::page_size(),
        "too few moves"
    );
    let seen = trace.of(pid, truth.range())?;
    ensure!(
        seen == truth.moves,
        "of {} moves of {pid}, tracer reported {}, or other ones",
        truth.moves.len(),
        seen.len()
    );
    let own = |line: &&crate::tracer::lines::MoveLine| line.pid == Some(pid) && truth.range().contains(&line.vaddr.0);
    for line in trace.moves.iter().filter(own) {
        ensure!(
            line.actor_pid == pid && line.reason == "syscall_or_cpuset",
            "who and why: {line:?}"
        );
        ensure!((line.old_node, line.new_node) == (Some(0), Some(1)), "nodes: {line:?}");
    }
    Ok(())
}

fn first_page(env: &Env, follow: bool) -> Result<Outcome> {
    let exe = this_program()?;
    let (file, childs) = (env.scratch.join("parent"), env.scratch.join("child"));
    let paths = [&file, &childs].map(|path| path.to_str().unwrap_or_default());
    let mut args = vec!["--backend", "exact"];
    args.extend((!follow).then_some("--no-children"));
    args.extend(workload(&exe, &["hasty", "4", paths[0], paths[1]]));
    let trace = Tracing::start(&env.tracer, &args)?.join()?;
    trace.ensure_exact_books()?;
    let (pid, truth) = word_of(&file)?;
    ensure_all_seen(&trace, pid, &truth)?;
    let (child, truth) = word_of(&childs)?;
    ensure!(child != pid, "the child is another process");
    if follow {
        ensure_all_seen(&trace, child, &truth)?;
    } else {
        let stranger = trace.moves.iter().find(|line| line.pid != Some(pid));
        ensure!(stranger.is_none(), "not requested: {stranger:?}");
    }
    Ok(Outcome::Passed)
}

/// Starts `tracer ARGS -- idle BE`, which waits on its stdin.
fn idle(env: &Env, args: &[&str], be: &[&str]) -> Result<Program> {
    let exe = this_program()?;
    let words = [args, &workload(&exe, &[&["idle"], be].concat())].concat();
    let mut command = tracer(env, &words);
    command.stdin(Stdio::piped());
    let mut program = Program::attached(command)?;
    program.wait_for("ready\n")?;
    Ok(program)
}

/// Whether a page of another process moved. Compaction may find none, or no room for one.
fn all(env: &Env) -> Result<bool> {
    let mut punched = Worker::spawn("punched", &["64"])?;
    punched.wait_ready(SOON)?;
    let exe = this_program()?;
    let words = [&["-a", "--json"], &workload(&exe, &["echo"])[..]].concat();
    let mut command = tracer(env, &words);
    command.stdin(Stdio::piped());
    let mut program = Program::attached(command)?;
    provoke::write("/proc/sys/vm/compact_memory", "1")?;
    program.close_stdin();
    let ended = program.wait()?;
    ended.ensure_complete(true)?;
    ensure!(ended.stderr.contains("every process, while "), "{}", ended.stderr);
    let others = format!("\"pid\":{},", punched.pid());
    punched.exit(SOON)?;
    Ok(ended.stdout.contains(&others))
}

fn duration(env: &Env) -> Result<Outcome> {
    let mut program = idle(env, &["-d", "0.2"], &[])?;
    program.wait_for("\ncost ")?;
    ensure!(program.runs()?, "tracer did not wait for the COMMAND");
    program.close_stdin();
    program.wait()?.ensure_complete(false)?;
    Ok(Outcome::Passed)
}

fn interrupted(env: &Env) -> Result<Outcome> {
    let program = idle(env, &["--json"], &[])?;
    program.signal_group(Signal::INT)?;
    let ended = program.wait()?;
    ended.ensure_code(130)?;
    ended.ensure_summary(true)?;
    Ok(Outcome::Passed)
}

fn stubborn(env: &Env) -> Result<Outcome> {
    // After one Ctrl-C, tracer waits for the COMMAND's own end.
    let mut program = idle(env, &[], &["stubborn"])?;
    program.signal_group(Signal::INT)?;
    program.ensure_runs_for(Duration::from_millis(500))?;
    program.close_stdin();
    program.wait()?.ensure_complete(false)?;

    // The COMMAND does not end, and the user presses Ctrl-C again.
    let mut program = idle(env, &[], &["stubborn"])?;
    let started = Instant::now();
    while program.runs()? {
        ensure!(
            started.elapsed() < SOON,
            "tracer stays with a COMMAND that ignores Ctrl-C"
        );
        program.signal_group(Signal::INT)?;
        // Signals that arrive before they are handled count as one signal.
        thread::sleep(Duration::from_millis(100));
    }
    let ended = program.wait()?;
    ended.ensure_code(130)?;
    ended.ensure_summary(false)?;
    ensure!(ended.stderr.contains("goes on"), "it is not said: {}", ended.stderr);
    Ok(Outcome::Passed)
}

fn terminated(env: &Env) -> Result<Outcome> {
    let program = idle(env, &[], &[])?;
    program.signal(Signal::TERM)?;
    let ended = program.wait()?;
    ended.ensure_code(143)?;
    ended.ensure_summary(false)?;

    let mut program = idle(env, &["-d", "0.1"], &[])?;
    program.wait_for("\ncost ")?;
    program.signal(Signal::HUP)?;
    program.wait()?.ensure_code(129)?;
    Ok(Outcome::Passed)
}
