//! The command line: its options, their dispatch, and the exit codes.
//! Exit codes: 0 complete; 1 finished, but something was lost or --strict failed; 2 failed; with a COMMAND, its own.

mod doctor;
mod error;
mod export;
mod filters;
mod inputs;
mod merge;
mod pages;
mod progress;
mod record;
mod recorded;
mod report;
mod selection;
mod signals;
mod status;
mod trace;
mod values;
mod view;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{cli::error::Refused, escape::Printable};

pub use error::{failure_code, report};

const USAGE: &str = "\
tracer [OPTIONS] -p PID...
       tracer [OPTIONS] -a
       tracer [OPTIONS] --cgroup PATH | --comm PATTERN | --actor PID|PATTERN
       tracer [OPTIONS] -- COMMAND...
       tracer record [OPTIONS] [-o FILE] -p PID... | -a | ... | -- COMMAND...
       tracer report FILE...
       tracer export --format FORMAT [-o OUT] FILE...
       tracer cat | info FILE
       tracer merge [--redact] -o OUT FILE...
       tracer pages [OPTIONS] -p PID... | -a | --cgroup PATH | --comm PATTERN | --pfn RANGE
       tracer doctor [--json]";

const EXAMPLES: &str = "\
Examples:
  sudo tracer -p 4711                  watch the pages of process 4711 and its children move
  sudo tracer -a -d 10                 every process, for ten seconds
  sudo tracer -- ./server --port 80    start a program and trace it from its first page
  sudo tracer -a --json | jq -c 'select(.kind == \"failure\")'
                                       one JSON object a line: here what could not be moved, and why
  sudo tracer --cgroup /system.slice/nginx.service --nodes 1:0
                                       a service's pages that go from node 1 to node 0
  sudo tracer --comm 'postgres*' --reason compaction --min-order 2M
                                       huge pages of these programs, moved by compaction
  sudo tracer record -a -d 60          everything of a minute, into the file tracer.data
  sudo tracer report tracer.data       what moved, by process, mapping, reason, actor, second
  sudo tracer cat tracer.data          the rows that tracing would have shown
  sudo tracer export tracer.data --format parquet -o moves.parquet
                                       a table for pandas, polars, DuckDB, ClickHouse, Spark
  sudo tracer pages -p 4711            where its pages are: by mapping, node and size
  tracer doctor                        what this machine allows, and what is missing

To see pages move at once, ask the kernel to compact memory while tracer runs:
  echo 1 | sudo tee /proc/sys/vm/compact_memory

Exit codes: 0 complete, 1 finished but events were lost (or --strict is not content),
2 could not trace; with a COMMAND, its own.";

/// Shows which page of which process moved in physical memory: from which frame and node to which, why, by whom, and
/// how long accesses had to wait
#[derive(Debug, Parser)]
#[command(
    name = "tracer",
    version,
    override_usage = USAGE,
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_value_name = "ACTION",
    subcommand_help_heading = "Actions",
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Args {
    /// An action other than tracing
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Words without an option, most likely a process or a program. They are parsed only for a hint on the right
    /// option.
    #[arg(hide = true)]
    pub stray: Vec<OsString>,

    /// Options of tracing
    #[command(flatten)]
    pub trace: trace::Args,

    /// How it is shown
    #[command(flatten)]
    pub view: view::Args,
}

/// The other actions of tracer.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Record moves into a file, for later analysis on any machine
    Record(Box<record::Args>),
    /// Show a recording's events as tracing shows them
    Cat(recorded::CatArgs),
    /// Sum up recordings: what moved by process, mapping, reason, actor, address and second
    Report(report::Args),
    /// Write recordings in a format that other programs read: a table, JSON lines, a flame graph's stacks
    Export(export::Args),
    /// Show the contents of a recording: how it was made, its blocks, its damage
    Info(recorded::InfoArgs),
    /// Join recordings into one; with --redact, without the identity of frames and files
    Merge(merge::Args),
    /// Show where the pages of processes are: frames, nodes, sizes, states; nothing is traced or touched
    Pages(Box<pages::Args>),
    /// Check what this machine allows, and show for each missing thing what is lost and what to do
    Doctor(doctor::Args),
}

