//! Recorders of page moves: tracer and its peers, from attaching to their end.
//! Input: their command lines, their lines on stderr, and their recordings.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::child::{Measured, nanos};
use crate::host::process;

/// A recorder must have attached, or ended, within this time.
const PATIENCE: Duration = Duration::from_mins(1);
/// The message of the gate: the recorder that starts a COMMAND has attached.
const ATTACHED: &str = "bench: attached";
/// One line for each mapping: the frame that its page moved to, and the task that moved it.
const PRINTF: &str = r#"tracepoint:migrate:remove_migration_pte
{ printf("%lx %lx %d %s\n", args->addr, args->pte, tid, comm); }"#;

/// A program that records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorder {
    /// `tracer --all`, into /dev/null.
    Live,
    /// `tracer record --all` with this backend.
    Record(&'static str),
    Perf {
        packed: bool,
    },
    Bpftrace,
}

/// All recorders by name.
pub const ALL: [(&str, Recorder); 6] = [
    ("live", Recorder::Live),
    ("record", Recorder::Record("tracepoint")),
    ("record-exact", Recorder::Record("exact")),
    ("perf", Recorder::Perf { packed: false }),
    ("perf-z", Recorder::Perf { packed: true }),
    ("bpftrace", Recorder::Bpftrace),
];

/// The resources that a recorder used, and the number of its events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    /// Nanoseconds of CPU time since it attached.
    pub cpu: u64,
    /// None: it does not count events.
    pub events: Option<u64>,
    pub bytes: Option<u64>,
    /// None: it does not report losses.
    pub lost: Option<u64>,
}

impl Recorder {
    fn command(self, tracer: &Path, file: &Path) -> Result<Command> {
        let gate = env::current_exe().context("find this program")?;
        let file = file.as_os_str();
        let os = OsStr::new;
        let mut command = Command::new(match self {
            Self::Live | Self::Record(_) => tracer.as_os_str(),
            Self::Perf { .. } => os("perf"),
            Self::Bpftrace => os("bpftrace"),
        });
        match self {
            Self::Live => command.arg("--all"),
            Self::Record(backend) => {
                let args = ["record", "--all", "--force", "--backend", backend, "--output"];
                command.args(args).arg(file)
            }
            Self::Perf { packed } => {
                command
                    .args(["record", "-e", "migrate:*", "-a"])
                    .args(packed.then_some("-z"));
                command
                    .arg("-o")
                    .arg(file)
                    .args([os("--"), gate.as_os_str(), os("bench"), os("--gate")])
            }
            Self::Bpftrace => {
                let gate = format!("{} bench --gate", gate.display());
                command.args(["-e", PRINTF, "-c", &gate, "-o"]).arg(file)
            }
        };
        Ok(command)
    }

    /// Part of the line on stderr that shows that it has attached.
    fn attached(self) -> &'static str {
        match self {
            // The greeting.
            Self::Live | Self::Record(_) => " · Linux ",
            Self::Perf { .. } | Self::Bpftrace => ATTACHED,
        }
    }
}

/// A recorder that is attached.
pub struct Running {
    recorder: Recorder,
    file: PathBuf,
    process: Measured,
    stderr: Receiver<String>,
    /// The CPU time up to attaching.
    before: Duration,
    /// The stdin of the gate.
    _stdin: Option<ChildStdin>,
}

