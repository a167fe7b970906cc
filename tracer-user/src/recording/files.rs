//! The files of a recording: created for their owner alone, never in the place of another, rotated when they are full.
//! Input: a path; blocks.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    output::{Destination, Draft, Occupant, Output, about},
    recording::store::Store,
    run::ending::Ending,
};

/// When written data is made to survive a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// When the kernel writes it back.
    Never,
    /// After the end of each file.
    End,
    /// After each block.
    Block,
}

/// The limit of a file's size.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The most bytes of a file. A file is longer only if its first block does not fit.
    pub size: u64,
    /// The number of full files that are kept; 0: the run ends with the first one.
    pub keep: u32,
}

/// Blocks that fit into a file of limited size if each is as large as possible.
const BLOCKS: u64 = 8;

/// The destination of a recording.
pub struct Files {
    /// None: standard output, or a draft.
    destination: Option<Destination>,
    /// For messages; None: standard output.
    path: Option<PathBuf>,
    out: Output,
    /// Whether it is a regular file, which can be cut off and be full, and not a pipe or a device.
    regular: bool,
    limit: Option<Limit>,
    sync: Sync,
    /// Bytes of whole blocks in this file.
    good: u64,
    /// Bytes in this file.
    written: u64,
    total: Arc<AtomicU64>,
}

impl Files {
    /// Creates the file, or opens a pipe or a device; `force` replaces a file that is there.
    ///
    /// # Errors
    /// An existing file, a symbolic link, or any other system error, with the path.
    pub fn create(path: &Path, force: bool, limit: Option<Limit>, sync: Sync) -> io::Result<Self> {
        let destination = Destination::new(path).map_err(|error| about(path, "create", &error))?;
        if let Some(limit) = limit.filter(|limit| limit.keep > 0) {
            make_room(&destination, limit.keep, force)?;
        }
        let (file, occupant) = destination.open(force).map_err(|error| about(path, "create", &error))?;
        let files = Self {
            destination: Some(destination),
            path: Some(path.to_owned()),
            regular: occupant != Occupant::Stream,
            limit,
            sync,
            ..Self::of(file)
        };
        files.synchronize_name()?;
        Ok(files)
    }

    /// One file, which gets its name when it is complete.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn draft(draft: &Draft) -> io::Result<Self> {
        Ok(Self {
            path: Some(draft.path().to_owned()),
            regular: draft.is_file(),
            ..Self::of(draft.file()?)
        })
    }

    /// Does not wait for long for the reader of a stream once the run is to end.
    #[must_use]
    pub fn heeding(mut self, ending: &Ending) -> Self {
        self.out = self.out.heeding(ending);
        self
    }

    /// Standard output.
    ///
    /// # Errors
    /// If it is closed.
    pub fn stdout() -> io::Result<Self> {
        let file = rustix::io::dup(rustix::stdio::stdout())?;
        Ok(Self::of(File::from(file)))
    }

    fn of(file: File) -> Self {
        Self {
            destination: None,
            path: None,
            out: Output::new(file),
            regular: false,
            limit: None,
            sync: Sync::Never,
            good: 0,
            written: 0,
            total: Arc::default(),
        }
    }

    /// Bytes written so far, into all files.
    #[must_use]
    pub fn total(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.total)
    }

    fn about(&self, error: &io::Error) -> io::Error {
        let message = match &self.path {
            Some(path) => about(path, "write", error).to_string(),
            None => format!("cannot write to standard output: {error}"),
        };
        let kind = match error.kind() {
            // This limit of the file system or of this process (`ulimit -f`) was not requested, so it is an error.
            io::ErrorKind::FileTooLarge => io::ErrorKind::StorageFull,
            other => other,
        };
        io::Error::new(kind, message)
    }

    fn synchronize(&self) -> io::Result<()> {
        if self.regular {
            self.out.file().sync_data().map_err(|error| self.about(&error))?;
        }
        Ok(())
    }

    /// Synchronizes the directory: a file whose name is lost is lost as well.
    fn synchronize_name(&self) -> io::Result<()> {
        match &self.destination {
            Some(destination) if self.regular && self.sync != Sync::Never => destination
                .sync_names()
                .map_err(|error| about(destination.path(), "create", &error)),
            _ => Ok(()),
        }
    }
}

impl Write for Files {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes).map_err(|error| match error.kind() {
            // The caller repeats the system call; `write_all` does.
            io::ErrorKind::Interrupted => error,
            _ => self.about(&error),
        })?;
        self.written += written as u64;
        self.total.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Limit {
    /// The most bytes of a block: a fraction of the file, so that little of it stays unused.
    fn block(self) -> u64 {
        self.size / BLOCKS
    }
}

