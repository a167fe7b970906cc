//! `tracer export`: writes recordings in the formats of other programs.
//! Input: the parsed command line; recordings.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{ValueEnum, builder::PossibleValue};

use crate::{
    analysis::groups::Key,
    cli::{
        error::Refused,
        inputs, progress,
        recorded::{self, Reading},
        view,
    },
    event::Event,
    output::Draft,
    run::{header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
    sink::{
        Sink,
        csv::Csv,
        export::Export,
        folded::Folded,
        json::JsonLines,
        partitions::{Layout, Partitions},
        perfetto::Perfetto,
        table::{Table, TableKind},
    },
    words::quantity::{Count, Counted},
};

const EXAMPLES: &str = "\
Examples:
  tracer export --format parquet -o moves.parquet tracer.data
                                                 for pandas, polars, DuckDB, ClickHouse, Spark
  tracer export --format csv --kind failures tracer.data > failures.csv
                                                 what could not be moved
  tracer export --format parquet --partition -o /srv/moves db-*.data
                                                 a fleet's recordings as one data set, by date and host
  tracer export --format jsonl tracer.data | jq -c 'select(.kind == \"compaction\")'
                                                 what tracing with --json would have printed
  tracer export --format folded --by process,vma,reason tracer.data | flamegraph.pl > moves.svg
                                                 a flame graph of pages
  tracer export --format perfetto -o moves.pftrace tracer.data
                                                 a timeline for ui.perfetto.dev

A file appears only when it is complete. docs/export.md describes the columns, with queries for those programs.";

/// The default of the most files of a data set: a file of a few bytes can name any number of days.
const MAX_FILES: usize = 1000;

/// The default frames of a stack.
const FRAMES: [Key; 3] = [Key::Process, Key::Vma, Key::Reason];

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recordings, the files of a rotation in any order; - is standard input
    #[arg(value_name = "FILE", default_value = "tracer.data")]
    pub files: Vec<PathBuf>,

    /// The format
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Format,

    /// The rows of csv and parquet [default: moves]
    #[arg(long, value_name = "KIND", value_enum)]
    pub kind: Option<TableKind>,

    /// The frames of folded stacks, outermost first (comma-separated) [default: process,vma,reason]
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_enum)]
    pub by: Vec<Key>,

    /// The file to write, or the directory with --partition; - is standard output
    #[arg(short, long, value_name = "OUT", default_value = "-")]
    pub output: PathBuf,

    /// Write csv or parquet as a data set in a directory: OUT/date=DATE/host=HOST/part-RECORDING-N.EXT
    #[arg(long)]
    pub partition: bool,

    /// The most files of a data set
    #[arg(long, value_name = "N", default_value_t = MAX_FILES, requires = "partition")]
    pub max_files: usize,

    /// Replace existing files
    #[arg(long)]
    pub force: bool,
}

/// A format of another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON lines with all events, as --json prints them
    Jsonl,
    /// One table as comma-separated values, with a line of names
    Csv,
    /// One table in columns, packed with zstd
    Parquet,
    /// Folded stacks for flame graphs, weighted by mappings of pages
    Folded,
    /// A timeline of all events for ui.perfetto.dev
    Perfetto,
}

impl ValueEnum for TableKind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Moves => "Extents of pages that moved",
            Self::Unmapped => "Folios that moved and are not mapped",
            Self::Failures => "Folios that could not be moved, one row for each known mapping",
            Self::Compactions => "Passes of compaction",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// Feeds the events that a format takes, and counts the others. The first run begins the format, so that nothing is
/// written if the input is not a recording.
struct Taken<'a> {
    open: Box<dyn Fn() -> io::Result<Box<dyn Export>> + 'a>,
    export: Option<Box<dyn Export>>,
    left_out: BTreeMap<TableKind, u64>,
}

impl Taken<'_> {
    fn export(&mut self) -> io::Result<&mut Box<dyn Export>> {
        match &mut self.export {
            Some(export) => Ok(export),
            none => Ok(none.insert((self.open)()?)),
        }
    }
}

impl Sink for Taken<'_> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.export()?.begin(header)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let export = self.export()?;
        if export.takes(event) {
            return export.event(event);
        }
        *self.left_out.entry(TableKind::of(event)).or_default() += 1;
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.export()?.interval(interval)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.export()?.flush()
    }

    fn abandon(&mut self, unfinished: &Unfinished) -> io::Result<()> {
        self.export()?.abandon(unfinished)
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.export()?.finish(summary)
    }
}

