//! The options that tracing and recording share.
//! Input: words of the command line.

use std::{env, ffi::OsString, time::Duration};

use clap::ValueEnum;

use crate::{
    cli::{error::Refused, filters, values},
    kernel::hooks::Kinds,
    run::backend::Backend,
    session::{
        config::{Scope, TraceConfig},
        filters::Filters,
    },
    source::bpf::rings::RingBytes,
};

#[derive(Debug, clap::Args)]
#[group(skip)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// Trace this process (or several, comma-separated or repeated) and its present and future children
    #[arg(short, long, value_name = "PID", value_delimiter = ',', value_parser = values::process_number, allow_negative_numbers = true)]
    pub pid: Vec<u32>,

    /// Trace every process
    #[arg(short, long, conflicts_with = "pid")]
    pub all: bool,

    /// Do not trace children of the given processes, or of the COMMAND
    #[arg(long, conflicts_with = "all")]
    pub no_children: bool,

    /// How to capture: exact hooks functions, tracepoint needs tracepoints only, auto takes the best that works
    #[arg(long, value_enum, value_name = "BACKEND", default_value_t = BackendChoice::Auto)]
    pub backend: BackendChoice,

    /// Which moves to show (comma-separated or repeated); all but move need the exact backend. move includes pages that
    /// could not be moved, and passes of compaction [default: move,collapse]
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub kinds: Vec<MoveKind>,

    /// End after this many seconds (fractions allowed); a COMMAND goes on, and tracer waits for its end
    #[arg(short, long, value_name = "SECONDS", value_parser = values::seconds, allow_negative_numbers = true)]
    pub duration: Option<Duration>,

    /// Require proof: exit code 1 also if the books do not balance to the page, over the run or in any interval of
    /// about a second, or if something moved that the backend cannot see
    #[arg(long)]
    pub strict: bool,

    /// Size of the ring of moves between the kernel and tracer, rounded up to a power of two: raise it if events are
    /// lost. Events about processes have a ring of a quarter of it
    #[arg(long, value_name = "SIZE[K|M]", default_value = "16M", value_parser = values::ring_bytes)]
    pub ring_size: RingBytes,

    /// Print more on stderr; -vv adds the verifier's output and single failed look-ups
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Print only errors and losses on stderr
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// A program to start and trace from its first page, as the user who called sudo; with --all, every process is
    /// traced while it runs
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pid")]
    pub command: Vec<OsString>,

    /// Which of their moves
    #[command(flatten)]
    pub filters: filters::Args,
}

impl Args {
    /// The configuration of these options.
    ///
    /// # Errors
    /// [`Refused`] if the options select no processes, or contradict each other.
    pub(super) fn config(&self) -> Result<TraceConfig, Refused> {
        let filters = Filters::from(&self.filters);
        let scope = match (self.all, self.command.is_empty()) {
            _ if !self.pid.is_empty() => Scope::Processes(self.pid.clone()),
            (true, false) => Scope::EverybodyWhile(self.command.clone()),
            (false, false) => Scope::Command(self.command.clone()),
            (true, true) => Scope::Everybody,
            (false, true) if filters.select() => Scope::Everybody,
            (false, true) => {
                return Err(Refused(
                    "whose pages? Give -p PID, -a for every process, or -- COMMAND to start one (tracer --help)"
                        .to_owned(),
                ));
            }
        };
        let named = self.kinds.iter().map(|kind| kind.set()).reduce(Kinds::and);
        let config = TraceConfig {
            scope,
            follow: !self.no_children,
            filters,
            backends: self.backend.candidates(),
            kinds: named.unwrap_or(Kinds::DEFAULT),
            must: named.unwrap_or(Kinds::NONE),
            command_line: env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            ring: self.ring_size,
        };
        if config.candidates().is_empty() {
            return Err(Refused(
                "--backend tracepoint sees moves through migrate_pages only: --kinds move, or the exact backend"
                    .to_owned(),
            ));
        }
        Ok(config)
    }
}

/// The choice of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// The best backend that works
    Auto,
    /// Function hooks (fentry, fexit): owners from the kernel
    Exact,
    /// Tracepoints only: moves of mapped pages, and passes of compaction
    Tracepoint,
}

impl BackendChoice {
    /// The backends to try, in this order.
    pub fn candidates(self) -> &'static [Backend] {
        match self {
            Self::Auto => &Backend::ALL,
            Self::Exact => &[Backend::Exact],
            Self::Tracepoint => &[Backend::Tracepoint],
        }
    }
}

/// A kind of page moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MoveKind {
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

impl MoveKind {
    /// The kind as a set.
    pub fn set(self) -> Kinds {
        match self {
            Self::Move => Kinds::MOVE,
            Self::Collapse => Kinds::COLLAPSE,
            Self::Ksm => Kinds::KSM,
            Self::Cow => Kinds::COW,
            Self::Swap => Kinds::SWAP,
        }
    }
}