/// Carries out the command line.
///
/// # Errors
/// Any error of the action; [`report`] and [`failure_code`] handle it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.action {
        Some(Action::Record(record)) => record::run(record),
        Some(Action::Cat(cat)) => recorded::cat(cat),
        Some(Action::Report(report)) => report::run(report),
        Some(Action::Export(export)) => export::run(export),
        Some(Action::Info(info)) => recorded::info(info),
        Some(Action::Merge(merge)) => merge::run(merge),
        Some(Action::Pages(pages)) => pages::run(pages),
        Some(Action::Doctor(doctor)) => doctor::run(doctor),
        None if !args.stray.is_empty() => Err(unknown_action(&args.stray).into()),
        None => trace::run(&args.trace, |_, ending| {
            Ok(trace::Output {
                sinks: vec![args.view.sink(Some(ending))?],
                to_stdout: true,
                creates_in: None,
            })
        }),
    }
}

/// An error with a hint on what the words probably meant.
fn unknown_action(words: &[OsString]) -> Refused {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let first = words.first().map_or("", |word| word);
    let all = words.join(" ");
    let meant = if first.split(',').all(|number| values::process_number(number).is_ok()) {
        format!("a process? tracer -p {first}")
    } else {
        format!("a program to start? tracer -- {all}")
    };
    Refused(format!(
        "{} is no action of tracer (record, report, cat, export, info, merge, pages and doctor are)\n  {}",
        Printable(first),
        Printable(&meant)
    ))
}

/// Writes diagnostics of the library and the BPF side to stderr: warnings, with -v information, with -vv everything,
/// with -q errors.
pub fn start_log(args: &Args) {
    let (quiet, verbose) = match &args.action {
        Some(Action::Record(record)) => (record.trace.quiet, record.trace.verbose),
        _ => (args.trace.quiet, args.trace.verbose),
    };
    let level = match (quiet, verbose) {
        (true, _) => log::LevelFilter::Error,
        (false, 0) => log::LevelFilter::Warn,
        (false, 1) => log::LevelFilter::Info,
        (false, _) => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        // Warnings of other libraries concern only their internals; their errors are returned to us.
        .filter_level(level.min(log::LevelFilter::Error))
        .filter_module("tracer_user", level)
        .filter_module("tracer", level)
        .format(|out, record| {
            use std::io::Write as _;
            writeln!(out, "tracer: {}", Printable(&record.args().to_string()))
        })
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn words_without_their_option_get_a_hint() {
        let hint = |words: &[&str]| {
            let args = Args::try_parse_from([&["tracer"], words].concat()).unwrap();
            unknown_action(&args.stray).to_string()
        };
        assert!(hint(&["4711"]).ends_with("a process? tracer -p 4711"));
        assert!(hint(&["sleep", "10"]).ends_with("a program to start? tracer -- sleep 10"));
        let doctor = Args::try_parse_from(["tracer", "doctor"]).unwrap();
        assert!(doctor.action.is_some() && doctor.stray.is_empty());
        let command = Args::try_parse_from(["tracer", "--", "sleep", "10"]).unwrap();
        assert!(command.stray.is_empty() && command.trace.command.len() == 2);
    }

    #[test]
    fn all_and_no_children_contradict_each_other() {
        assert!(Args::try_parse_from(["tracer", "-a", "--no-children"]).is_err());
        assert!(Args::try_parse_from(["tracer", "-p", "1", "--no-children"]).is_ok());
    }

    #[test]
    fn help_pages() {
        insta::assert_snapshot!("help", Args::command().term_width(100).render_long_help().to_string());
    }
}
