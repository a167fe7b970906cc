//! Watches a running VM: passes on what the guest reports, and ends it when it crashes, hangs or goes silent.
//! Input: the files behind its two serial ports.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracer_tests_report::read::{Message, Reader};

use super::qemu::Outputs;
use crate::host::process::Guard;

const POLL: Duration = Duration::from_millis(50);
/// Time after the first sign of a crash, for the rest of the kernel's message.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Time after the closing line, to power off.
const POWER_OFF: Duration = Duration::from_secs(20);
const TAIL_LINES: usize = 40;

/// Messages that show that the kernel is broken, whatever the tests report; 6.1 to 7.3: kernel/panic.c `panic`,
/// arch/x86/kernel/dumpstack.c `__die_header`, lib/bug.c `report_bug`, and `BUG: ` at the start of a message by
/// convention (page tables, soft lockups, sleeping while atomic).
const CRASHES: &[&str] = &["Kernel panic - not syncing", "Oops: ", "kernel BUG at ", " BUG: "];

/// The longest time that a VM may take, and that it may be silent.
#[derive(Clone, Copy)]
pub struct Limits {
    pub total: Duration,
    pub silence: Duration,
}

/// Watches until the VM has ended. Its guard ends it in any case.
///
/// # Errors
/// With the console's last lines, when the guest crashed, hung, or ended without its closing line.
pub fn watch(
    mut vm: Guard,
    outputs: &Outputs,
    limits: Limits,
    mut on_message: impl FnMut(Message) -> Result<()>,
) -> Result<()> {
    let mut console = Tail::default();
    let mut results = Tail::default();
    let mut reader = Reader::default();
    let mut spoken = Vec::new();
    let mut crash = None;
    let mut closed = false;
    let started = Instant::now();
    let mut last_sign = started;
    let mut deadline: Option<(Instant, String)> = None;
    loop {
        // The order matters: output from before the end is read after it.
        let ended = vm.ended()?;
        let said = console.poll(&outputs.console)?;
        let reported = results.poll(&outputs.results)?;
        if !said.is_empty() || !reported.is_empty() {
            last_sign = Instant::now();
        }
        if !said.is_empty() {
            // All of it is searched again, because a line may have arrived in two pieces.
            spoken.extend(said);
            crash = crash_in(&spoken);
        }
        reader.feed(&reported);
        while let Some(message) = reader
            .message()
            .map_err(|error| with_console(&format!("{error:#}"), outputs))?
        {
            closed |= matches!(message, Message::Closing { .. });
            on_message(message)?;
        }
        if deadline.is_none() {
            if let Some(crash) = &crash {
                deadline = Some((Instant::now() + LAST_WORDS, format!("the kernel crashed: {crash}")));
            } else if closed {
                deadline = Some((
                    Instant::now() + POWER_OFF,
                    "the guest was done but did not power off".into(),
                ));
            }
        }
        if let Some(status) = ended {
            return match (crash, closed) {
                (Some(crash), _) => Err(with_console(&format!("the kernel crashed: {crash}"), outputs)),
                (None, true) => Ok(()),
                (None, false) => Err(with_console(
                    &format!("the VM ended ({status}) before its tests did"),
                    outputs,
                )),
            };
        }
        if let Some((_, reason)) = deadline.take_if(|(at, _)| Instant::now() >= *at) {
            return Err(with_console(&reason, outputs));
        }
        if started.elapsed() >= limits.total {
            let reason = format!("not done after {} s (--timeout), stopped", limits.total.as_secs());
            return Err(with_console(&reason, outputs));
        }
        if last_sign.elapsed() >= limits.silence {
            let reason = format!(
                "no sign of life for {} s (--silence), stopped",
                limits.silence.as_secs()
            );
            return Err(with_console(&reason, outputs));
        }
        thread::sleep(POLL);
    }
}

/// Reads the new bytes of a growing file.
#[derive(Default)]
struct Tail {
    file: Option<File>,
}

impl Tail {
    fn poll(&mut self, path: &Path) -> Result<Vec<u8>> {
        if self.file.is_none() {
            // QEMU creates the file when it starts.
            self.file = File::open(path).ok();
        }
        let mut new = Vec::new();
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut new)
                .with_context(|| format!("read {}", path.display()))?;
        }
        Ok(new)
    }
}

/// The first line that shows a crash.
fn crash_in(console: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(console);
    let line = text
        .lines()
        .find(|line| CRASHES.iter().any(|crash| line.contains(crash)))?;
    Some(line.trim().to_owned())
}

/// The reason, then the facts to judge it: the end of the console and QEMU's own messages.
fn with_console(reason: &str, outputs: &Outputs) -> anyhow::Error {
    let mut text = reason.to_owned();
    for (name, path) in [("QEMU", &outputs.qemu), ("console", &outputs.console)] {
        let content = fs::read(path).unwrap_or_default();
        let lines: Vec<String> = String::from_utf8_lossy(&content)
            .lines()
            .map(|line| line.trim_end().into())
            .collect();
        let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if !shown.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n--- {name}, last {} lines\n{}", shown.len(), shown.join("\n"));
        }
    }
    anyhow::Error::msg(text)
}

#[cfg(test)]
mod tests {
    use super::crash_in;

    #[test]
    fn crashes_are_seen_and_mere_errors_are_not() {
        let seen = |console: &str| crash_in(console.as_bytes()).is_some();
        assert!(seen("[    3.1] Kernel panic - not syncing: sysrq triggered crash\r\n"));
        assert!(seen("[    3.1] BUG: Bad page state in process x  pfn:1234\r\n"));
        assert!(seen("[    3.1] Oops: 0002 [#1] PREEMPT SMP\r\n"));
        assert!(!seen(
            "[    3.1] Memory failure: 0x1234: recovery action for dirty LRU page: Recovered\r\n"
        ));
        assert!(!seen(
            "[    3.1] DEBUG: x\r\nMCE: Killing tracer-tests:77 due to hardware memory corruption"
        ));
    }
}
