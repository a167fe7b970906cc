//! `tracer export`: recordings in the formats of other programs.
//! Input: the parsed command line; recordings.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ValueEnum, builder::PossibleValue};

use crate::{
    analysis::intervals::Interval,
    cli::{recorded, view},
    event::Event,
    sink::{
        Header, Sink, Summary,
        csv::Csv,
        export::Export,
        json::JsonLines,
        table::{Kind, Table},
    },
};

const EXAMPLES: &str = "\
Examples:
  tracer export tracer.data --format csv > moves.csv";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recordings; - is standard input
    #[arg(value_name = "FILE", default_value = "tracer.data")]
    pub files: Vec<PathBuf>,

    /// The format
    #[arg(long, value_enum)]
    pub format: Format,

    /// What the rows of csv are
    #[arg(long, value_enum, default_value = "moves")]
    pub kind: Kind,
}

/// What other programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON lines, as --json prints them: everything
    Jsonl,
    /// Comma-separated values with a line of names: one table
    Csv,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Moves => "Runs of pages that moved",
            Self::Unmapped => "Folios that moved and that nobody maps",
            Self::Failures => "Folios that could not be moved, a row for each mapping of theirs that is known",
            Self::Compactions => "Runs of compaction",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// Feeds a format what it takes, and counts the rest.
struct Taken {
    export: Box<dyn Export>,
    left_out: BTreeMap<Kind, u64>,
}

impl Sink for Taken {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.export.begin(header)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        if self.export.takes(event) {
            return self.export.event(event);
        }
        *self.left_out.entry(Kind::of(event)).or_default() += 1;
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.export.interval(interval)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.export.flush()
    }

    fn abandon(&mut self) -> io::Result<()> {
        self.export.abandon()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.export.finish(summary)
    }
}

/// Runs `tracer export`. The exit code is 1 where something is missing from a recording.
///
/// # Errors
/// When one cannot be read, or the output not be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match export(args) {
        Err(error) if recorded::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

fn export(args: &Args) -> anyhow::Result<ExitCode> {
    let mut taken = Taken {
        export: open(args)?,
        left_out: BTreeMap::new(),
    };
    let mut whole = true;
    for path in &args.files {
        whole &= recorded::replay(path, &mut taken)?;
    }
    taken.export.close()?;
    tell(&taken.left_out);
    Ok(ExitCode::from(u8::from(!whole)))
}

/// The format.
fn open(args: &Args) -> io::Result<Box<dyn Export>> {
    let table = Table {
        kind: args.kind,
        host: true,
    };
    Ok(match args.format {
        Format::Jsonl => Box::new(JsonLines::new(view::stdout())),
        Format::Csv => Box::new(Csv::new(view::stdout(), table)?),
    })
}

/// Says what has no place in the format.
fn tell(left_out: &BTreeMap<Kind, u64>) {
    let counts: Vec<String> = left_out
        .iter()
        .map(|(kind, count)| format!("{count} {}", kind.name()))
        .collect();
    if !counts.is_empty() {
        let _ = writeln!(io::stderr(), "tracer: left out: {} (--kind)", counts.join(", "));
    }
}
