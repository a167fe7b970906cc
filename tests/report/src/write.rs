//! Writes the results of cases as they end.
//! Input: the results; output: a file or a tty, which may be a serial line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::termios;

use crate::{
    fnv1a,
    tally::{Tally, Verdict},
};

/// The destination of results. Without one, every call does nothing.
pub struct Writer(Option<File>);

impl Writer {
    /// Opens the file or tty; without a path, nothing is written.
    ///
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

    /// Writes the first line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn hello(&mut self, release: &str, cases: usize) -> io::Result<()> {
        self.write(format!("tracer-tests 1 {release} {cases}\n").as_bytes())
    }

    /// Reports that a case begins.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&mut self, name: &str) -> io::Result<()> {
        self.write(format!("begin {name}\n").as_bytes())
    }

    /// Reports that the writer is alive while a long case is running.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn tick(&mut self) -> io::Result<()> {
        self.write(b"tick\n")
    }

    /// Sends a file of the running case.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        self.write(format!("file {name} {} {:016x}\n", data.len(), fnv1a(data)).as_bytes())?;
        self.write(data)?;
        self.write(b"\n")
    }

    /// Reports how a case ended.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(&mut self, name: &str, verdict: Verdict, took: Duration, detail: &str) -> io::Result<()> {
        let word = verdict.word();
        self.write(format!("end {name} {word} {} {}\n{detail}\n", took.as_millis(), detail.len()).as_bytes())
    }

    /// Writes the last line: a report without it did not end.
    ///
    /// # Errors
    /// When it cannot be written.
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

#[cfg(test)]
mod tests {
    use std::{env, fs, process, time::Duration};

    use super::Writer;
    use crate::{
        read::STREAM,
        tally::{Tally, Verdict},
    };

    #[test]
    fn the_reader_reads_what_is_written() -> anyhow::Result<()> {
        let path = env::temp_dir().join(format!("tracer-tests-report-{}", process::id()));
        let mut writer = Writer::open(Some(&path))?;
        writer.hello("6.1.0-56-amd64", 2)?;
        writer.begin("a/b")?;
        writer.tick()?;
        writer.file("x.bin", b"foobar")?;
        writer.end("a/b", Verdict::Failed, Duration::from_millis(1500), "why:\n\nso.")?;
        writer.closing(&Tally {
            not_applicable: 3,
            ..Tally::of(Verdict::Failed)
        })?;
        let written = fs::read(&path)?;
        fs::remove_file(&path)?;
        assert_eq!(written, STREAM);
        Ok(())
    }
}
