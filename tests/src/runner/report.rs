//! Writes the results for `cargo xtask`, which may be on the other end of a serial line.
//! Output: a file or a tty. `xtask/src/results/report.rs` is the reader, and its tests hold this format.
//!
//! The format is lines; some are followed by the announced number of raw bytes and a newline:
//!
//! ```text
//! tracer-tests 1 RELEASE CASES
//! begin NAME
//! tick
//! file NAME LENGTH HASH
//! end NAME passed|failed|skipped|not-applicable MILLISECONDS LENGTH
//! closing PASSED FAILED SKIPPED NOT-APPLICABLE
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::termios;

use super::tally::{Tally, Verdict};

/// The destination of results. Without one, every call does nothing.
pub struct Report(Option<File>);

impl Report {
    /// # Errors
    /// When `path` cannot be opened, or is a tty that cannot be made raw.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        if termios::isatty(&file) {
            // A cooked tty writes "\r\n" for "\n", which would change the files that are sent.
            let mut modes = termios::tcgetattr(&file).context("read the tty's modes")?;
            modes.make_raw();
            termios::tcsetattr(&file, termios::OptionalActions::Now, &modes).context("make the tty raw")?;
        }
        Ok(Self(Some(file)))
    }

    pub fn hello(&mut self, release: &str, cases: usize) -> io::Result<()> {
        self.write(format!("tracer-tests 1 {release} {cases}\n").as_bytes())
    }

    pub fn begin(&mut self, name: &str) -> io::Result<()> {
        self.write(format!("begin {name}\n").as_bytes())
    }

    /// Reports that the guest is alive while a long case is running.
    pub fn tick(&mut self) -> io::Result<()> {
        self.write(b"tick\n")
    }

    pub fn file(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        self.write(format!("file {name} {} {:016x}\n", data.len(), fnv1a(data)).as_bytes())?;
        self.write(data)?;
        self.write(b"\n")
    }

    pub fn end(&mut self, name: &str, verdict: Verdict, took: Duration, detail: &str) -> io::Result<()> {
        let word = match verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "failed",
            Verdict::Skipped => "skipped",
            Verdict::NotApplicable => "not-applicable",
        };
        self.write(format!("end {name} {word} {} {}\n{detail}\n", took.as_millis(), detail.len()).as_bytes())
    }

    /// Writes the last line: a run without it did not end.
    pub fn closing(&mut self, tally: &Tally) -> io::Result<()> {
        let Tally {
            passed,
            failed,
            skipped,
            not_applicable,
        } = tally;
        self.write(format!("closing {passed} {failed} {skipped} {not_applicable}\n").as_bytes())?;
        match &self.0 {
            // A power-off right after this would lose the bytes that the UART has not sent yet.
            Some(file) if termios::isatty(file) => Ok(termios::tcdrain(file)?),
            Some(_) | None => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }
}

/// FNV-1a, 64 bits. It detects a damaged transfer; it need not resist attacks.
fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    /// The values are from the reference vectors of FNV-1a; the reader has the same test.
    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(super::fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
