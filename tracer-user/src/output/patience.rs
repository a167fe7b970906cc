//! Patience with a reader who may have stopped reading: a run that is to end does not wait for long.
//! Input: a pipe, terminal or device; the end of the run.

use std::{
    fs::File,
    io::{self, Write as _},
    mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fstat, open},
    io::{Errno, ioctl_fionread},
    pipe::fcntl_setpipe_size,
};

use crate::run::ending::Ending;

/// The end of the run is looked for at this interval.
const STEP: Duration = Duration::from_millis(50);
/// A run that is to end waits for this number of steps, 500 ms, for a reader who reads nothing.
const LAST_PATIENCE: u32 = 10;
/// This number of late steps count as one: where tracer itself is woken late, the reader has not had the time, either.
const LATE: u32 = 10;
/// The size of a pipe, bytes, as far as the kernel allows it (/proc/sys/fs/pipe-max-size): a reader who is held up for a
/// moment finds all that was written meanwhile.
const PIPE: usize = 1 << 20;
/// A pipe that can be written takes as many bytes without waiting (`PIPE_BUF`, pipe(7)).
const AT_ONCE: usize = 4096;

/// An output: a file, or a stream with a reader.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// With the reader of a stream; None: it is waited for.
    patience: Option<Patience>,
}

impl Output {
    /// Writes to a file or a stream, for whose reader it waits.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, patience: None }
    }

    /// Does not wait for long for the reader of a stream once the run is to end.
    #[must_use]
    pub fn heeding(mut self, ending: &Ending) -> Self {
        self.patience = Patience::with(&self.file, ending);
        self
    }

    /// The file, or the stream.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.patience {
            Some(patience) => patience.write(&self.file, bytes),
            None => self.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to a pipe, terminal or device, and waits for its reader.
#[derive(Debug)]
struct Patience {
    /// The same stream, opened anew: only here writing does not wait. None: it cannot be opened, as a socket.
    own: Option<File>,
    reader: Reader,
}

/// The reader, as far as he can be seen.
#[derive(Debug, Default)]
struct Reader {
    ending: Ending,
    /// The steps for which the run is to end and the reader has read nothing; [`LATE`] for each that was in time.
    idle: u32,
    /// The reader was given up: what follows a part of a line would be taken for the rest of it.
    given_up: bool,
    /// Bytes that the reader has not read, as far as is known.
    unread: u64,
}

impl Patience {
    /// Patience with the reader of a pipe, terminal or device. None: a regular file has no reader to wait for.
    fn with(file: impl AsFd, ending: &Ending) -> Option<Self> {
        let file = file.as_fd();
        // A pipe of another user, or a stream of another kind, remains as it is.
        let _ = fcntl_setpipe_size(file, PIPE);
        let is_regular = fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        (!is_regular).then(|| Self {
            own: opened_anew(file).ok(),
            reader: Reader {
                ending: ending.clone(),
                ..Reader::default()
            },
        })
    }

    /// Writes some of the bytes to `file`, as soon as it takes any.
    ///
    /// # Errors
    /// `TimedOut` when the run is to end and the reader does not read; the errors of the write.
    fn write(&mut self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        if self.reader.given_up {
            return Err(Reader::does_not_read(bytes.len()));
        }
        let Some(own) = &mut self.own else {
            self.reader.wait(file, bytes.len())?;
            return file.write(&bytes[..bytes.len().min(AT_ONCE)]);
        };
        loop {
            match own.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.reader.wait(own, bytes.len())?,
                written => return written,
            }
        }
    }
}

impl Reader {
    /// Waits until `file` can be written.
    fn wait(&mut self, file: &File, waiting: usize) -> io::Result<()> {
        let mut fds = [PollFd::new(file, PollFlags::OUT)];
        let step = Timespec {
            tv_sec: 0,
            tv_nsec: STEP.subsec_nanos().into(),
        };
        loop {
            let begun = Instant::now();
            match poll(&mut fds, Some(&step)) {
                Ok(0) => {}
                Err(Errno::INTR) => continue,
                // An error of the stream is that of the write, which comes next.
                _ => {
                    self.idle = 0;
                    return Ok(());
                }
            }
            // A pipe can be written when a whole page of it was read.
            let unread = ioctl_fionread(file).unwrap_or(0);
            if unread < mem::replace(&mut self.unread, unread) {
                self.idle = 0;
            } else if self.ending.is_here() {
                self.idle += if begun.elapsed() < STEP * 2 { LATE } else { 1 };
            }
            if self.idle >= LAST_PATIENCE * LATE {
                self.given_up = true;
                return Err(Self::does_not_read(waiting));
            }
        }
    }

    fn does_not_read(waiting: usize) -> io::Error {
        let text = format!("its reader does not read; {waiting} bytes wait");
        io::Error::new(io::ErrorKind::TimedOut, text)
    }
}

/// The same stream under a description of its own, whose flags nobody shares.
fn opened_anew(file: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(File::from(open(path, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, os::fd::OwnedFd, thread};

    use super::*;

    const PATIENCE: Duration = STEP.saturating_mul(LAST_PATIENCE);

    fn pipe() -> (io::PipeReader, File) {
        let (reader, writer) = io::pipe().unwrap();
        (reader, File::from(OwnedFd::from(writer)))
    }

    fn fill(writer: &File, patience: &mut Patience) -> io::Error {
        loop {
            match patience.write(writer, &[0; 10_000]) {
                Ok(written) => assert!(written > 0),
                Err(error) => return error,
            }
        }
    }

    #[test]
    fn a_run_that_is_to_end_does_not_wait_for_a_reader_who_has_stopped() {
        for own in [true, false] {
            let (mut reader, writer) = pipe();
            let ending = Ending::default();
            let mut patience = Patience::with(&writer, &ending).unwrap();
            patience.own.take_if(|_| !own);
            ending.begin();
            let begun = Instant::now();
            let error = fill(&writer, &mut patience);
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
            // A line that was cut off remains the last.
            let more = begun.elapsed();
            assert!(patience.write(&writer, &[0; 10]).is_err());
            assert!(begun.elapsed() < more + PATIENCE / 2);
            patience.reader = Reader {
                ending,
                ..Reader::default()
            };
            // A reader who is slow is waited for, also one who takes less than the pipe gives back.
            let drain = thread::spawn(move || {
                for _ in 0..12 {
                    thread::sleep(PATIENCE / 4);
                    reader.read_exact(&mut [0; 1000]).unwrap();
                }
                reader
            });
            assert!(patience.write(&writer, &[0; 10]).is_ok_and(|written| written == 10));
            drop(drain.join().unwrap());
        }
    }

    #[test]
    fn a_run_that_goes_on_waits() {
        let (_reader, writer) = pipe();
        let ending = Ending::default();
        let mut patience = Patience::with(&writer, &ending).unwrap();
        let begun = Instant::now();
        ending.is_due(begun + PATIENCE);
        fill(&writer, &mut patience);
        assert!(
            begun.elapsed() >= PATIENCE + STEP * (LAST_PATIENCE - 1),
            "{:?}",
            begun.elapsed()
        );
    }

    #[test]
    fn a_file_has_no_reader() {
        let file = tempfile::tempfile().unwrap();
        assert!(Patience::with(&file, &Ending::default()).is_none());
    }
}
