//! `tracer report`: what recordings come to.
//! Input: the parsed command line; recordings.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{ValueEnum, builder::PossibleValue};
use serde_json::json;

use crate::{
    analysis::{
        groups::{Groups, Key, Run, Sort, Tables},
        losses::Losses,
        stuck::StuckByProcess,
    },
    cli::{
        error::Refused,
        recorded::{self, Reading},
        view,
    },
    escape::{self, Printable},
    event::{Event, Move, failure::Failure, unmapped::UnmappedMove},
    recording::parts::Files,
    render::{books, groups, losses, parts, quantity::Count, stuck, summary},
    run::{
        header::Header,
        intervals::{Interval, SoFar},
        summary::Summary,
        totals::Totals,
    },
    sink::{Sink, json::TotalsKeys},
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

/// The tables of a report, unless others are asked for.
const TABLES: [Key; 5] = [Key::Process, Key::Vma, Key::Actor, Key::Address, Key::Second];

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

impl Args {
    /// Whether some of a run is left out.
    fn filters(&self) -> bool {
        self.chooses_moves() || self.since.is_some() || self.until.is_some()
    }

    /// By what only moves of pages have.
    fn chooses_moves(&self) -> bool {
        !self.pid.is_empty() || !self.conditions.is_empty()
    }

    fn in_time(&self, at: Nanos, run: &Run) -> bool {
        let after = at.since(run.begun);
        self.since.is_none_or(|since| after >= since) && self.until.is_none_or(|until| after < until)
    }

    fn wants(&self, event: &Event, run: &Run) -> bool {
        self.in_time(event.at(), run)
            && match event {
                Event::Move(moved) => self.wants_move(moved, run),
                Event::Unmapped(moved) => self.wants_unmapped(moved, run),
                Event::Failure(failure) => self.conditions.is_empty() && self.wants_failure(failure),
                Event::Compaction(_) => !self.chooses_moves(),
            }
    }

    fn wants_move(&self, moved: &Move, run: &Run) -> bool {
        let of_process = |pid: &u32| moved.owner.as_ref().is_some_and(|owner| owner.tgid.0 == *pid);
        (self.pid.is_empty() || self.pid.iter().any(of_process))
            && self
                .conditions
                .iter()
                .all(|(key, value)| groups::is_called(&key.of(moved, run), value))
    }

    fn wants_unmapped(&self, moved: &UnmappedMove, run: &Run) -> bool {
        let is_called = |(key, value): &(Key, String)| {
            key.of_unmapped(moved, run)
                .is_some_and(|found| groups::is_called(&found, value))
        };
        self.pid.is_empty() && self.conditions.iter().all(is_called)
    }

    fn wants_failure(&self, failure: &Failure) -> bool {
        let maps = |pid: &u32| failure.places.iter().any(|place| place.owner.tgid.0 == *pid);
        self.pid.is_empty() || self.pid.iter().any(maps)
    }
}

/// What a run says of itself.
struct Recorded {
    path: PathBuf,
    header: Header,
    totals: Totals,
    losses: Losses,
    so_far: SoFar,
    /// None: nobody knows how it ended.
    summary: Option<Summary>,
}

impl Recorded {
    /// Events; of a run that has no end as far as its books go.
    fn lost(&self) -> u64 {
        let summary = self.summary.as_ref();
        summary.map_or_else(|| self.losses.events(), |summary| summary.books.lost.events())
    }

    fn balanced(&self) -> Option<bool> {
        self.summary.as_ref().map(|summary| summary.books.balanced())
    }
}

/// Takes in what is asked for.
struct Gathering<'a> {
    args: &'a Args,
    /// Of the recording that is being read.
    path: &'a Path,
    run: Run,
    recorded: Vec<Recorded>,
    /// Which of them.
    current: usize,
    tables: Tables,
    stuck: StuckByProcess,
}

impl Sink for Gathering<'_> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.run = Run::from(header);
        self.tables.begin_run();
        self.stuck.begin_run();
        // The files of a rotation are of one run.
        let known = self
            .recorded
            .iter()
            .position(|recorded| recorded.header.same_run(header));
        self.current = known.unwrap_or(self.recorded.len());
        if known.is_none() {
            self.recorded.push(Recorded {
                path: self.path.to_owned(),
                header: header.clone(),
                totals: Totals::default(),
                losses: Losses::default(),
                so_far: SoFar::default(),
                summary: None,
            });
        }
        Ok(())
    }

    /// Of what is asked for.
    fn sums(&self) -> bool {
        true
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        if !self.args.wants(event, &self.run) {
            return Ok(());
        }
        match event {
            Event::Move(moved) => self.tables.add(moved, &self.run),
            Event::Unmapped(moved) => self.tables.add_unmapped(moved, &self.run),
            Event::Failure(_) | Event::Compaction(_) => {}
        }
        self.stuck.add(event, &self.run.host);
        if let Some(recorded) = self.recorded.get_mut(self.current) {
            recorded.totals.add(event);
        }
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        if let Some(recorded) = self.recorded.get_mut(self.current) {
            recorded.losses.add(interval, self.run.begun);
            recorded.so_far.add(interval);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        if let Some(recorded) = self.recorded.get_mut(self.current) {
            recorded.summary = Some(summary.clone());
        }
        Ok(())
    }
}

