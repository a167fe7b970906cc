//! `cargo xtask bench`: tracer beside its peers, on page moves of this machine and on a large recording.
//! Input: the command line; the machine.
//!
//! Times drift with the machine: what is compared is measured in turn, several times.

mod child;
mod goals;
mod load;
mod reading;
mod recorders;
mod results;
mod stats;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::cache::Scratch;
use crate::{apt, process};
use goals::What;
use load::{LEAST, Load, Moved};
use recorders::{Recorded, Recorder, Running};
use results::Results;
use stats::per;

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

/// Made-up recordings: what is compared, by name.
const READING: [&str; 2] = ["encode", "read"];
/// A load that moves little is started again, so often.
const TRIES: u32 = 4;
/// The peers, each of a Debian package.
const PEERS: [(&str, &str); 2] = [("perf", "linux-perf"), ("bpftrace", "bpftrace")];

/// Compares tracer with other recorders of page moves on this machine, and prints how it does by its goals
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// Exit code 1 where a goal is missed.
    #[arg(long)]
    check: bool,
    /// Runs of each, in turn with what it is compared with.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// Events of the made-up recording that is read.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Only these: live, record, record-exact, perf, perf-z, bpftrace, encode, read.
    names: Vec<String>,
    /// Be the process whose pages move; the benchmark starts this.
    #[arg(long, hide = true)]
    load: bool,
    /// Say that whoever starts this has attached; recorders start this.
    #[arg(long, hide = true)]
    gate: bool,
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }
}

/// What was built, and where files go.
struct Bench {
    tracer: PathBuf,
    tests: PathBuf,
    scratch: Scratch,
    results: Results,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    if args.load {
        return load::serve().map(|()| ExitCode::SUCCESS);
    }
    if args.gate {
        return recorders::gate().map(|()| ExitCode::SUCCESS);
    }
    let known: Vec<&str> = recorders::ALL.iter().map(|(name, _)| *name).chain(READING).collect();
    for name in &args.names {
        ensure!(
            known.contains(&&**name),
            "no benchmark {name}; there are {}",
            known.join(", ")
        );
    }
    let mut bench = Bench::build(args)?;
    bench.recording(args)?;
    reading::run(args, &mut bench)?;
    bench.results.explain(args);
    if args.json {
        println!("{}", bench.results.json());
    } else {
        print!("{}", bench.results.text());
    }
    Ok(ExitCode::from(u8::from(args.check && bench.results.is_missed())))
}

impl Bench {
    fn build(args: &Args) -> Result<Self> {
        eprintln!("bench: building tracer and its workloads ...");
        let mut cargo = process::cargo();
        cargo.args([
            "build",
            "--release",
            "--quiet",
            "--package",
            "tracer-user",
            "--bin",
            "tracer",
        ]);
        process::run(cargo.args(["--package", "tracer-tests", "--bin", "tracer-tests"]))?;
        let built = process::target_dir().join("release");
        let mut bench = Self {
            tracer: built.join("tracer"),
            tests: built.join("tracer-tests"),
            scratch: Scratch::new()?,
            results: Results::default(),
        };
        bench.results.machine = machine(&bench.tracer)?;
        let needed = |program: &str| {
            recorders::ALL
                .iter()
                .any(|(name, _)| name.starts_with(program) && args.wants(name))
        };
        for (program, package) in PEERS {
            let missing = process::find(program).is_none();
            if missing && (needed(program) || program == "perf" && args.wants("read")) {
                eprintln!("bench: installing {package} ...");
                if let Err(error) = apt::install(&[package]) {
                    eprintln!("bench: {error:#}");
                }
            }
            bench
                .results
                .machine
                .push((program.into(), version(program).unwrap_or("not installed".to_owned())));
        }
        Ok(bench)
    }

