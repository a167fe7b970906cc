//! A run of `tracer` as a user sees it: its arguments, exit code, stdout and stderr, and the files that it leaves.
//! Input: a `Command`, and the program's output until it ends.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::lines::SummaryLine;
use crate::case::Env;
use crate::worker;

/// Anything that is going to happen has happened by then: a verifier under software emulation is slow.
pub const SOON: Duration = Duration::from_mins(1);

/// `tracer ARGS` with backtraces requested: an error must not show one nevertheless.
pub fn tracer(env: &Env, args: &[&str]) -> Command {
    program_with(&env.tracer, args)
}

/// Another program with these arguments.
pub fn program_with(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("RUST_BACKTRACE", "1")
        .env("RUST_LIB_BACKTRACE", "1")
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // These tests may have been started with signals ignored, by nohup or a shell's `&`.
    // SAFETY: only system calls.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    command
}

/// `tracer-tests work ARGS`, as the words of a COMMAND.
pub fn workload<'a>(exe: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["--", exe, "work"], args].concat()
}

/// `tracer-tests work ARGS` in the place of tracer.
pub fn in_workload(args: &[&str]) -> Result<Command> {
    Ok(program_with(this_program()?.as_ref(), &[&["work"], args].concat()))
}

pub fn this_program() -> Result<String> {
    let exe = std::env::current_exe().context("find this program")?;
    Ok(exe.to_str().context("this program's path is no text")?.to_owned())
}

/// A copy of a program that every user can reach.
pub fn public_copy(env: &Env, program: &Path) -> Result<PathBuf> {
    let copy = env.scratch.join(program.file_name().context("a file name")?);
    fs::copy(program, &copy).with_context(|| format!("copy {}", program.display()))?;
    Ok(copy)
}

/// Starts the program and waits for its own end.
pub fn run(command: Command) -> Result<Ended> {
    Program::start(command)?.wait()
}

/// A running program in a process group of its own; the group is killed on drop.
pub struct Program {
    child: Child,
    stdout: Option<Stream>,
    stderr: Stream,
}

