//! `tracer cat` and `tracer info`: what is in a recording.
//! Input: the parsed command line; a recording.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use crate::{
    analysis::{contents::Contents, totals::Totals},
    cli::{Refused, view},
    recording::header::Finished,
    render::{contents, escape::Printable},
    sink::{Header, Sink, Summary},
    source::recording::{Item, Missing, ReadError, RecordingFile},
};

#[derive(Debug, clap::Args)]
pub struct CatArgs {
    /// The recording; - is standard input
    #[arg(value_name = "FILE", default_value = "tracer.data")]
    pub file: PathBuf,

    #[command(flatten)]
    pub view: view::Args,
}

#[derive(Debug, clap::Args)]
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
    let mut recording = open(&args.file)?;
    let mut sink = args.view.sink();
    match show(&mut recording, &args.file, sink.as_mut()) {
        Ok(whole) => Ok(ExitCode::from(u8::from(!whole))),
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// Whether nobody reads any more.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Feeds a recording into a sink, as the pipeline does with what it traces. Returns whether nothing was missing.
fn show(recording: &mut RecordingFile<Box<dyn Read>>, path: &Path, sink: &mut dyn Sink) -> anyhow::Result<bool> {
    let mut totals = Totals::default();
    let (mut begun, mut whole) = (false, true);
    let mut finished = None;
    while let Some(item) = next(recording, path)? {
        if !begun && !matches!(item, Item::Missing(_)) {
            begun = true;
            match &item {
                Item::Begin(begin) => sink.begin(&begin.header)?,
                // Both of them are damaged.
                _ => sink.begin(&Header::unknown())?,
            }
        }
        match item {
            Item::Begin(_) => {}
            Item::Events => {
                let mut turns = recording.turns.iter().peekable();
                for (event, come) in recording.events.iter().zip(1..) {
                    totals.add(event);
                    sink.event(event)?;
                    if turns.next_if_eq(&&come).is_some() {
                        sink.flush()?;
                    }
                }
            }
            Item::Interval(interval) => sink.interval(&interval)?,
            Item::End(end) => finished = end.finished,
            Item::Missing(missing) => {
                whole = false;
                sink.flush()?;
                complain(path, &missing);
            }
        }
    }
    match finished {
        Some(finished) => sink.finish(&summary(finished, totals))?,
        None => sink.abandon()?,
    }
    Ok(whole)
}

/// A run's summary, from its end and its events.
pub(super) fn summary(finished: Finished, totals: Totals) -> Summary {
    let Finished {
        duration,
        books,
        startup_cpu,
        cpu,
        max_rss,
    } = finished;
    Summary {
        duration,
        totals,
        books,
        startup_cpu,
        cpu,
        max_rss,
    }
}

/// Runs `tracer info`. The exit code is 1 where something is missing from the recording.
///
/// # Errors
/// When it cannot be read, or standard output not be written.
pub fn info(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let mut recording = open(&args.file)?;
    let mut found = Contents::default();
    while let Some(item) = next(&mut recording, &args.file)? {
        found.add(&item, &recording.events, recording.place.as_ref());
    }
    found.bytes = recording.position();
    let text = if args.json {
        contents::json(&found)?
    } else {
        contents::text(&found, &name(&args.file))
    };
    view::print(&text)?;
    Ok(ExitCode::from(u8::from(!found.missing.is_empty())))
}

/// Opens a recording.
pub(super) fn open(path: &Path) -> anyhow::Result<RecordingFile<Box<dyn Read>>> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let cannot = |error: io::Error| Refused(format!("cannot read {}: {error}", name(path)));
        let file = File::open(path).map_err(cannot)?;
        if file.metadata().map_err(cannot)?.is_dir() {
            return Err(Refused(format!("{} is a directory, not a recording of tracer", name(path))).into());
        }
        Box::new(file)
    };
    RecordingFile::new(input).context("cannot begin to read")
}

/// The next item of a recording.
pub(super) fn next(recording: &mut RecordingFile<Box<dyn Read>>, path: &Path) -> anyhow::Result<Option<Item>> {
    recording.next_item().map_err(|error| match error {
        ReadError::Foreign | ReadError::Empty => Refused(format!("{}: {error}", name(path))).into(),
        ReadError::Newer(_) => Refused(format!("{} was {error}", name(path))).into(),
        ReadError::Io(error) => anyhow::Error::from(error).context(format!("cannot read {}", name(path))),
    })
}

/// Says that something is missing.
pub(super) fn complain(path: &Path, missing: &Missing) {
    let _ = writeln!(io::stderr(), "tracer: {}: {}", name(path), contents::missing(missing));
}

/// For a person.
fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        Printable(&path.to_string_lossy()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Event,
        render::made_up,
        sink::{recording::Recording, text::Text},
    };

    /// As the pipeline feeds a sink: two turns, of which the second goes on where the first ended.
    fn feed(sink: &mut dyn Sink) {
        let next = |by: u64| {
            let mut moved = made_up::moved();
            moved.vaddr = moved.vaddr.plus_pages(by);
            moved.old_pfn = moved.old_pfn.map(|pfn| pfn.plus(by));
            moved.new_pfn = moved.new_pfn.map(|pfn| pfn.plus(by));
            Event::Move(moved)
        };
        sink.begin(&made_up::header()).unwrap();
        for turn in [[next(0), next(2)], [next(4), Event::Move(made_up::unknown())]] {
            for event in &turn {
                sink.event(event).unwrap();
            }
            sink.flush().unwrap();
        }
        for event in made_up::others() {
            sink.event(&event).unwrap();
        }
        sink.interval(&made_up::interval()).unwrap();
        sink.flush().unwrap();
        let mut summary = made_up::summary();
        summary.totals = Totals::default();
        for event in [next(0), next(2), next(4), Event::Move(made_up::unknown())] {
            summary.totals.add(&event);
        }
        for event in made_up::others() {
            summary.totals.add(&event);
        }
        sink.finish(&summary).unwrap();
    }

    #[test]
    fn a_recording_shows_the_rows_of_the_run() {
        let (mut live, mut again, mut file) = (Vec::new(), Vec::new(), Vec::new());
        feed(&mut Text::new(&mut live, true, None));
        feed(&mut Recording::new(&mut file).unwrap());
        let input: Box<dyn Read> = Box::new(io::Cursor::new(file));
        let mut recording = RecordingFile::new(input).unwrap();
        let whole = show(
            &mut recording,
            Path::new("made up"),
            &mut Text::new(&mut again, true, None),
        )
        .unwrap();
        assert!(whole);
        assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(live).unwrap());
    }
}
