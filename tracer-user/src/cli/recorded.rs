//! `tracer cat` and `tracer info`: the contents of a recording.
//! Input: the parsed command line; a recording.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    analysis::{Input, contents, not_here, selection::Selection, unreadable as unreadable_part},
    cli::{
        error::Refused,
        inputs::{self, Opened, name},
        progress::{self, Progress},
        selection, view,
    },
    pipeline::replay::{Replay, ReplayError},
    recording::{
        contents::Contents,
        reader::{Missing, ReadError, RecordingFile},
    },
    render::json,
    sink::{Sink, selected::Selected},
    words::sentence,
};

const CAT_EXAMPLES: &str = "\
Examples:
  tracer cat tracer.data                         the rows that tracing would have shown
  tracer cat r.data*                             the files of a run that was rotated, in their order
  tracer cat -p 4711 --since 10 --until 20 tracer.data
                                                 ten seconds of one process
  tracer cat tracer.data --json | jq -c 'select(.kind == \"failure\")'
                                                 what could not be moved, for programs
  ssh db-1 cat tracer.data | tracer cat -        from another machine";

const INFO_EXAMPLES: &str = "\
Examples:
  tracer info tracer.data                        how it was made, and whether it is complete
  tracer info tracer.data --json | jq .whole     for programs

The exit code is 1 if something is missing, or events were lost while it was recorded.";

#[derive(Debug, clap::Args)]
#[command(after_help = CAT_EXAMPLES)]
pub struct CatArgs {
    #[command(flatten)]
    pub selection: selection::Args,

    #[command(flatten)]
    pub view: view::Args,
}

#[derive(Debug, clap::Args)]
#[command(after_help = INFO_EXAMPLES)]
pub struct InfoArgs {
    /// Recordings, the files of a rotation in any order; - is standard input
    #[arg(value_name = "FILE", default_value = "tracer.data")]
    pub files: Vec<PathBuf>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs `tracer cat`. The exit code is 1 if events were lost, or something is missing from a recording.
///
/// # Errors
/// When a recording cannot be read, or standard output cannot be written.
pub fn cat(args: &CatArgs) -> anyhow::Result<ExitCode> {
    // Rows on a terminal show the progress themselves.
    let progress = !io::stdout().is_terminal();
    let mut reading = Reading::new(progress);
    let selection = args.selection.selection()?;
    let files = inputs::open(&args.selection.files, None)?;
    let mut sink = args.view.sink(None)?;
    let shown = if selection.filters() {
        let mut selected = Selected::new(sink.as_mut(), selection);
        let replayed = reading.replay(files, &mut selected);
        replayed.and_then(|()| conclude(selected.selection()))
    } else {
        reading.replay(files, sink.as_mut())
    };
    match shown {
        Ok(()) => Ok(reading.end()),
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// Called after the last event: refuses conditions that cannot match anything, and reports on standard error if nothing
/// matched.
pub(super) fn conclude(selection: &Selection) -> anyhow::Result<()> {
    if let Some(refusal) = selection.refusal() {
        return Err(Refused(refusal).into());
    }
    if let Some(nothing) = selection.nothing_matches() {
        progress::clear();
        let _ = writeln!(io::stderr(), "tracer: {nothing}");
    }
    Ok(())
}

/// Whether the reader of the output is gone.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Recordings that are read one after the other, and the facts that are collected about them.
pub(super) struct Reading {
    /// Facts about the recordings that were read.
    pub input: Input,
    /// Whether to show the progress.
    progress: bool,
}

impl Reading {
    /// Shows the progress if `progress`.
    pub fn new(progress: bool) -> Self {
        Self {
            input: Input::default(),
            progress,
        }
    }

    /// Feeds recordings into a sink, the files of each run in order, and reports on standard error what is missing from
    /// them.
    pub fn replay(&mut self, files: Vec<Opened>, sink: &mut dyn Sink) -> anyhow::Result<()> {
        let mut replay = Replay::new(sink);
        for Opened { path, file, size } in inputs::in_order(files)? {
            let mut recording = recording(file, size, self.progress)?;
            replay.input.parts.open(&path.to_string_lossy());
            let replayed = replay.recording(&mut recording, |missing| complain(&path, missing));
            replayed.map_err(|error| match error {
                ReplayError::Read(error) => unreadable(&path, error),
                ReplayError::Sink(error) => error.into(),
            })?;
        }
        replay.end()?;
        self.input = replay.input;
        Ok(())
    }

    /// Called after the last recording: reports which files of runs are absent. The exit code is 1 if something is
    /// missing from a recording, or was lost while it was made. Absent files before the first and after the last one are
    /// no error: a selection may have been intended.
    pub fn end(&self) -> ExitCode {
        progress::clear();
        for missing in self.input.parts.runs().iter().filter_map(not_here) {
            let _ = writeln!(io::stderr(), "tracer: not there: {}", sentence(&missing));
        }
        ExitCode::from(u8::from(!self.input.is_whole() || self.input.lost > 0))
    }
}

/// Runs `tracer info`. The exit code is 1 if events were lost, or something is missing from a recording.
///
/// # Errors
/// When a recording cannot be read, or standard output cannot be written.
pub fn info(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let files = inputs::open(&args.files, None)?;
    let mut found = Contents::default();
    for Opened { path, file, size } in inputs::in_order(files)? {
        let mut recording = recording(file, size, true)?;
        found.open(&path.to_string_lossy());
        while let Some(item) = recording.next_item().map_err(|error| unreadable(&path, error))? {
            found.add(&item, &mut recording);
        }
        found.bytes += recording.position();
    }
    if args.json {
        view::print(&json::contents(&found))?;
    } else {
        let name = match &args.files[..] {
            [path] => name(path),
            paths => format!("{} files", paths.len()),
        };
        view::print_sections(&contents::sections(&found, &name))?;
    }
    Ok(ExitCode::from(u8::from(!found.is_whole() || found.lost() > 0)))
}

/// Reads a recording, and shows the progress of a regular file.
fn recording(file: File, size: Option<u64>, progress: bool) -> anyhow::Result<RecordingFile<Progress<File>>> {
    let input = Progress::new(file, size.unwrap_or(0), progress);
    RecordingFile::new(input).context("cannot begin to read")
}

/// The error of a recording that cannot be read, for a person.
pub(super) fn unreadable(path: &Path, error: ReadError) -> anyhow::Error {
    match error {
        ReadError::Foreign | ReadError::Empty => Refused(format!("{} is {error}", name(path))).into(),
        ReadError::Newer(_) => Refused(format!("{} was {error}", name(path))).into(),
        ReadError::Io(error) => anyhow::Error::from(error).context(format!("cannot read {}", name(path))),
    }
}

/// Reports a missing part.
pub(super) fn complain(path: &Path, missing: &Missing) {
    progress::clear();
    let _ = writeln!(
        io::stderr(),
        "tracer: {}: {}",
        name(path),
        sentence(&unreadable_part(missing))
    );
}
