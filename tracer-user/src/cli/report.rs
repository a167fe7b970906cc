//! `tracer report`: summarizes recordings.
//! Input: the parsed command line; recordings.

use std::process::ExitCode;

use clap::{ValueEnum, builder::PossibleValue};

use crate::{
    analysis::{
        Audience, Occasion, Question,
        groups::{Key, Sort},
    },
    cli::{
        error::Refused,
        inputs,
        recorded::{self, Reading},
        selection, view,
    },
    render::json,
    sink::report::Report,
};

const EXAMPLES: &str = "\
Examples:
  tracer report tracer.data                      everything
  tracer report tracer.data --by process,reason  one table
  tracer report day.data* --by second --sort name
                                                 the files of a run that was rotated, by time
  tracer report a.data b.data --by host,nodes    several machines
  tracer report tracer.data --pid 4711 --since 10 --until 20 --where reason=compaction
                                                 ten seconds of one process
  tracer report tracer.data --where process=postgres --by vma
                                                 where in the processes of one name";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub selection: selection::Args,

    /// One table, grouped by these keys (comma-separated)
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_enum)]
    pub by: Vec<Key>,

    /// Which rows come first
    #[arg(long, value_name = "WHAT", value_enum, default_value = "pages")]
    pub sort: Sort,

    /// The number of rows of each table [default: 20, and 65536 with --json]
    #[arg(short = 'n', long, value_name = "N")]
    pub rows: Option<usize>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl ValueEnum for Sort {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Pages, Self::Events, Self::Blackout, Self::Name]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Pages => PossibleValue::new("pages").help("Rows with the most pages first"),
            Self::Events => PossibleValue::new("events").help("Rows with the most events first"),
            Self::Blackout => PossibleValue::new("blackout").help("Rows with the longest blackout first"),
            Self::Name => PossibleValue::new("name").help("Rows in the order of their keys"),
        })
    }
}

/// The default number of rows of a table for a person, and for a program: a few bytes of a recording can be a million.
const ROWS: usize = 20;
const JSON_ROWS: usize = 1 << 16;

impl Args {
    fn question(&self) -> Result<Question, Refused> {
        let (audience, rows) = if self.json {
            (Audience::Programs, JSON_ROWS)
        } else {
            (Audience::People, ROWS)
        };
        Ok(Question {
            occasion: Occasion::Report,
            audience,
            by: self.by.clone(),
            sort: self.sort,
            rows: self.rows.unwrap_or(rows),
            selection: self.selection.selection()?,
        })
    }
}

/// Runs `tracer report`. The exit code is 1 if events were lost, or something is missing from a recording.
///
/// # Errors
/// When a recording cannot be read, or standard output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(args.question()?);
    let mut reading = Reading::new(true);
    reading.replay(inputs::open(&args.selection.files, None)?, &mut report)?;
    recorded::conclude(report.selection())?;
    let sections = report.sections(&reading.input);
    if args.json {
        view::print_with(|out| json::object(out, &sections))?;
    } else {
        view::print_sections(&sections)?;
    }
    Ok(reading.end())
}
