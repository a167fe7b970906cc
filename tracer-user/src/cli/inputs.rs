//! The recordings that a command line names: all are opened before the first byte of any is read, and with them the
//! privileges go that opening them may have needed.
//! Opened: paths; the recordings' first headers.

use std::{
    collections::HashSet,
    env,
    fs::{self, File, OpenOptions},
    io::{self, Seek as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process,
};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    cli::error::Refused,
    confinement::{Work, confine},
    escape::Printable,
    recording::set,
};

/// A recording that is open.
pub(super) struct Opened {
    pub path: PathBuf,
    pub file: File,
    /// Bytes of a regular file. None: a stream, which can be read once.
    pub size: Option<u64>,
}

/// Opens the recordings, then gives up all privileges but that to create files in `creates_in`.
///
/// # Errors
/// A recording that is not there, is no file, or is given twice: its events would count twice.
pub(super) fn open(paths: &[PathBuf], creates_in: Option<&Path>) -> anyhow::Result<Vec<Opened>> {
    let inputs = opened(paths)?;
    confine(Work::Recordings, creates_in);
    Ok(inputs)
}

/// The same for recordings that are read several times: what comes through a stream is kept in a file without a name.
///
/// # Errors
/// As [`open`], and when there is no room for it.
pub(super) fn open_to_seek(paths: &[PathBuf], creates_in: Option<&Path>) -> anyhow::Result<Vec<Opened>> {
    let mut inputs = opened(paths)?;
    for input in &mut inputs {
        if input.size.is_none() || input.file.stream_position()? > 0 {
            input
                .keep()
                .with_context(|| format!("cannot store the input from {}", name(&input.path)))?;
        }
    }
    confine(Work::Recordings, creates_in);
    Ok(inputs)
}

fn opened(paths: &[PathBuf]) -> anyhow::Result<Vec<Opened>> {
    allow_many_files();
    let mut known = HashSet::new();
    let mut inputs = Vec::with_capacity(paths.len());
    for path in paths {
        let cannot = |error: io::Error| Refused(format!("cannot read {}: {error}", name(path)));
        let file = if path == Path::new("-") {
            File::from(rustix::io::dup(rustix::stdio::stdin()).map_err(|error| cannot(error.into()))?)
        } else {
            File::open(path).map_err(cannot)?
        };
        let metadata = file.metadata().map_err(cannot)?;
        if metadata.is_dir() {
            return Err(Refused(format!("{} is a directory, not a recording of tracer", name(path))).into());
        }
        if metadata.is_file() && !known.insert((metadata.dev(), metadata.ino())) {
            return Err(Refused(format!("{} is given twice", name(path))).into());
        }
        inputs.push(Opened {
            path: path.clone(),
            size: metadata.is_file().then_some(metadata.len()),
            file,
        });
    }
    Ok(inputs)
}

impl Opened {
    /// Copies what is left of a stream into a temporary file without a name.
    fn keep(&mut self) -> io::Result<()> {
        let path = env::temp_dir().join(format!("tracer-{}", process::id()));
        let mut kept = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        fs::remove_file(&path)?;
        let size = io::copy(&mut self.file, &mut kept)?;
        kept.rewind()?;
        (self.file, self.size) = (kept, Some(size));
        Ok(())
    }
}

/// The recordings with the files of each run in the order in which they were recorded. Only regular files can be read in
/// advance.
///
/// # Errors
/// When a file cannot be read from its start again.
pub(super) fn in_order(inputs: Vec<Opened>) -> io::Result<Vec<Opened>> {
    if inputs.len() < 2 {
        return Ok(inputs);
    }
    let mut firsts = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let mut file = &input.file;
        let begins = match input.size {
            Some(_) => file.stream_position()? == 0,
            None => false,
        };
        // The reader of the file reports why it cannot be read.
        firsts.push(begins.then(|| set::first_header(file)).flatten());
        if begins {
            file.rewind()?;
        }
    }
    let mut inputs: Vec<Option<Opened>> = inputs.into_iter().map(Some).collect();
    let order = set::order(&firsts);
    Ok(order.into_iter().filter_map(|place| inputs[place].take()).collect())
}

/// A rotation may have more files than a process may open unless it requests more.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // Opening reports it if there are too many all the same.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

/// The name of a recording, for a person.
pub(super) fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        Printable(&path.to_string_lossy()).to_string()
    }
}
