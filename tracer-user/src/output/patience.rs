//! Patience with a reader who may have stopped reading: a run that is to end does not wait for long.
//! Input: a pipe, terminal or device; the end of the run.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, fstat},
    io::Errno,
};

use crate::run::ending::Ending;

/// A run that is to end waits for this time for a reader who reads nothing.
const LAST_PATIENCE: Duration = Duration::from_millis(500);
/// The end of the run is looked for at this interval.
const STEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// A pipe that can be written takes as many bytes without waiting (`PIPE_BUF`, pipe(7)).
const AT_ONCE: usize = 4096;

/// Waits for the reader of a stream.
#[derive(Debug)]
pub struct Patience {
    ending: Ending,
    /// The time since when the run is to end and the reader has read nothing.
    since: Option<Instant>,
}

impl Patience {
    /// Patience with the reader of a pipe, terminal or device. None: a regular file has no reader to wait for.
    #[must_use]
    pub fn with(file: impl AsFd, ending: &Ending) -> Option<Self> {
        let is_regular = fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        (!is_regular).then(|| Self {
            ending: ending.clone(),
            since: None,
        })
    }

    /// Waits until `file` can be written; returns as many of the bytes as it takes without waiting.
    ///
    /// # Errors
    /// `TimedOut` when the run is to end and the reader does not read.
    pub fn wait<'b>(&mut self, file: impl AsFd, bytes: &'b [u8]) -> io::Result<&'b [u8]> {
        let mut fds = [PollFd::new(&file, PollFlags::OUT)];
        loop {
            match poll(&mut fds, Some(&STEP)) {
                Ok(0) => {}
                Err(Errno::INTR) => continue,
                // An error of the stream is that of the write, which comes next.
                _ => {
                    self.since = None;
                    return Ok(&bytes[..bytes.len().min(AT_ONCE)]);
                }
            }
            if self.ending.is_here() && self.since.get_or_insert_with(Instant::now).elapsed() >= LAST_PATIENCE {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("its reader does not read; {} bytes wait", bytes.len()),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, thread};

    use super::*;

    fn fill(writer: &io::PipeWriter, patience: &mut Patience) -> io::Error {
        use std::io::Write as _;
        loop {
            match patience.wait(writer, &[0; 10_000]) {
                Ok(bytes) => {
                    assert!(bytes.len() <= AT_ONCE);
                    let mut writer = writer;
                    writer.write_all(bytes).unwrap();
                }
                Err(error) => return error,
            }
        }
    }

    #[test]
    fn a_run_that_is_to_end_does_not_wait_for_a_reader_who_has_stopped() {
        let (mut reader, writer) = io::pipe().unwrap();
        let ending = Ending::default();
        let mut patience = Patience::with(&writer, &ending).unwrap();
        ending.begin();
        let begun = Instant::now();
        let error = fill(&writer, &mut patience);
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= LAST_PATIENCE, "{:?}", begun.elapsed());
        // A reader who is slow is waited for.
        let drain = thread::spawn(move || {
            thread::sleep(LAST_PATIENCE / 4);
            reader.read(&mut [0; 1 << 13]).unwrap()
        });
        patience.since = None;
        assert!(patience.wait(&writer, &[0; 10]).is_ok_and(|bytes| bytes.len() == 10));
        assert!(drain.join().unwrap() > 0);
    }

    #[test]
    fn a_run_that_goes_on_waits() {
        let (_reader, writer) = io::pipe().unwrap();
        let ending = Ending::default();
        let mut patience = Patience::with(&writer, &ending).unwrap();
        let begun = Instant::now();
        ending.is_due(begun + LAST_PATIENCE);
        fill(&writer, &mut patience);
        assert!(begun.elapsed() >= 2 * LAST_PATIENCE, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_file_has_no_reader() {
        let file = tempfile::tempfile().unwrap();
        assert!(Patience::with(&file, &Ending::default()).is_none());
    }
}