impl Running {
    /// Starts it, and waits until it has attached.
    ///
    /// # Errors
    /// With its last lines if it ends instead.
    pub fn start(recorder: Recorder, tracer: &Path, file: PathBuf) -> Result<Self> {
        let mut command = recorder.command(tracer, &file)?;
        command.env("LC_ALL", "C");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Measured::spawn(&mut command)?;
        let stdin = process.child.stdin.take();
        let stderr = lines(process.child.stderr.take().context("a piped stderr")?);
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            match stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(recorder.attached()) => break,
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout) => bail!("not attached after {PATIENCE:?}: {}", said.join("; ")),
                Err(RecvTimeoutError::Disconnected) => bail!("{}", said.join("; ")),
            }
        }
        Ok(Self {
            recorder,
            file,
            before: process.cpu()?,
            process,
            stderr,
            _stdin: stdin,
        })
    }

    /// Ends it, and reads its recording.
    pub fn end(mut self, tracer: &Path) -> Result<Recorded> {
        self.process.interrupt()?;
        let deadline = Instant::now() + PATIENCE;
        let used = loop {
            if let Some(used) = self.process.ended()? {
                break used;
            }
            ensure!(Instant::now() < deadline, "not ended after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(5));
        };
        let mut recorded = Recorded {
            cpu: nanos(used.cpu.saturating_sub(self.before)),
            ..Recorded::default()
        };
        if self.recorder != Recorder::Live {
            let size = fs::metadata(&self.file).with_context(|| format!("look at {}", self.file.display()))?;
            recorded.bytes = Some(size.len());
        }
        match self.recorder {
            // It reports only whether something was lost.
            Recorder::Live => match used.status.code() {
                Some(0) => recorded.lost = Some(0),
                Some(1) => {}
                _ => bail!("tracer: {}", used.status),
            },
            Recorder::Record(_) => {
                let info = info(tracer, &self.file)?;
                recorded.events = Some(sum(&info["events"]));
                recorded.lost = Some(count(&info["lost_events"]) + count(&info["missing_events"]));
            }
            Recorder::Perf { .. } => (recorded.events, recorded.lost) = perf_events(&self.file)?,
            Recorder::Bpftrace => {
                let text = fs::read_to_string(&self.file).context("read what bpftrace printed")?;
                recorded.events = Some(text.lines().filter(|line| line.split(' ').count() >= 4).count() as u64);
                let lost = self
                    .stderr
                    .try_iter()
                    .chain(text.lines().map(str::to_owned))
                    .filter_map(|line| {
                        let lost = line.strip_prefix("Lost ")?.strip_suffix(" events")?;
                        lost.parse::<u64>().ok()
                    });
                recorded.lost = Some(lost.sum());
            }
        }
        Ok(recorded)
    }
}

/// The output of `tracer info` for a recording. Its exit code is 1 if the recording is incomplete.
fn info(tracer: &Path, file: &Path) -> Result<Value> {
    let mut command = Command::new(tracer);
    command.arg("info").arg(file).arg("--json");
    let output = command
        .output()
        .with_context(|| format!("start {}", process::shown(&command)))?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{}: {}", process::shown(&command), output.status))
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn sum(counts: &Value) -> u64 {
    counts
        .as_object()
        .into_iter()
        .flatten()
        .map(|(_, value)| count(value))
        .sum()
}

/// The number of samples in perf's recording, and of lost ones.
fn perf_events(file: &Path) -> Result<(Option<u64>, Option<u64>)> {
    let mut script = Command::new("perf");
    script
        .args(["script", "--show-lost-events", "-F", "event,trace", "-i"])
        .arg(file);
    script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut script = Measured::spawn(&mut script)?;
    let stdout = BufReader::new(script.child.stdout.take().context("a piped stdout")?);
    let (mut events, mut lost) = (0, 0);
    for line in stdout.split(b'\n') {
        let line = line.context("read perf script")?;
        match String::from_utf8_lossy(&line).split_once("PERF_RECORD_LOST") {
            None => events += 1,
            Some((_, rest)) => {
                let number = rest.split(' ').find_map(|word| word.parse::<u64>().ok());
                lost += number.context("perf script reports a loss without its number")?;
            }
        }
    }
    let used = script.wait()?;
    ensure!(used.status.success(), "perf script: {}", used.status);
    Ok((Some(events), Some(lost)))
}

/// The command of a recorder that has attached: it waits for the end of stdin, or to be killed.
pub fn gate() -> Result<()> {
    eprintln!("{ATTACHED}");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("read stdin")?;
    Ok(())
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        // Text that is not UTF-8 is converted as well as possible. An error means the pipe's end.
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    lines
}
