//! A workload as its case sees it: started, waited for, told what to do, and never left behind.
//! Input: lines on the workload's stdout. It says `ready` once, then answers line by line, and ends on `exit`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// A running workload; killed on drop.
pub struct Worker {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Worker {
    /// Starts `tracer-tests work NAME ARGS...`. Its stderr becomes part of the case's output.
    pub fn spawn(name: &str, args: &[&str]) -> Result<Self> {
        let exe = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(exe)
            .args(["work", name])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start workload {name}"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a piped stdout")?;
        let (sender, lines) = channel();
        // Reads ahead, so that a wait for a line can end by the clock. Ends with the workload's stdout.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            stdin,
            lines,
        })
    }

    #[allow(dead_code, reason = "the catalogue decides whether pids are asked for")]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the workload has filled its memory.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let line = self.read_line(timeout)?;
        ensure!(line == "ready", "workload {} said {line:?} instead of ready", self.name);
        Ok(())
    }

    /// Tells the workload what to do next.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the workload was told to exit")?;
        writeln!(stdin, "{line}").with_context(|| format!("send {line:?} to workload {}", self.name))
    }

    /// The workload's next line, without its newline.
    pub fn read_line(&mut self, timeout: Duration) -> Result<String> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("workload {} said nothing for {timeout:?}", self.name)
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().context("wait for the workload")?;
                bail!("workload {} ended early: {status}", self.name)
            }
        }
    }

    /// Lets the workload end and checks that it ended well.
    pub fn exit(mut self, timeout: Duration) -> Result<()> {
        self.send("exit")?;
        self.stdin = None;
        let status = self.wait(timeout)?;
        ensure!(status.success(), "workload {}: {status}", self.name);
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("wait for the workload")? {
                return Ok(status);
            }
            ensure!(
                started.elapsed() < timeout,
                "workload {} did not exit within {timeout:?}",
                self.name
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and the wait returns at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
