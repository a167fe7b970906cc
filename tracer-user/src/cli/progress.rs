//! The progress of a long operation: a changing line on standard error, which is removed at the end.
//! Input: the bytes that are read.

use std::{
    io::{self, IsTerminal as _, Read, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::words::quantity::Bytes;

/// An operation that is done sooner has no line.
const FIRST: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);

/// Whether the line is there.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Removes the line, before something else is printed.
pub fn clear() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        // Nothing is lost if this cannot be written.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

/// Shows the progress of an operation.
#[derive(Debug)]
pub struct Meter {
    /// Bytes.
    total: u64,
    done: u64,
    /// When the line is due; None: never.
    due: Option<Instant>,
}

impl Meter {
    /// Progress of `total` bytes; shows a line if `wanted` and if standard error is a terminal.
    pub fn new(total: u64, wanted: bool) -> Self {
        let shown = wanted && total > 0 && io::stderr().is_terminal();
        Self {
            total,
            done: 0,
            due: shown.then(|| Instant::now() + FIRST),
        }
    }

    /// Adds bytes that are done.
    pub fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = Some(Instant::now() + EVERY);
            SHOWN.store(true, Ordering::Relaxed);
            let _ = write!(io::stderr(), "\r\x1b[K{}", line(self.done, self.total));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        clear();
    }
}

/// Reads, and shows the progress.
pub struct Progress<R> {
    input: R,
    meter: Meter,
}

impl<R: Read> Progress<R> {
    /// Reads the `total` bytes of `input`; shows a line if `wanted` and if standard error is a terminal.
    pub fn new(input: R, total: u64, wanted: bool) -> Self {
        Self {
            input,
            meter: Meter::new(total, wanted),
        }
    }
}

/// `42 % of 1.3 GiB`; at most 100 %, even if the file grows.
fn line(read: u64, total: u64) -> String {
    let percent = u128::from(read) * 100 / u128::from(total.max(1));
    format!("{} % of {}", percent.min(100), Bytes(total))
}

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.meter.advance(bytes as u64);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_share_of_the_file() {
        assert_eq!(line(0, 3 << 30), "0 % of 3.0 GiB");
        assert_eq!(line(1 << 30, 3 << 30), "33 % of 3.0 GiB");
        assert_eq!(line(5 << 10, 3 << 10), "100 % of 3 KiB");
    }
}
