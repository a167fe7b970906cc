//! `tracer cat` and `tracer info`: what is in a recording.
//! Input: the parsed command line; a recording.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, IsTerminal as _, Read, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    analysis::{Input, contents, not_here, unreadable as unreadable_part},
    cli::{
        error::Refused,
        progress::{self, Progress},
        view,
    },
    escape::Printable,
    pipeline::replay::{self, ReplayError},
    recording::{
        contents::Contents,
        reader::{Missing, ReadError, RecordingFile},
    },
    render::{json, text},
    sink::Sink,
};

const CAT_EXAMPLES: &str = "\
Examples:
  tracer cat tracer.data                         the rows that tracing would have shown
  tracer cat tracer.data --json | jq -c 'select(.kind == \"failure\")'
                                                 what could not be moved, for programs
  ssh db-1 cat tracer.data | tracer cat -        from elsewhere";

const INFO_EXAMPLES: &str = "\
Examples:
  tracer info tracer.data                        how it was made, and whether all of it is there
  tracer info tracer.data --json | jq .whole     for programs

The exit code is 1 where something is missing.";

#[derive(Debug, clap::Args)]
#[command(after_help = CAT_EXAMPLES)]
pub struct CatArgs {
    /// The recording; - is standard input
    #[arg(value_name = "FILE", default_value = "tracer.data")]
    pub file: PathBuf,

    #[command(flatten)]
    pub view: view::Args,
}

#[derive(Debug, clap::Args)]
#[command(after_help = INFO_EXAMPLES)]
pub struct InfoArgs {
    /// The recording; - is standard input
    #[arg(value_name = "FILE", default_value = "tracer.data")]
    pub file: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs `tracer cat`. The exit code is 1 where something is missing from the recording.
///
/// # Errors
/// When it cannot be read, or standard output not be written.
pub fn cat(args: &CatArgs) -> anyhow::Result<ExitCode> {
    // Rows show by themselves how far it is.
    let progress = !io::stdout().is_terminal();
    let mut reading = Reading::new(progress);
    match reading.replay(&args.file, args.view.sink().as_mut()) {
        Ok(()) => Ok(reading.end()),
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// Whether nobody reads any more.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Recordings that are read one after the other, and what comes to light of them.
pub(super) struct Reading {
    /// What is known of those that were read so far.
    pub input: Input,
    /// Whether to show how far it is.
    progress: bool,
}

impl Reading {
    /// Shows how far it is if `progress`.
    pub fn new(progress: bool) -> Self {
        Self {
            input: Input::default(),
            progress,
        }
    }

    /// Feeds the recording at `path` into a sink, and says on standard error what is missing from it.
    pub fn replay(&mut self, path: &Path, sink: &mut dyn Sink) -> anyhow::Result<()> {
        let mut recording = open(path, self.progress)?;
        let replayed = replay::replay(&mut recording, sink, &mut self.input.parts, |missing| {
            complain(path, missing);
        });
        self.input.is_damaged |= !replayed.map_err(|error| match error {
            ReplayError::Read(error) => unreadable(path, error),
            ReplayError::Sink(error) => error.into(),
        })?;
        Ok(())
    }

    /// After the last one: says which files of runs are not there. The exit code is 1 where something is missing; before
    /// the first file and behind the last one it may be as it was meant.
    pub fn end(&self) -> ExitCode {
        progress::clear();
        for missing in self.input.parts.runs().iter().filter_map(not_here) {
            let _ = writeln!(io::stderr(), "tracer: not there: {}", text::sentence(&missing));
        }
        ExitCode::from(u8::from(!self.input.is_whole()))
    }
}

/// Runs `tracer info`. The exit code is 1 where something is missing from the recording.
///
/// # Errors
/// When it cannot be read, or standard output not be written.
pub fn info(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let mut recording = open(&args.file, true)?;
    let mut found = Contents::default();
    while let Some(item) = recording.next_item().map_err(|error| unreadable(&args.file, error))? {
        found.add(&item, &mut recording);
    }
    found.bytes = recording.position();
    if args.json {
        view::print(&json::contents(&found))?;
    } else {
        view::print_sections(&contents::sections(&found, &name(&args.file)))?;
    }
    Ok(ExitCode::from(u8::from(!found.is_whole())))
}

/// That no recording is given twice: all of it would count twice.
///
/// # Errors
/// Which one is.
pub(super) fn ensure_distinct(paths: &[PathBuf]) -> Result<(), Refused> {
    let mut known = HashSet::new();
    for path in paths {
        // Whoever opens it says why it cannot be read.
        let Ok(metadata) = fs::metadata(path) else { continue };
        if metadata.is_file() && !known.insert((metadata.dev(), metadata.ino())) {
            return Err(Refused(format!("{} is given twice", name(path))));
        }
    }
    Ok(())
}

/// Opens a recording.
fn open(path: &Path, progress: bool) -> anyhow::Result<RecordingFile<Box<dyn Read>>> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let cannot = |error: io::Error| Refused(format!("cannot read {}: {error}", name(path)));
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if metadata.is_dir() {
            return Err(Refused(format!("{} is a directory, not a recording of tracer", name(path))).into());
        }
        Box::new(Progress::new(file, metadata.len(), progress))
    };
    RecordingFile::new(input).context("cannot begin to read")
}

/// Why a recording cannot be read, for a person.
pub(super) fn unreadable(path: &Path, error: ReadError) -> anyhow::Error {
    match error {
        ReadError::Foreign | ReadError::Empty => Refused(format!("{} is {error}", name(path))).into(),
        ReadError::Newer(_) => Refused(format!("{} was {error}", name(path))).into(),
        ReadError::Io(error) => anyhow::Error::from(error).context(format!("cannot read {}", name(path))),
    }
}

/// Says that something is missing.
pub(super) fn complain(path: &Path, missing: &Missing) {
    progress::clear();
    let _ = writeln!(
        io::stderr(),
        "tracer: {}: {}",
        name(path),
        text::sentence(&unreadable_part(missing))
    );
}

/// For a person.
pub(super) fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        Printable(&path.to_string_lossy()).to_string()
    }
}
