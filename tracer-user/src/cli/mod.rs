//! The command line: what may be said, who carries it out, which exit code results.
//! Exit codes: 0 complete, 1 finished but something was lost (or --strict is not content), 2 could not; with a COMMAND, its own.

mod command;
mod doctor;
mod filters;
mod signals;
mod targets;
mod trace;

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    kernel::hooks::Kinds,
    render::escape::Printable,
    source::{
        attach,
        ring::{Backend, RingBytes},
    },
};

const USAGE: &str = "\
tracer [OPTIONS] -p PID...
       tracer [OPTIONS] -a
       tracer [OPTIONS] --cgroup PATH | --comm PATTERN | --actor PID|PATTERN
       tracer [OPTIONS] -- COMMAND...
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
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// Something else than tracing
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Trace this process (also several, comma-separated or repeated) and the children it has and will have
    #[arg(short, long, value_name = "PID", value_delimiter = ',', value_parser = process_number, allow_negative_numbers = true)]
    pub pid: Vec<u32>,

    /// Trace every process
    #[arg(short, long, conflicts_with = "pid")]
    pub all: bool,

    /// Do not trace children of the given processes, or of the COMMAND
    #[arg(long, conflicts_with = "all")]
    pub no_children: bool,

    /// How to capture: exact hooks functions, tracepoint finds owners by pagemap, auto takes the best that works
    #[arg(long, value_enum, value_name = "BACKEND", default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,

    /// Which moves to show (comma-separated or repeated); all but move need the exact backend. With move come pages that
    /// could not be moved, and runs of compaction [default: move,collapse]
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub kinds: Vec<Kind>,

    /// End after this many seconds (fractions allowed); a COMMAND goes on, and tracer waits for its end
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    /// Print one JSON object a line instead of rows. What a COMMAND prints stands among them, unless it is sent
    /// elsewhere: -- sh -c 'cmd >&2'
    #[arg(long)]
    pub json: bool,

    /// One row per page move: do not fold neighbouring pages into one row
    #[arg(long, conflicts_with = "json")]
    pub each: bool,

    /// Prove it: exit code 1 also when the books do not balance to the page, over the run or in any interval of about a
    /// second, or when something moved that the backend cannot see
    #[arg(long)]
    pub strict: bool,

    /// Size of the ring between the kernel and tracer, rounded up to a power of two: raise it where events are lost
    #[arg(long, value_name = "SIZE[K|M]", default_value = "16M", value_parser = ring_bytes)]
    pub ring_size: RingBytes,

    /// Colours: auto uses them on a terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub color: Color,

    /// Say more on stderr; -vv also the verifier's output and single failed look-ups
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Say nothing on stderr but errors and losses
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Words without an option: a process or a program, most likely. Taken only to say how it is meant.
    #[arg(hide = true)]
    pub stray: Vec<OsString>,

    /// A program to start and trace from its first page, as the user who called sudo
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["pid", "all"])]
    pub command: Vec<OsString>,

    /// Which of their moves
    #[command(flatten)]
    pub filters: filters::Args,
}

/// What else tracer can do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Check what this machine allows, and say for each missing thing what is lost and what to do
    Doctor(doctor::Args),
}

/// The choice of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// The best that works
    Auto,
    /// Function hooks (fentry, fexit): owners from the kernel
    Exact,
    /// Tracepoints: owners from pagemap
    Tracepoint,
}

impl BackendChoice {
    /// The backends to try, in this order.
    fn candidates(self) -> &'static [Backend] {
        match self {
            Self::Auto => &Backend::ALL,
            Self::Exact => &[Backend::Exact],
            Self::Tracepoint => &[Backend::Tracepoint],
        }
    }
}

/// A kind of page moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Through the kernel's migrate_pages: compaction, NUMA balancing and the like
    Move,
    /// Base pages copied into a huge page, by khugepaged or MADV_COLLAPSE
    Collapse,
    /// Pages merged by KSM, and their copies when they are written to or unmerged
    Ksm,
    /// Pages copied on write, the zero page too
    Cow,
    /// Pages that go to swap, and come back
    Swap,
}

