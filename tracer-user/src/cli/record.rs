//! `tracer record`: traces into a file.
//! Input: the parsed command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;

use crate::{
    cli::{
        error::Refused,
        status::StatusLine,
        trace::{self, Output},
        values,
    },
    escape::Printable,
    recording::{
        files::{Files, Limit, Sync},
        writer::Writer,
    },
};

const EXAMPLES: &str = "\
Examples:
  sudo tracer record -a -d 60                     everything of a minute
  sudo tracer record -o db.data -p 4711           one process and its children, until Ctrl-C
  sudo tracer record -- ./server --port 80        a program from its first page
  sudo tracer record -a -- make -j8                every process while a program runs
  sudo tracer record -a --max-size 100M --rotate 5
                                                  for days: the last 600 MB at most
  sudo tracer record -a -d 10 -o - | tracer cat - --json
                                                  into a pipe

Events are written at least once a second. A recording that is cut off or damaged can be read before
and after the damage.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub trace: trace::Args,

    /// The file to record into; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "tracer.data")]
    pub output: PathBuf,

    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,

    /// End when the file has this size
    #[arg(long, value_name = "SIZE[K|M|G]", value_parser = values::file_size)]
    pub max_size: Option<u64>,

    /// Continue in a new file instead, and keep the last N: FILE.1 is the latest of them
    #[arg(long, value_name = "N", requires = "max_size", value_parser = clap::value_parser!(u32).range(1..=999))]
    pub rotate: Option<u32>,

    /// When to write the file to the disk with fsync, so that it survives a power failure
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = SyncChoice::End)]
    pub sync: SyncChoice,
}

/// When to call fsync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SyncChoice {
    /// When the kernel writes it back
    Never,
    /// At the end of each file
    End,
    /// After each block: at least each second in which something happens
    Block,
}

impl From<SyncChoice> for Sync {
    fn from(choice: SyncChoice) -> Self {
        match choice {
            SyncChoice::Never => Self::Never,
            SyncChoice::End => Self::End,
            SyncChoice::Block => Self::Block,
        }
    }
}

/// Runs `tracer record`.
///
/// # Errors
/// As [`trace::run`], and when the file cannot be created.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(Refused("a recording cannot be shown on a terminal: use a file or a pipe".to_owned()).into());
    }
    trace::run(&args.trace, |_, ending| {
        let limit = args.max_size.map(|size| Limit {
            size,
            keep: args.rotate.unwrap_or(0),
        });
        let files = if to_stdout {
            Files::stdout()?
        } else {
            Files::create(&args.output, args.force, limit, args.sync.into())?
        }
        .heeding(ending);
        let name = if to_stdout {
            "standard output".to_owned()
        } else {
            Printable(&args.output.to_string_lossy()).to_string()
        };
        let status = StatusLine::new(name, files.total(), args.trace.quiet);
        Ok(Output {
            sinks: vec![Box::new(Writer::new(files)?), Box::new(status)],
            to_stdout,
            creates_in: args.rotate.and_then(|_| Some(args.output.parent()?.to_owned())),
        })
    })
}
