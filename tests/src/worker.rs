//! A workload as its case uses it: started, waited for, given orders, and ended with the case.
//! Input: lines on the workload's stdout. It prints `ready` once, then answers line by line, and ends on `exit`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
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
        Ok(Self {
            name: name.to_owned(),
            child,
            stdin,
            lines: lines(stdout),
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last child that the workload has forked (fs/proc/array.c, `get_children_pid`, 6.1 to 7.3).
    pub fn youngest_child(&self) -> Result<u32> {
        let pid = self.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let youngest = children.split_ascii_whitespace().last();
        youngest.context("no child")?.parse().context("the child's number")
    }

    /// Waits until the workload has filled its memory.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let line = self.read_line(timeout)?;
        ensure!(line == "ready", "workload {} said {line:?} instead of ready", self.name);
        Ok(())
    }

    /// Sends the workload its next order.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the workload's stdin is already closed")?;
        writeln!(stdin, "{line}").with_context(|| format!("send {line:?} to workload {}", self.name))
    }

    /// Sends the workload its next order, and returns the answer.
    pub fn request(&mut self, order: &str, timeout: Duration) -> Result<String> {
        self.send(order)?;
        self.read_line(timeout)
    }

    /// Makes the workload record the frames of its pages, with which its next report compares.
    pub fn mark(&mut self, timeout: Duration) -> Result<()> {
        let line = self.request("mark", timeout)?;
        ensure!(
            line == "marked",
            "workload {} said {line:?} instead of marked",
            self.name
        );
        Ok(())
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

    /// Kills the workload with SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child
            .wait()
            .map(drop)
            .with_context(|| format!("wait for {}", self.name))
    }

    /// Waits for its own end.
    pub fn wait(mut self, timeout: Duration) -> Result<ExitStatus> {
        wait(&mut self.child, timeout).with_context(|| format!("wait for {}", self.name))
    }

    pub fn exit(mut self, timeout: Duration) -> Result<()> {
        self.send("exit")?;
        self.stdin = None;
        let status = wait(&mut self.child, timeout).with_context(|| format!("workload {}", self.name))?;
        ensure!(status.success(), "workload {}: {status}", self.name);
        Ok(())
    }
}

/// The lines of a pipe, read ahead by a thread of its own, so that waits can end by the clock. Text that is not UTF-8
/// is converted as well as possible.
pub fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        // An error means the pipe's end.
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    lines
}

/// Waits for a child's own end.
pub fn wait(child: &mut Child, timeout: Duration) -> Result<ExitStatus> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            return Ok(status);
        }
        ensure!(started.elapsed() < timeout, "did not end within {timeout:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and the wait returns at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_that_is_no_text_ends_nothing() {
        let lines: Vec<String> = super::lines(&b"a\n\xff\nb"[..]).iter().collect();
        assert_eq!(lines, ["a", "\u{fffd}", "b"]);
    }
}