impl Program {
    /// Starts a command with a piped stderr, and perhaps a piped stdout.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let stdout = child.stdout.take().map(Stream::of);
        let stderr = Stream::of(child.stderr.take().context("a piped stderr")?);
        Ok(Self { child, stdout, stderr })
    }

    /// Starts tracer and waits until its hooks are attached, which the greeting shows.
    pub fn attached(command: Command) -> Result<Self> {
        let mut program = Self::start(command)?;
        let greeted = program.stderr.wait_for(" · Linux ")?;
        ensure!(greeted, "tracer ended early: {}", program.stderr.text());
        Ok(program)
    }

    /// Waits until its stdout contains these words.
    pub fn wait_for(&mut self, words: &str) -> Result<()> {
        let stdout = self.stdout.as_mut().context("stdout was given away")?;
        let said = stdout.wait_for(words)?;
        ensure!(said, "stdout ended without {words:?}: {}", stdout.text());
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.group()?, signal).context("signal tracer")
    }

    /// Signals tracer and its COMMAND, as a terminal does.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        kill_process_group(self.group()?, signal).context("signal the process group")
    }

    fn group(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.child.id())?).context("a pid")
    }

    /// The other end of its stdin.
    pub fn take_stdin(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("a piped stdin")
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Observes the program for a while, because the absence of an event cannot be waited for.
    pub fn ensure_runs_for(&mut self, time: Duration) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < time {
            ensure!(self.runs()?, "tracer ended too early: {}", self.stderr.text());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("wait for tracer")?.is_none())
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        worker::wait(&mut self.child, SOON).with_context(|| format!("tracer; stderr: {}", self.stderr.text()))
    }

    /// Waits for its end and for all its output. A process that it left behind would hold stderr open.
    pub fn wait(mut self) -> Result<Ended> {
        let status = self.ended()?;
        self.close_stdin();
        let stdout = self.stdout.take().map_or(Ok(String::new()), Stream::into_text);
        let stderr = std::mem::replace(&mut self.stderr, Stream::of(io::empty())).into_text();
        Ok(Ended {
            status,
            stdout: stdout.context("stdout is still held open")?,
            stderr: stderr.context("stderr is still held open: something was left behind")?,
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already, with all processes that it started.
        let _ = self.signal_group(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The output of a pipe, read ahead by a thread of its own, so that waits can end by the clock.
struct Stream {
    chunks: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Stream {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let (sender, chunks) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            chunks,
            bytes: Vec::new(),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Reads the next piece. Returns false if the pipe is closed.
    fn next(&mut self, deadline: Instant) -> Result<bool> {
        match self
            .chunks
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(chunk) => self.bytes.extend(chunk),
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
            Err(RecvTimeoutError::Timeout) => bail!("nothing more came for too long after: {}", self.text()),
        }
        Ok(true)
    }

    /// Returns true when a whole line with these words has arrived, false when the pipe was closed before.
    fn wait_for(&mut self, words: &str) -> Result<bool> {
        let deadline = Instant::now() + SOON;
        loop {
            let text = self.text();
            if text.find(words).is_some_and(|at| text[at..].contains('\n')) {
                return Ok(true);
            }
            if !self.next(deadline)? {
                return Ok(false);
            }
        }
    }

    fn into_text(mut self) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.next(deadline)? {}
        Ok(self.text())
    }
}

/// The exit status of a program and its output.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn ensure_code(&self, code: i32) -> Result<()> {
        ensure!(self.status.code() == Some(code), "exit code {code} expected: {self:?}");
        self.ensure_calm()
    }

    /// Checks that the output has no messages of the language runtime.
    fn ensure_calm(&self) -> Result<()> {
        for word in ["panicked", "backtrace", "BACKTRACE", "unwrap"] {
            ensure!(!self.stderr.contains(word), "{word:?} on stderr: {}", self.stderr);
        }
        Ok(())
    }

    /// Checks that it failed: exit code 2, nothing on stdout, and one message with each of these words.
    pub fn ensure_refused(&self, words: &[&str]) -> Result<()> {
        self.ensure_code(2)?;
        self.ensure_one_message(words)
    }

    /// Checks that stdout is empty, and that stderr is one message that has its cause once.
    pub fn ensure_one_message(&self, words: &[&str]) -> Result<()> {
        let Self { stdout, stderr, .. } = self;
        ensure!(stdout.is_empty(), "something on stdout: {stdout}");
        let messages = stderr
            .lines()
            .filter(|line| line.starts_with("tracer") || line.starts_with("error: "));
        ensure!(messages.count() == 1, "not one message: {stderr}");
        ensure!(
            stderr.starts_with("tracer: ") || stderr.starts_with("error: "),
            "who speaks? {stderr}"
        );
        ensure!(
            stderr.matches("(os error").count() <= 1,
            "the message has its cause twice: {stderr}"
        );
        for word in words {
            ensure!(stderr.contains(word), "no word of {word:?}: {stderr}");
        }
        ensure_harmless(stderr)
    }

    /// Checks for a complete run: exit code 0, and the closing page last on stdout.
    pub fn ensure_complete(&self, json: bool) -> Result<()> {
        self.ensure_code(0)?;
        self.ensure_summary(json)
    }

    /// Checks that the closing page is last on stdout.
    pub fn ensure_summary(&self, json: bool) -> Result<()> {
        let last = self.stdout.lines().last().unwrap_or_default();
        let (mark, all) = if json {
            (r#""kind":"summary""#, last)
        } else {
            (" moved in ", self.stdout.as_str())
        };
        ensure!(all.matches(mark).count() == 1, "no summary: {self:?}");
        if json {
            let summary: SummaryLine = serde_json::from_str(last).context("the summary")?;
            summary.ensure_conservation()?;
        }
        // In text, these words report books that should balance and do not.
        for words in [
            "the books do not balance",
            "the kernel's count differs from what was seen",
        ] {
            ensure!(!self.stdout.contains(words), "{words}: {self:?}");
        }
        ensure!(
            json || last.starts_with("cost "),
            "something after the summary: {self:?}"
        );
        Ok(())
    }
}

/// Checks that no byte could be a terminal's command.
pub fn ensure_harmless(text: &str) -> Result<()> {
    let bad = |c: char| c.is_control() && c != '\n';
    ensure!(!text.contains(bad), "control characters: {text:?}");
    Ok(())
}