/// Runs `tracer export`. The exit code is 1 if events were lost, or something is missing from a recording.
///
/// # Errors
/// When the options contradict each other, a recording cannot be read, or the output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.check()?;
    match args.export() {
        Err(error) if recorded::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

impl Args {
    fn check(&self) -> Result<(), Refused> {
        let table = matches!(self.format, Format::Csv | Format::Parquet);
        let refused = if self.kind.is_some() && !table {
            "--kind chooses the rows of a table: --format csv or parquet"
        } else if !self.by.is_empty() && self.format != Format::Folded {
            "--by chooses the frames of stacks: --format folded"
        } else if self.partition && !table {
            "--partition is for tables: --format csv or parquet"
        } else if self.partition && self.to_stdout() {
            "--partition needs a directory: -o DIR"
        } else if matches!(self.format, Format::Parquet | Format::Perfetto)
            && self.to_stdout()
            && io::stdout().is_terminal()
        {
            "this format cannot be shown on a terminal: -o FILE"
        } else if self.format == Format::Parquet && !cfg!(feature = "parquet") {
            "this tracer was built without Parquet: build it with the feature parquet, or use --format csv"
        } else {
            return Ok(());
        };
        Err(Refused(refused.to_owned()))
    }

    fn to_stdout(&self) -> bool {
        self.output == Path::new("-")
    }

    fn export(&self) -> anyhow::Result<ExitCode> {
        let draft = if self.to_stdout() || self.partition {
            None
        } else {
            Some(Draft::create(&self.output, self.force)?)
        };
        let creates_in = match &draft {
            _ if self.partition => Some(self.output.as_path()),
            Some(draft) => draft.path().parent(),
            None => None,
        };
        let files = inputs::open(&self.files, creates_in)?;
        let open = || match &draft {
            _ if self.partition => Ok(self.partitions()),
            Some(draft) => {
                let writer = BufWriter::with_capacity(1 << 16, draft.writer()?);
                self.format.open(writer, self.table(), &self.by)
            }
            None => self.format.open(view::stdout(None)?, self.table(), &self.by),
        };
        let mut taken = Taken {
            open: Box::new(open),
            export: None,
            left_out: BTreeMap::new(),
        };
        let progress = !(self.to_stdout() && io::stdout().is_terminal());
        let mut reading = Reading::new(progress);
        reading.replay(files, &mut taken)?;
        taken.export()?.close()?;
        let left_out = std::mem::take(&mut taken.left_out);
        drop(taken);
        if let Some(draft) = draft {
            draft.publish()?;
        }
        tell(&left_out);
        let lost = reading.input.lost;
        if lost > 0 {
            progress::clear();
            let _ = writeln!(
                io::stderr(),
                "tracer: {} lost while recording: tracer report says when",
                Counted(lost, "event")
            );
        }
        Ok(reading.end())
    }

    /// The table. A data set names the host in its directories, not in a column.
    fn table(&self) -> Table {
        Table {
            kind: self.kind.unwrap_or(TableKind::Moves),
            host: !self.partition,
        }
    }

    fn partitions(&self) -> Box<dyn Export> {
        let (format, table) = (self.format, self.table());
        Box::new(Partitions::new(Layout {
            root: self.output.clone(),
            kind: table.kind,
            extension: format.extension(),
            force: self.force,
            most: self.max_files,
            format: Box::new(move |writer| format.open(BufWriter::with_capacity(1 << 16, writer), table, &[])),
        }))
    }
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Folded => "folded",
            Self::Perfetto => "pftrace",
        }
    }

    fn open(self, writer: impl Write + Send + 'static, table: Table, by: &[Key]) -> io::Result<Box<dyn Export>> {
        Ok(match self {
            Self::Jsonl => Box::new(JsonLines::new(writer)),
            Self::Csv => Box::new(Csv::new(writer, table)?),
            #[cfg(feature = "parquet")]
            Self::Parquet => Box::new(crate::sink::parquet::Parquet::new(writer, table)?),
            #[cfg(not(feature = "parquet"))]
            Self::Parquet => return Err(io::ErrorKind::Unsupported.into()),
            Self::Folded => Box::new(Folded::new(
                writer,
                if by.is_empty() { FRAMES.to_vec() } else { by.to_vec() },
            )),
            Self::Perfetto => Box::new(Perfetto::new(writer)),
        })
    }
}

/// Reports the events that have no place in the format.
fn tell(left_out: &BTreeMap<TableKind, u64>) {
    // In the words of --kind.
    let counts = left_out
        .iter()
        .map(|(kind, count)| format!("{} {}", kind.name(), Count(*count)));
    let counts: Vec<String> = counts.collect();
    if !counts.is_empty() {
        progress::clear();
        let _ = writeln!(
            io::stderr(),
            "tracer: left out: {} (--format jsonl has everything)",
            counts.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn options_that_have_no_meaning_are_refused() {
        let refused = |words: &str| {
            let line = Line::try_parse_from(["export"].into_iter().chain(words.split(' '))).unwrap();
            line.args.check().err().map(|refused| refused.to_string())
        };
        for (words, says) in [
            ("--format jsonl --kind moves", "--format csv"),
            ("--format csv --by process", "--format folded"),
            ("--format folded --partition -o x", "--format csv"),
            ("--format csv --partition", "-o DIR"),
        ] {
            assert!(refused(words).is_some_and(|text| text.contains(says)), "{words}");
        }
        for words in [
            "--format csv --kind failures",
            "--format folded --by vma,reason",
            "--format csv --partition -o x",
        ] {
            assert_eq!(refused(words), None, "{words}");
        }
    }

    #[test]
    fn the_help() {
        use clap::CommandFactory as _;
        insta::assert_snapshot!(
            "help_export",
            Line::command().term_width(100).render_long_help().to_string()
        );
    }
}
