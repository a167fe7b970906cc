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
    output::{Destination, Draft, Occupant, about},
    recording::writer::Store,
};

/// When what was written is to survive a power failure, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// When the kernel sees fit.
    Never,
    /// After the end of each file.
    End,
    /// After each block.
    Block,
}

/// How large files get.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Bytes; a block more at most.
    pub size: u64,
    /// Full files that are kept; 0: the run ends with the first one.
    pub keep: u32,
}

/// Where a recording goes.
pub struct Files {
    /// None: standard output, or a draft.
    destination: Option<Destination>,
    /// For messages; None: standard output.
    path: Option<PathBuf>,
    file: File,
    /// What can be cut off, and found full; not a pipe or a device.
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
    /// With the path: what is there already, a symbolic link, whatever the system says.
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

    /// One file, which gets its name when it is whole.
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

    /// Standard output.
    ///
    /// # Errors
    /// When it is closed.
    pub fn stdout() -> io::Result<Self> {
        let file = rustix::io::dup(rustix::stdio::stdout())?;
        Ok(Self::of(File::from(file)))
    }

    fn of(file: File) -> Self {
        Self {
            destination: None,
            path: None,
            file,
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
            // What nobody asked for is an error: a limit of the file system, or of this process (`ulimit -f`).
            io::ErrorKind::FileTooLarge => io::ErrorKind::StorageFull,
            other => other,
        };
        io::Error::new(kind, message)
    }

    fn synchronize(&self) -> io::Result<()> {
        if self.regular {
            self.file.sync_data().map_err(|error| self.about(&error))?;
        }
        Ok(())
    }

    /// A file whose name is lost is lost as well.
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
        let written = self.file.write(bytes).map_err(|error| match error.kind() {
            // A system call to be repeated; `write_all` does.
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

impl Store for Files {
    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.written >= limit.size)
    }

    fn may_rotate(&self) -> io::Result<()> {
        if self.regular && self.limit.is_some_and(|limit| limit.keep > 0) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "as large as --max-size lets it be",
        ))
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
        self.file = destination
            .rotate(&numbered(destination, 1))
            .map_err(|error| rotate(&error))?;
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
        self.file.set_len(self.good)?;
        self.file.seek(SeekFrom::Start(self.good))?;
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

/// Of another run there may be files where those of this one are going to be, or older ones that would be taken for parts
/// of it.
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

/// `tracer.data.3`.
fn numbered(destination: &Destination, number: u32) -> OsString {
    destination.with_suffix(&format!(".{number}"))
}
