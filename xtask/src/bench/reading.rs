//! Writes and reads a recording of millions of made-up moves, and compares with `perf script` on perf's own recording.
//! Input: the output of the workload `bulk`; perf's recording of the load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::args::Args;
use super::child::{Measured, Used, nanos};
use super::goals::What;
use super::recorders::Recorder;
use super::recording::recorded;
use super::setup::Bench;
use super::stats::per;
use crate::host::process;

/// Events that are encoded in a run; the output is discarded.
const ENCODED: u64 = 4_000_000;
/// More bytes than an event takes in a file, to check for free space.
const BYTES: u64 = 8;
/// The commands that read all of a recording.
const READERS: [&str; 3] = ["report", "cat", "info"];

/// perf's recording of the load.
struct Peer {
    file: PathBuf,
    events: u64,
}

/// The benchmarks of this file, by name.
pub const NAMES: [&str; 2] = ["encode", "read"];

pub fn run(args: &Args, bench: &mut Bench) -> Result<()> {
    if args.wants("encode") {
        for pair in 1..=args.pairs {
            eprintln!("bench: encode, {pair} of {} ...", args.pairs);
            let (cpu, bytes) = encoded(&bench.tests)?;
            bench.results.add("encode", What::EventCpu, per(cpu, ENCODED));
            bench.results.add("encode", What::EventBytes, per(bytes, ENCODED));
        }
    }
    if args.wants("read") {
        eprintln!("bench: writing {} events ...", args.events);
        let recording = bench.scratch.path().join("made-up");
        write(&bench.tests, &recording, args.events)?;
        let size = fs::metadata(&recording).context("look at the made-up recording")?.len();
        bench.results.add("made-up", What::EventBytes, per(size, args.events));
        let peer = peer(bench);
        if let Err(error) = &peer {
            bench.results.skip("perf script", format!("{error:#}"));
        }
        for pair in 1..=args.pairs {
            eprintln!("bench: read, pair {pair} of {} ...", args.pairs);
            read(bench, &recording, args.events, peer.as_ref().ok())?;
        }
    }
    Ok(())
}

/// The CPU nanoseconds and bytes of [`ENCODED`] events.
fn encoded(tests: &Path) -> Result<(u64, u64)> {
    let said = process::output(Command::new(tests).args(["work", "bulk", "-", &ENCODED.to_string()]))?;
    let mut numbers = said.split_whitespace().map(str::parse);
    let (Some(Ok(cpu)), Some(Ok(bytes))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("the workload printed {said:?} instead of its numbers")
    };
    Ok((cpu, bytes))
}

fn write(tests: &Path, file: &Path, events: u64) -> Result<()> {
    let disk = rustix::fs::statvfs(file.parent().context("a directory")?).context("look how full the disk is")?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    ensure!(
        events.saturating_mul(BYTES) < free,
        "{events} events take up to {} MB in {}, and {} are free; set TMPDIR to another disk",
        events.saturating_mul(BYTES) / 1_000_000,
        file.display(),
        free / 1_000_000
    );
    process::output(
        Command::new(tests)
            .args(["work", "bulk"])
            .arg(file)
            .arg(events.to_string()),
    )
    .map(drop)
}

fn peer(bench: &Bench) -> Result<Peer> {
    let (_, recorded) = recorded(bench, "script", Recorder::Perf { packed: false })?;
    Ok(Peer {
        file: bench.file("script"),
        events: recorded.events.context("perf has recorded nothing")?,
    })
}

/// One round: `perf script`, then each reader.
fn read(bench: &mut Bench, recording: &Path, events: u64, peer: Option<&Peer>) -> Result<()> {
    let mut script = None;
    if let Some(peer) = peer {
        let used = quietly(Command::new("perf").args(["script", "-i"]).arg(&peer.file))?;
        script = per(nanos(used.cpu), peer.events);
        bench.results.add("perf script", What::ReadCpu, script);
        bench
            .results
            .add("perf script", What::Memory, per(used.memory, 1_000_000));
    }
    for name in READERS {
        let used = quietly(Command::new(&bench.tracer).arg(name).arg(recording))?;
        let cpu = per(nanos(used.cpu), events);
        bench.results.add(name, What::ReadCpu, cpu);
        bench
            .results
            .add(name, What::ReadRatio, cpu.zip(script).map(|(cpu, script)| cpu / script));
        bench.results.add(name, What::Memory, per(used.memory, 1_000_000));
    }
    Ok(())
}

/// The resources that a command uses while its output is discarded.
fn quietly(command: &mut Command) -> Result<Used> {
    let shown = process::shown(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let used = Measured::spawn(command)?.wait()?;
    ensure!(used.status.success(), "{shown}: {}", used.status);
    Ok(used)
}
