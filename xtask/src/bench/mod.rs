//! `cargo xtask bench`: compares tracer with its peers, on page moves of this machine and on a large recording.
//! Input: the command line; the machine.
//!
//! Times drift with the machine, so peers are measured in turn, several times.

mod args;
mod child;
mod goals;
mod load;
mod reading;
mod recorders;
mod recording;
mod results;
mod setup;
mod stats;

use std::process::ExitCode;

use anyhow::{Result, ensure};

pub use args::Args;
use setup::Bench;

pub fn main(args: &Args) -> Result<ExitCode> {
    if args.load {
        return load::serve().map(|()| ExitCode::SUCCESS);
    }
    if args.gate {
        return recorders::gate().map(|()| ExitCode::SUCCESS);
    }
    let known: Vec<&str> = recorders::ALL
        .iter()
        .map(|(name, _)| *name)
        .chain(reading::NAMES)
        .collect();
    for name in &args.names {
        ensure!(
            known.contains(&&**name),
            "no benchmark {name}; there are {}",
            known.join(", ")
        );
    }
    let mut bench = Bench::build(args)?;
    recording::run(args, &mut bench)?;
    reading::run(args, &mut bench)?;
    bench.results.explain(args);
    if args.json {
        println!("{}", bench.results.json());
    } else {
        print!("{}", bench.results.text());
    }
    Ok(ExitCode::from(u8::from(args.check && bench.results.is_missed())))
}
