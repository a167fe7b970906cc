//! How far something long has come: a line on standard error that changes, and goes when it is done.
//! Input: what is read.

use std::{
    io::{self, IsTerminal as _, Read, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::render::quantity::Bytes;

/// What is done sooner has no line.
const FIRST: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(200);

/// Whether the line is there.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Takes the line away, before something else is said.
pub fn clear() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        // Talk: if nobody hears it, nothing is lost.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

/// Shows how much of something is done.
#[derive(Debug)]
pub struct Meter {
    /// Bytes.
    total: u64,
    done: u64,
    /// When the line is due; None: never.
    due: Option<Instant>,
}

impl Meter {
    /// Of `total` bytes; shows a line where `wanted`, if standard error is a terminal.
    pub fn new(total: u64, wanted: bool) -> Self {
        let shown = wanted && total > 0 && io::stderr().is_terminal();
        Self {
            total,
            done: 0,
            due: shown.then(|| Instant::now() + FIRST),
        }
    }

    /// So many bytes more are done.
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

/// Reads, and shows how much of it.
pub struct Progress<R> {
    input: R,
    meter: Meter,
}

impl<R: Read> Progress<R> {
    /// Reads the `total` bytes of `input`; shows a line where `wanted`, if standard error is a terminal.
    pub fn new(input: R, total: u64, wanted: bool) -> Self {
        Self {
            input,
            meter: Meter::new(total, wanted),
        }
    }
}

/// `42 % of 1.3 GiB`; a file that grows is never more than read.
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