impl Store for Files {
    fn most_content(&self) -> Option<usize> {
        let block = self.limit?.block();
        Some(usize::try_from(block).unwrap_or(usize::MAX))
    }

    fn is_full(&self) -> bool {
        let limit = self.limit;
        // A packed block is smaller than its content.
        limit.is_some_and(|limit| self.written.saturating_add(limit.block()) > limit.size)
    }

    fn may_rotate(&self) -> io::Result<()> {
        if self.regular && self.limit.is_some_and(|limit| limit.keep > 0) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::FileTooLarge, "--max-size is reached"))
    }

    fn next_file(&mut self) -> io::Result<()> {
        let (Some(destination), Some(limit)) = (&self.destination, self.limit) else {
            return Ok(());
        };
        if self.sync != Sync::Never {
            self.synchronize()?;
        }
        let rotate = |error: &io::Error| about(destination.path(), "rotate", error);
        for number in (1..limit.keep).rev() {
            let [from, to] = [number, number + 1].map(|number| numbered(destination, number));
            destination.move_over(&from, &to).map_err(|error| rotate(&error))?;
        }
        let next = destination.rotate(&numbered(destination, 1));
        self.out = Output::new(next.map_err(|error| rotate(&error))?);
        (self.good, self.written) = (0, 0);
        self.synchronize_name()
    }

    fn block_done(&mut self) -> io::Result<()> {
        self.good = self.written;
        if self.sync == Sync::Block {
            self.synchronize()?;
        }
        Ok(())
    }

    fn cut_back(&mut self) -> io::Result<()> {
        if !self.regular {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut file = self.out.file();
        file.set_len(self.good)?;
        file.seek(SeekFrom::Start(self.good))?;
        self.written = self.good;
        Ok(())
    }

    fn done(&mut self) -> io::Result<()> {
        if self.sync == Sync::Never {
            return Ok(());
        }
        self.synchronize()
    }
}

/// Makes room for this run's files. With `force`, existing files of these names, and older ones that would be taken for
/// parts of it, are removed; without, they are an error.
fn make_room(destination: &Destination, keep: u32, force: bool) -> io::Result<()> {
    for number in 1.. {
        let name = numbered(destination, number);
        let part = destination.path().with_file_name(&name);
        let there = destination
            .has(&name)
            .map_err(|error| about(&part, "look at", &error))?;
        if !there && number > keep {
            break;
        } else if there && force {
            destination
                .remove(&name)
                .map_err(|error| about(&part, "replace", &error))?;
        } else if there {
            return Err(about(&part, "rotate to", &io::ErrorKind::AlreadyExists.into()));
        }
    }
    Ok(())
}

/// The name of a numbered file, such as `tracer.data.3`.
fn numbered(destination: &Destination, number: u32) -> OsString {
    destination.with_suffix(&format!(".{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, Move},
        made_up,
        recording::writer::Writer,
        units::{Nanos, Pfn, VirtAddr},
    };

    #[test]
    fn no_file_is_larger_than_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let limit = Limit {
            size: 64 << 10,
            keep: 999,
        };
        let files = Files::create(&dir.path().join("r.data"), false, Some(limit), Sync::Never).unwrap();
        let mut writer = Writer::new(files).unwrap();
        writer.begin(&made_up::header()).unwrap();
        // Random numbers pack badly.
        let mut state = 1u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        for number in 0..100_000 {
            let event = Event::Move(Move {
                at: Nanos(5_000_000_000 + number * 1000),
                vaddr: VirtAddr(random() << 12 & 0x7fff_ffff_f000),
                old_pfn: Some(Pfn(random() & 0xff_ffff)),
                new_pfn: Some(Pfn(random() & 0xff_ffff)),
                ..made_up::moved()
            });
            writer.event(&event).unwrap();
            if number % 1000 == 0 {
                writer.flush().unwrap();
            }
        }
        writer.interval(&made_up::interval()).unwrap();
        writer.finish(&made_up::summary()).unwrap();
        let sizes: Vec<u64> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert!(sizes.len() > 5, "{sizes:?}");
        assert!(sizes.iter().all(|size| *size <= limit.size), "{sizes:?}");
        let half = sizes.iter().filter(|size| **size < limit.size / 2).count();
        assert!(half <= 1, "{sizes:?}");
    }
}
