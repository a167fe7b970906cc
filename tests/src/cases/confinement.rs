//! Privileges: which ones tracer keeps while it traces and reads, and with which ones it can start.
//! Input: /proc/PID/status of its threads; workloads whose pages move.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::moves::ensure_same;
use crate::tracer::environment::{Capability, as_user_with};
use crate::tracer::invocation::{Program, SOON, public_copy, tracer};
use crate::tracer::trace::Tracing;
use crate::truth::Reports;
use crate::worker::Worker;

const ROOT: Needs = Needs {
    root: true,
    ..Needs::NOTHING
};

pub const CASES: &[Case] = &[
    Case {
        name: "confinement/tracing",
        what: "while it traces, tracer is not root, has three capabilities and few system calls, in every thread",
        needs: ROOT,
        run: tracing,
    },
    Case {
        name: "confinement/command",
        what: "the same with a COMMAND: it may send it signals, and becomes the user who called sudo",
        needs: ROOT,
        run: command,
    },
    Case {
        name: "confinement/rotation",
        what: "files that are still to be created belong to root as the first one does, also in another user's directory",
        needs: ROOT,
        run: rotation,
    },
    Case {
        name: "confinement/readers",
        what: "whatever reads a recording has no capability when it reads the first byte, and still writes its output",
        needs: ROOT,
        run: readers,
    },
    Case {
        name: "confinement/least",
        what: "a user with three capabilities traces as root does: every move, with its owner and frames",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| least(env, "exact"),
    },
    Case {
        name: "confinement/least_tracepoint",
        what: "the same with the tracepoint backend",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| least(env, "tracepoint"),
    },
];

/// Frame numbers, maps of other users' processes, and files that only their owner may open.
const THREE: [Capability; 3] = [Capability::SysAdmin, Capability::SysPtrace, Capability::DacReadSearch];
/// The user without rights, as the kernel numbers it.
const NOBODY: u32 = 65_534;
/// A user of the machine.
const USER: u32 = 1000;