/// Runs `tracer report`. The exit code is 1 where something is missing from a recording.
///
/// # Errors
/// When one cannot be read, or standard output not be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let keys: Vec<_> = if args.by.is_empty() {
        TABLES.iter().map(|key| vec![*key]).collect()
    } else {
        vec![args.by.clone()]
    };
    let mut gathering = Gathering {
        args,
        path: Path::new(""),
        run: Run {
            begun: Nanos(0),
            host: Arc::from("unknown"),
        },
        recorded: Vec::new(),
        current: 0,
        tables: Tables::new(keys),
        stuck: StuckByProcess::default(),
    };
    if args.since.zip(args.until).is_some_and(|(since, until)| since >= until) {
        return Err(Refused("--until is not after --since: nothing is between them".to_owned()).into());
    }
    recorded::ensure_distinct(&args.files)?;
    let mut reading = Reading::new(true);
    for path in &args.files {
        gathering.path = path;
        reading.replay(path, &mut gathering)?;
    }
    let Gathering {
        recorded,
        tables,
        stuck,
        ..
    } = gathering;
    let text = if args.json {
        json(args, &recorded, &tables.tables, &stuck, &reading)
    } else {
        text(args, &recorded, &tables, &stuck, &reading)?
    };
    view::print(&text)?;
    Ok(reading.end())
}

/// Rows of a table for a person.
const ROWS: usize = 20;

/// Each recording's closing page, unless something else is asked for, then the tables.
fn text(
    args: &Args,
    recordings: &[Recorded],
    tables: &Tables,
    stuck: &StuckByProcess,
    reading: &Reading,
) -> anyhow::Result<String> {
    let mut out = String::new();
    let rows = args.rows.unwrap_or(ROWS);
    if !reading.undamaged {
        writeln!(
            out,
            "MISSING   not everything is there: tracer info FILE shows what is missing"
        )?;
    }
    for missing in reading.parts.runs().iter().filter_map(parts::missing) {
        writeln!(out, "NOT HERE  {missing}")?;
    }
    for recorded in recordings {
        let name = Printable(&recorded.path.to_string_lossy()).to_string();
        let lost = recorded.lost();
        if lost > 0 {
            writeln!(out, "LOST      {} events of {name}", Count(lost))?;
            losses::write(&mut out, &recorded.losses, rows)?;
        }
        if recorded.balanced() == Some(false) {
            writeln!(out, "WARNING   the books of {name} do not balance")?;
        } else if let Some(unbalanced) = books::unbalanced(&recorded.so_far.totals, recorded.header.begun) {
            writeln!(out, "WARNING   {name}: {unbalanced}")?;
        }
    }
    if args.by.is_empty() {
        for recorded in recordings {
            if recordings.len() > 1 {
                writeln!(out, "== {}", Printable(&recorded.path.to_string_lossy()))?;
            }
            out += &if let Some(summary) = recorded.summary.clone().filter(|_| !args.filters()) {
                let totals = recorded.totals.clone();
                summary::text(Some(&recorded.header), &Summary { totals, ..summary }, false)
            } else {
                let so_far = Some(&recorded.so_far).filter(|_| !args.filters());
                summary::sums(&recorded.header, &recorded.totals, so_far)
            };
        }
    }
    for table in &tables.tables {
        let sort = match table.asked() {
            [Key::Second] if args.by.is_empty() => Sort::Name,
            // Nobody asked for all pages.
            [Key::Address] if args.by.is_empty() && table.most_events() < 2 => {
                if !tables.are_empty() {
                    writeln!(out, "\nADDRESS   no page moved twice")?;
                }
                continue;
            }
            _ => args.sort,
        };
        groups::write(&mut out, table, sort, rows)?;
    }
    if args.by.is_empty() {
        stuck::write(&mut out, stuck, rows)?;
    }
    if tables.are_empty() && !args.by.is_empty() {
        writeln!(out, "no move of a page in it that is asked for")?;
    }
    Ok(out)
}

fn json(args: &Args, recordings: &[Recorded], tables: &[Groups], stuck: &StuckByProcess, reading: &Reading) -> String {
    let recordings: Vec<_> = recordings
        .iter()
        .map(|recorded| {
            let summary = recorded.summary.as_ref();
            json!({
                "file": recorded.path.to_string_lossy(),
                "host": recorded.header.host,
                "kernel": recorded.header.kernel,
                "gaps": reading.parts.of(&recorded.header).map(Files::gaps),
                "duration_ns": summary.map(|summary| summary.duration.0),
                "lost_events": summary.map(|_| recorded.lost()),
                "losses": losses::json(&recorded.losses),
                "balanced": recorded.balanced(),
                "so_far": recorded.summary.is_none().then(|| json!({
                    "until_ns": recorded.so_far.until.since(recorded.header.begun).0,
                    "kernel_pages": recorded.so_far.kernel,
                    "moved_pages": recorded.so_far.moved,
                    "intervals": recorded.so_far.totals.closed,
                    "unbalanced": recorded.so_far.totals.unbalanced,
                })),
                "totals": TotalsKeys::new(&recorded.totals, None),
            })
        })
        .collect();
    let tables: Vec<_> = tables
        .iter()
        .map(|table| {
            json!({
                "by": table.asked().iter().map(|key| key.name()).collect::<Vec<_>>(),
                "rows": groups::json(table, args.sort, args.rows),
            })
        })
        .collect();
    escape::json_text(&json!({
        "whole": reading.is_whole(),
        "recordings": recordings,
        "tables": tables,
        "failures_by_process": stuck::json(stuck, args.rows),
    }))
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