impl Kind {
    fn set(self) -> Kinds {
        match self {
            Self::Move => Kinds::MOVE,
            Self::Collapse => Kinds::COLLAPSE,
            Self::Ksm => Kinds::KSM,
            Self::Cow => Kinds::COW,
            Self::Swap => Kinds::SWAP,
        }
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// A request that makes no sense, or a target that cannot be traced: said in one line, exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// A COMMAND that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {name}: {source}\n  {hint}")]
struct CannotRun {
    name: String,
    source: std::io::Error,
    hint: &'static str,
    /// The exit code that shells give.
    code: u8,
}

impl CannotRun {
    fn new(name: &OsStr, source: std::io::Error) -> Self {
        let (hint, code) = match source.kind() {
            std::io::ErrorKind::NotFound => ("give its path, or see that it is in PATH, which sudo may change", 127),
            std::io::ErrorKind::PermissionDenied if command::by_sudo() => (
                "COMMAND must be a program that the user who called sudo may execute",
                126,
            ),
            std::io::ErrorKind::PermissionDenied => (
                "COMMAND must be a file that may be executed, on a file system that allows it",
                126,
            ),
            _ => ("COMMAND must be a program, or a script that starts with #!", 126),
        };
        Self {
            name: Printable(&name.to_string_lossy()).to_string(),
            source,
            hint,
            code,
        }
    }
}

/// Carries out the command line.
///
/// # Errors
/// Whatever kept it from doing so; [`report`] and [`failure_code`] take it from there.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.action {
        Some(Action::Doctor(doctor)) => doctor::run(doctor),
        None if !args.stray.is_empty() => Err(unknown_action(&args.stray).into()),
        None => trace::run(args),
    }
}

/// What the words may have been meant for.
fn unknown_action(words: &[OsString]) -> Refused {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let first = words.first().map_or("", |word| word);
    let all = words.join(" ");
    let meant = if first.split(',').all(|number| process_number(number).is_ok()) {
        format!("a process? tracer -p {first}")
    } else {
        format!("a program to start? tracer -- {all}")
    };
    Refused(format!(
        "{} is no action of tracer (doctor is one)\n  {}",
        Printable(first),
        Printable(&meant)
    ))
}

/// Prints an error for a person: what, why, and what to do.
#[expect(clippy::print_stderr, reason = "the one place where the command reports its failure")]
pub fn report(error: &anyhow::Error) {
    // Where an error's own words give its cause, the cause is not said again.
    eprintln!("tracer: {}", attach::chain(error.as_ref()));
}

/// The exit code of a failure.
#[must_use]
pub fn failure_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<CannotRun>().map_or(2, |cannot| cannot.code)
}

/// Sends the library's and the BPF side's diagnostics to stderr: warnings, with -v information, with -vv everything,
/// with -q errors.
pub fn start_log(args: &Args) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => log::LevelFilter::Error,
        (false, 0) => log::LevelFilter::Warn,
        (false, 1) => log::LevelFilter::Info,
        (false, _) => log::LevelFilter::Debug,
    };
    env_logger::Builder::new()
        // What a library warns of concerns its own ways; errors come back to us.
        .filter_level(level.min(log::LevelFilter::Error))
        .filter_module("tracer_user", level)
        .filter_module("tracer", level)
        .format(|out, record| {
            use std::io::Write as _;
            writeln!(out, "tracer: {}", Printable(&record.args().to_string()))
        })
        .init();
}

fn process_number(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Err("processes are numbered from 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not the number of a process".to_owned()),
    }
}

fn ring_bytes(text: &str) -> Result<RingBytes, String> {
    let (digits, shift) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 10),
        None => text.strip_suffix(['M', 'm']).map_or((text, 0), |digits| (digits, 20)),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a number of bytes, with K or M for KiB or MiB".to_owned())?;
    number
        .checked_mul(1 << shift)
        .and_then(RingBytes::holding)
        .ok_or_else(|| "at most 1024M".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if seconds <= 0.0 {
        return Err("must be more than 0".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
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
    fn durations_are_positive_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "inf", "NaN", "1e30", "", "1s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processes_are_positive_numbers() {
        assert_eq!(process_number("4711"), Ok(4711));
        for bad in ["0", "-1", "abc", "", "4294967296"] {
            assert!(process_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ring_sizes_are_rounded_up() {
        assert_eq!(ring_bytes("16M"), Ok(RingBytes::DEFAULT));
        assert_eq!(ring_bytes("9M"), Ok(RingBytes::DEFAULT));
        assert_eq!(ring_bytes("1"), ring_bytes("4K"));
        for bad in ["", "M", "1G", "-1", "1025M", "99999999999999999999"] {
            assert!(ring_bytes(bad).is_err(), "{bad}");
        }
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
        assert!(command.stray.is_empty() && command.command.len() == 2);
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
