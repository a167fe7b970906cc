//! What is traced, and how: the options that tracing and recording share.
//! Input: words of the command line.

use std::{ffi::OsString, time::Duration};

use clap::ValueEnum;

use crate::{cli::filters, kernel::hooks::Kinds, run::backend::Backend, source::bpf::ring::RingBytes};

#[derive(Debug, clap::Args)]
#[group(skip)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
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

    /// Prove it: exit code 1 also when the books do not balance to the page, over the run or in any interval of about a
    /// second, or when something moved that the backend cannot see
    #[arg(long)]
    pub strict: bool,

    /// Size of the ring between the kernel and tracer, rounded up to a power of two: raise it where events are lost
    #[arg(long, value_name = "SIZE[K|M]", default_value = "16M", value_parser = ring_bytes)]
    pub ring_size: RingBytes,

    /// Say more on stderr; -vv also the verifier's output and single failed look-ups
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Say nothing on stderr but errors and losses
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// A program to start and trace from its first page, as the user who called sudo; with --all every process while it
    /// runs
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pid")]
    pub command: Vec<OsString>,

    /// Which of their moves
    #[command(flatten)]
    pub filters: filters::Args,
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
    /// As a set.
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

/// A process's number, from 1.
pub fn process_number(text: &str) -> Result<u32, String> {
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
    use super::*;

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
}
