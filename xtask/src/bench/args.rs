//! The command line of `cargo xtask bench`.
//! Input: the words of the command line.

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench                       everything, in less than ten minutes
  cargo xtask bench record perf           two recorders on a load that moves 250,000 pages and more a run
  cargo xtask bench --pairs 15 record     with less of a spread
  cargo xtask bench encode read           writing and reading of a made-up recording alone
  cargo xtask bench --events 3000000000 read
                                          of one of about 10 GB
  cargo xtask bench --check --json        exit code 1 where a goal is missed

The load takes most of the memory for about a second in each run: nothing of worth should run beside it.";

/// Compares tracer with other recorders of page moves on this machine, and prints how it meets its goals
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// Exit with code 1 if a goal is missed.
    #[arg(long)]
    pub check: bool,
    /// The number of runs of each benchmark, each in turn with its peer.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pairs: u32,
    /// The number of events in the made-up recording that is read.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub events: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Run only these: live, record, record-exact, perf, perf-z, bpftrace, encode, read.
    pub names: Vec<String>,
    /// Act as the process whose pages move; the benchmark starts this.
    #[arg(long, hide = true)]
    pub load: bool,
    /// Report that the recorder has attached; recorders start this.
    #[arg(long, hide = true)]
    pub gate: bool,
}

impl Args {
    /// Whether this benchmark was chosen.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }
}