fn tracing(env: &Env) -> Result<Outcome> {
    // A process whose memory is read: the thread that reads it is confined, too.
    let mut worker = Worker::spawn("idle", &[])?;
    worker.wait_ready(SOON)?;
    let program = Program::attached(tracer(env, &["-a"]))?;
    ensure_confined(program.pid(), NOBODY, &THREE)?;
    fs::write("/proc/sys/vm/compact_memory", "1").context("compact memory")?;
    program.signal(Signal::INT)?;
    program.wait()?.ensure_complete(false)?;
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

fn command(env: &Env) -> Result<Outcome> {
    let four = [&THREE[..], &[Capability::Kill]].concat();
    for (sudo, user) in [(false, NOBODY), (true, USER)] {
        let mut command = tracer(env, &["--", "/bin/sleep", "60"]);
        if sudo {
            command
                .env("SUDO_UID", USER.to_string())
                .env("SUDO_GID", USER.to_string());
        }
        if !Path::new("/bin/sleep").exists() {
            return Ok(Outcome::NotApplicable("there is no /bin/sleep".to_owned()));
        }
        let program = Program::attached(command)?;
        ensure_confined(program.pid(), user, &four)?;
        // It passes the signal on, and ends with the COMMAND.
        program.signal(Signal::TERM)?;
        program.wait()?.ensure_code(128 + 15)?;
    }
    Ok(Outcome::Passed)
}

fn rotation(env: &Env) -> Result<Outcome> {
    let more = [&THREE[..], &[Capability::DacOverride]].concat();
    for (owner, capabilities) in [(0, &THREE[..]), (USER, &more)] {
        let directory = env.scratch.join(format!("of_{owner}"));
        fs::create_dir(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        chown(&directory, Some(owner), Some(owner))?;
        let file = directory.join("r.data");
        let path = file.to_str().context("a path that is text")?;
        let args = ["record", "-a", "--max-size", "64K", "--rotate", "3", "-o", path];
        let program = Program::attached(tracer(env, &args))?;
        ensure_confined(program.pid(), 0, capabilities)?;
        program.signal(Signal::INT)?;
        program.wait()?.ensure_code(0)?;
    }
    Ok(Outcome::Passed)
}

fn readers(env: &Env) -> Result<Outcome> {
    let recording = env.scratch.join("r.data");
    let path = recording.to_str().context("a path that is text")?;
    let mut record = tracer(env, &["record", "-a", "-q", "-d", "0.1", "-o", path]);
    ensure!(record.status().context("record")?.success(), "nothing was recorded");
    // Only their owner may enter it.
    let directory = env.scratch.join("users");
    fs::create_dir(&directory)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
    chown(&directory, Some(USER), Some(USER))?;
    let csv = directory.join("moves.csv");
    let csv = csv.to_str().context("a path that is text")?;
    let joined = directory.join("joined.data");
    let joined = joined.to_str().context("a path that is text")?;
    let export = ["export", "--format", "csv", "-o", csv, "-"];
    let readers: [(&[&str], u32, &[Capability]); 5] = [
        (&["cat", "-"], NOBODY, &[]),
        (&["report", "-"], NOBODY, &[]),
        (&["info", "-"], NOBODY, &[]),
        (&["export", "--format", "jsonl", "-"], NOBODY, &[]),
        (&export, 0, &[Capability::DacOverride]),
    ];
    for (args, user, capabilities) in readers {
        let (reader, mut writer) = std::io::pipe().context("make a pipe")?;
        let mut command = tracer(env, args);
        command.stdin(Stdio::from(reader));
        let program = Program::start(command)?;
        // Nothing has been written yet.
        ensure_confined(program.pid(), user, capabilities).with_context(|| format!("{args:?}"))?;
        writer
            .write_all(&fs::read(&recording)?)
            .context("write the recording")?;
        drop(writer);
        program.wait()?.ensure_code(0).with_context(|| format!("{args:?}"))?;
    }
    ensure!(fs::metadata(csv).is_ok(), "nothing was exported");
    let mut merge = tracer(env, &["merge", "-o", joined, "-"]);
    merge.stdin(Stdio::from(File::open(&recording)?));
    ensure!(merge.status().context("merge")?.success(), "nothing was joined");
    ensure!(fs::metadata(joined).is_ok(), "nothing was joined");
    Ok(Outcome::Passed)
}

fn least(env: &Env, backend: &str) -> Result<Outcome> {
    let program = public_copy(env, &env.tracer)?;
    let mut worker = Worker::spawn("mover", &["base", "move_pages", "4"])?;
    worker.wait_ready(SOON)?;
    let mut command = Command::new(&program);
    as_user_with(&mut command, USER, &THREE);
    let pid = worker.pid().to_string();
    command.args(["--json", "-p", &pid, "--backend", backend]);
    let tracing = Tracing::spawn(command)?;
    ensure_confined(tracing.pid(), USER, &THREE)?;
    worker.mark(SOON)?;
    let truth = Reports::parse(&worker.request("move", SOON)?)?;
    let trace = tracing.finish()?;
    ensure!(trace.status.success(), "{}: {}", trace.status, trace.stderr);
    let [(_, truth)] = &truth.0[..] else {
        bail!("{} reports", truth.0.len())
    };
    ensure_same(&trace, worker.pid(), truth)?;
    worker.exit(SOON)?;
    Ok(Outcome::Passed)
}

/// Waits until every thread is confined, and checks how. The greeting comes a moment earlier.
fn ensure_confined(pid: u32, user: u32, capabilities: &[Capability]) -> Result<()> {
    let set = capabilities
        .iter()
        .fold(0u64, |set, &capability| set | 1 << capability as u8);
    let begun = Instant::now();
    while field(&status(&format!("/proc/{pid}/status"))?, "Seccomp")? != "2" {
        ensure!(begun.elapsed() < SOON, "it is not confined");
        thread::sleep(std::time::Duration::from_millis(10));
    }
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = status(&format!("{}/status", task?.path().display()))?;
        for key in ["CapEff", "CapPrm"] {
            let found = u64::from_str_radix(field(&status, key)?, 16)?;
            ensure!(found == set, "{key} is {found:x}, not {set:x}: {status:?}");
        }
        for key in ["CapInh", "CapAmb"] {
            ensure!(field(&status, key)?.trim_matches('0').is_empty(), "{key}: {status:?}");
        }
        let users = format!("{user}\t{user}\t{user}\t{user}");
        ensure!(field(&status, "Uid")? == users, "not user {user}: {status:?}");
        ensure!(
            field(&status, "NoNewPrivs")? == "1",
            "it may gain privileges: {status:?}"
        );
        ensure!(
            field(&status, "Seccomp")? == "2",
            "a thread has every system call: {status:?}"
        );
    }
    Ok(())
}

fn status(path: &str) -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let fields = text.lines().filter_map(|line| line.split_once(":\t"));
    Ok(fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

fn field<'a>(status: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str> {
    status.get(key).map(String::as_str).with_context(|| format!("no {key}"))
}
