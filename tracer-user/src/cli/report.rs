//! `tracer report`: what recordings come to.
//! Input: the parsed command line; recordings.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{ValueEnum, builder::PossibleValue};
use serde_json::json;

use crate::{
    analysis::{
        groups::{Groups, Key, Run, Sort},
        intervals::Interval,
        losses::Losses,
        totals::Totals,
    },
    cli::{recorded, view},
    event::{Event, Move},
    render::{
        escape::{self, Printable},
        groups, losses,
        quantity::Count,
        summary,
    },
    sink::{Header, Sink, Summary},
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
                                                 ten seconds of one process";

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

    /// So many rows of each table
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub rows: usize,

    /// Only moves of these processes (comma-separated)
    #[arg(short, long, value_name = "PID", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Only what happened so many seconds after the begin, or later
    #[arg(long, value_name = "SECONDS")]
    pub since: Option<f64>,

    /// Only what happened before so many seconds after the begin
    #[arg(long, value_name = "SECONDS")]
    pub until: Option<f64>,

    /// Only moves of which KEY is VALUE, as the tables show it; of several all must hold
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
    Ok((Key::from_str(key, true)?, value.to_owned()))
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

    #[expect(clippy::cast_precision_loss, reason = "fractions of a second are enough")]
    fn in_time(&self, at: Nanos, run: &Run) -> bool {
        let seconds = || at.since(run.begun).0 as f64 / 1e9;
        self.since.is_none_or(|since| seconds() >= since) && self.until.is_none_or(|until| seconds() < until)
    }

    fn wants(&self, event: &Event, run: &Run) -> bool {
        self.in_time(event.at(), run)
            && match event {
                Event::Move(moved) => self.wants_move(moved, run),
                Event::Unmapped(_) | Event::Failure(_) | Event::Compaction(_) => !self.chooses_moves(),
            }
    }

    fn wants_move(&self, moved: &Move, run: &Run) -> bool {
        let of_process = |pid: &u32| moved.owner.as_ref().is_some_and(|owner| owner.tgid.0 == *pid);
        (self.pid.is_empty() || self.pid.iter().any(of_process))
            && self
                .conditions
                .iter()
                .all(|(key, value)| groups::words(&key.of(moved, run)) == *value)
    }
}

/// What a run says of itself.
struct Recorded {
    path: PathBuf,
    header: Header,
    totals: Totals,
    losses: Losses,
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
    tables: Vec<Groups>,
}

impl Sink for Gathering<'_> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.run = Run::from(header);
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
        if let Event::Move(moved) = event {
            for table in &mut self.tables {
                table.add(moved, &self.run);
            }
        }
        if let Some(recorded) = self.recorded.get_mut(self.current) {
            recorded.totals.add(event);
        }
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        if let Some(recorded) = self.recorded.get_mut(self.current) {
            recorded.losses.add(interval, self.run.begun);
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
        tables: keys.into_iter().map(Groups::new).collect(),
    };
    recorded::ensure_distinct(&args.files)?;
    let mut whole = true;
    for path in &args.files {
        gathering.path = path;
        whole &= recorded::replay(path, &mut gathering, true)?;
    }
    let Gathering { recorded, tables, .. } = gathering;
    let text = if args.json {
        json(args, &recorded, &tables, whole)
    } else {
        text(args, &recorded, &tables, whole)?
    };
    view::print(&text)?;
    Ok(ExitCode::from(u8::from(!whole)))
}

/// Each recording's closing page, unless something else is asked for, then the tables.
fn text(args: &Args, recordings: &[Recorded], tables: &[Groups], whole: bool) -> anyhow::Result<String> {
    let mut out = String::new();
    if !whole {
        writeln!(
            out,
            "MISSING   not everything is there: tracer info FILE shows what is missing"
        )?;
    }
    for recorded in recordings {
        let name = Printable(&recorded.path.to_string_lossy()).to_string();
        let lost = recorded.lost();
        if lost > 0 {
            writeln!(out, "LOST      {} events of {name}", Count(lost))?;
            losses::write(&mut out, &recorded.losses, args.rows)?;
        }
        if recorded.balanced() == Some(false) {
            writeln!(out, "WARNING   the books of {name} do not balance")?;
        }
    }
    if args.by.is_empty() {
        for recorded in recordings {
            if recordings.len() > 1 {
                writeln!(out, "== {}", Printable(&recorded.path.to_string_lossy()))?;
            }
            out += &match recorded.summary.clone().filter(|_| !args.filters()) {
                Some(summary) => {
                    let totals = recorded.totals.clone();
                    summary::text(Some(&recorded.header), &Summary { totals, ..summary }, false)
                }
                None => summary::sums(&recorded.totals),
            };
        }
    }
    for table in tables {
        let sort = match table.keys[..] {
            [Key::Second] if args.by.is_empty() => Sort::Name,
            _ => args.sort,
        };
        groups::write(&mut out, table, sort, args.rows)?;
    }
    if tables.iter().all(Groups::is_empty) {
        writeln!(out, "no move of a page in it that is asked for")?;
    }
    Ok(out)
}

fn json(args: &Args, recordings: &[Recorded], tables: &[Groups], whole: bool) -> String {
    let recordings: Vec<_> = recordings
        .iter()
        .map(|recorded| {
            let summary = recorded.summary.as_ref();
            json!({
                "file": recorded.path.to_string_lossy(),
                "host": recorded.header.host,
                "kernel": recorded.header.kernel,
                "events": recorded.totals.events,
                "pages": recorded.totals.pages,
                "duration_ns": summary.map(|summary| summary.duration.0),
                "lost_events": summary.map(|_| recorded.lost()),
                "losses": losses::json(&recorded.losses),
                "balanced": recorded.balanced(),
            })
        })
        .collect();
    let tables: Vec<_> = tables
        .iter()
        .map(|table| {
            json!({
                "by": table.keys.iter().map(|key| key.name()).collect::<Vec<_>>(),
                "rows": groups::json(table, args.sort, args.rows),
            })
        })
        .collect();
    escape::json_text(&json!({ "whole": whole, "recordings": recordings, "tables": tables }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_keys_with_values() {
        assert_eq!(condition("nodes=0->1"), Ok((Key::Nodes, "0->1".to_owned())));
        assert_eq!(condition("comm=a=b"), Ok((Key::Comm, "a=b".to_owned())));
        assert!(condition("comm").is_err() && condition("colour=red").is_err());
    }
}