    /// Each recorder beside a run without one, in turn.
    fn recording(&mut self, args: &Args) -> Result<()> {
        let mut wanted: Vec<_> = recorders::ALL
            .into_iter()
            .filter(|(name, _)| args.wants(name))
            .collect();
        let refused = if process::is_root() {
            load::refused()?
        } else {
            Some("root alone makes pages move and traces them: sudo -E cargo xtask bench".to_owned())
        };
        if let Some(reason) = refused {
            for (name, _) in wanted.drain(..) {
                self.results.skip(name, reason.clone());
            }
        }
        for pair in 1..=args.pairs {
            // A recorder that this machine does not serve is not tried again.
            let mut served = Vec::new();
            for (name, recorder) in wanted {
                eprintln!("bench: {name}, pair {pair} of {} ...", args.pairs);
                match self.pair(name, recorder) {
                    Ok(()) => served.push((name, recorder)),
                    Err(error) => self.results.skip(name, format!("{error:#}")),
                }
            }
            wanted = served;
        }
        Ok(())
    }

    fn pair(&mut self, name: &'static str, recorder: Recorder) -> Result<()> {
        let alone = enough(|| Load::start()?.go(), |moved| *moved)?;
        let (moved, recorded) = self.recorded(name, recorder)?;
        let (untraced, traced) = (per(alone.cpu, alone.pages), per(moved.cpu, moved.pages));
        let results = &mut self.results;
        results.add("untraced", What::LoadCpu, untraced);
        results.add(name, What::LoadCpu, traced);
        results.add(
            name,
            What::LoadRatio,
            untraced.zip(traced).map(|(untraced, traced)| traced / untraced),
        );
        results.add(name, What::PageCpu, per(recorded.cpu, moved.pages));
        results.add(
            name,
            What::EventCpu,
            recorded.events.and_then(|events| per(recorded.cpu, events)),
        );
        let bytes = |each| recorded.bytes.and_then(|bytes| per(bytes, each));
        results.add(name, What::EventBytes, recorded.events.and_then(bytes));
        results.add(name, What::PageBytes, bytes(moved.pages));
        results.add(name, What::Lost, recorded.lost.and_then(|lost| per(lost, 1)));
        eprintln!(
            "bench:   {} pages moved alone, {} recorded: {recorded:?}",
            alone.pages, moved.pages
        );
        Ok(())
    }

    /// The load with a recorder.
    fn recorded(&self, name: &str, recorder: Recorder) -> Result<(Moved, Recorded)> {
        enough(
            || {
                let load = Load::start()?;
                let running = Running::start(recorder, &self.tracer, self.file(name))?;
                let moved = load.go()?;
                Ok((moved, running.end(&self.tracer)?))
            },
            |(moved, _)| *moved,
        )
    }

    /// Where a recorder leaves its recording.
    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

/// Runs the load until it has moved enough to tell.
fn enough<T>(mut run: impl FnMut() -> Result<T>, moved: impl Fn(&T) -> Moved) -> Result<T> {
    let mut most = 0;
    for _ in 0..TRIES {
        let done = run()?;
        let pages = moved(&done).pages;
        if pages >= LEAST {
            return Ok(done);
        }
        eprintln!("bench:   {pages} pages moved only; again");
        most = most.max(pages);
    }
    anyhow::bail!("in {TRIES} tries the kernel moved {most} pages at most, and {LEAST} are needed")
}

/// What the numbers are of.
fn machine(tracer: &PathBuf) -> Result<Vec<(String, String)>> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpus = std::thread::available_parallelism().context("count the CPUs")?;
    let uname = rustix::system::uname();
    let memory = crate::memory::meminfo("MemTotal")? >> 20;
    let shown = process::output(std::process::Command::new(tracer).arg("--version"))?;
    Ok(vec![
        ("kernel".into(), uname.release().to_string_lossy().into_owned()),
        (
            "CPU".into(),
            format!("{cpus} x {}", model.map_or("unknown", |(_, model)| model)),
        ),
        ("memory".into(), format!("{memory} MiB")),
        ("tracer".into(), shown.trim().to_owned()),
    ])
}

fn version(program: &str) -> Option<String> {
    process::find(program)?;
    let output = process::output(std::process::Command::new(program).arg("--version")).ok()?;
    Some(output.lines().next()?.to_owned())
}
