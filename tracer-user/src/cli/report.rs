//! `tracer report`: what recordings come to.
//! Input: the parsed command line; recordings.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{ValueEnum, builder::PossibleValue};

use crate::{
    analysis::{
        Audience, Occasion, Question,
        groups::{Key, Sort},
        selection::Selection,
    },
    cli::{
        error::Refused,
        recorded::{self, Reading},
        view,
    },
    render::json,
    sink::report::Report,
    units::Nanos,
};

const EXAMPLES: &str = "\
Examples:
  tracer report tracer.data                      everything
  tracer report tracer.data --by process,reason  one table
  tracer report day.data.3 day.data.2 day.data.1 day.data --by second --sort name
                                                 the files of a run that was rotated, by time
  tracer report a.data b.data --by host,nodes    several machines
  tracer report tracer.data --pid 4711 --since 10 --until 20 --where reason=compaction
                                                 ten seconds of one process
  tracer report tracer.data --where process=postgres --by vma
                                                 where in the processes of one name";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recordings; - is standard input
    #[arg(value_name = "FILE", default_value = "tracer.data")]
    pub files: Vec<PathBuf>,

    /// One table, of what has all of these in common (comma-separated)
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_enum)]
    pub by: Vec<Key>,

    /// Which rows come first
    #[arg(long, value_name = "WHAT", value_enum, default_value = "pages")]
    pub sort: Sort,

    /// So many rows of each table [default: 20, and all with --json]
    #[arg(short = 'n', long, value_name = "N")]
    pub rows: Option<usize>,

    /// Only moves of these processes (comma-separated)
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Only what happened so many seconds after the begin, or later
    #[arg(long, value_name = "SECONDS", value_parser = moment)]
    pub since: Option<Nanos>,

    /// Only what happened before so many seconds after the begin
    #[arg(long, value_name = "SECONDS", value_parser = moment)]
    pub until: Option<Nanos>,

    /// Only moves of which KEY is VALUE, as the tables show it, or a process's number or name; of several all must hold
    #[arg(long = "where", value_name = "KEY=VALUE", value_parser = condition)]
    pub conditions: Vec<(Key, String)>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl ValueEnum for Key {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for Sort {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Pages, Self::Events, Self::Blackout, Self::Name]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Pages => PossibleValue::new("pages").help("Those with the most pages"),
            Self::Events => PossibleValue::new("events").help("Those with the most runs of pages"),
            Self::Blackout => PossibleValue::new("blackout").help("Those with the longest blackout"),
            Self::Name => PossibleValue::new("name").help("By what they have in common"),
        })
    }
}

fn condition(text: &str) -> Result<(Key, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE, as in reason=compaction")?;
    let known = || Key::ALL.map(Key::name).join(", ");
    let key = Key::from_str(key, true).map_err(|_| format!("no key {key:?}; there are {}", known()))?;
    Ok((key, value.to_owned()))
}

/// Seconds from the begin of a run.
fn moment(text: &str) -> Result<Nanos, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    u64::try_from(time.as_nanos())
        .map(Nanos)
        .map_err(|error| error.to_string())
}

/// Rows of a table for a person.
const ROWS: usize = 20;

impl From<&Args> for Question {
    fn from(args: &Args) -> Self {
        let (audience, rows) = if args.json {
            (Audience::Programs, usize::MAX)
        } else {
            (Audience::People, ROWS)
        };
        Self {
            occasion: Occasion::Report,
            audience,
            by: args.by.clone(),
            sort: args.sort,
            rows: args.rows.unwrap_or(rows),
            selection: Selection::new(args.pid.clone(), args.since, args.until, args.conditions.clone()),
        }
    }
}

/// Runs `tracer report`. The exit code is 1 where something is missing from a recording.
///
/// # Errors
/// When one cannot be read, or standard output not be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.since.zip(args.until).is_some_and(|(since, until)| since >= until) {
        return Err(Refused("--until is not after --since: nothing is between them".to_owned()).into());
    }
    recorded::ensure_distinct(&args.files)?;
    let mut report = Report::new(args.into());
    let mut reading = Reading::new(true);
    for path in &args.files {
        report.open(path.to_string_lossy().into_owned());
        reading.replay(path, &mut report)?;
    }
    let sections = report.sections(&reading.input);
    if args.json {
        view::print(&json::object(&sections))?;
    } else {
        view::print_sections(&sections)?;
    }
    Ok(reading.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_seconds_from_the_begin() {
        assert_eq!(moment("1.5"), Ok(Nanos(1_500_000_000)));
        assert_eq!(moment("0"), Ok(Nanos(0)));
        for bad in ["nan", "-1", "inf", "1e30", "", "soon"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn conditions_are_keys_with_values() {
        assert_eq!(condition("nodes=0->1"), Ok((Key::Nodes, "0->1".to_owned())));
        assert_eq!(condition("comm=a=b"), Ok((Key::Comm, "a=b".to_owned())));
        assert!(condition("comm").is_err() && condition("colour=red").is_err());
    }
}
