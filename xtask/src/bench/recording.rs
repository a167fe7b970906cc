//! Runs each recorder on the load, in turn with the load alone.
//! Input: the recorders' and the load's own counts.

use anyhow::Result;

use super::args::Args;
use super::goals::What;
use super::load::{self, LEAST, Load, Moved};
use super::recorders::{self, Recorded, Recorder, Running};
use super::setup::Bench;
use super::stats::per;
use crate::host::process;

/// A load that moves too few pages is started at most this often.
const TRIES: u32 = 4;

/// Runs each recorder in turn with a run without one.
pub fn run(args: &Args, bench: &mut Bench) -> Result<()> {
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
            bench.results.skip(name, reason.clone());
        }
    }
    for round in 1..=args.pairs {
        // A recorder that does not work on this machine is not tried again.
        let mut served = Vec::new();
        for (name, recorder) in wanted {
            eprintln!("bench: {name}, pair {round} of {} ...", args.pairs);
            match pair(bench, name, recorder) {
                Ok(()) => served.push((name, recorder)),
                Err(error) => bench.results.skip(name, format!("{error:#}")),
            }
        }
        wanted = served;
    }
    Ok(())
}

fn pair(bench: &mut Bench, name: &'static str, recorder: Recorder) -> Result<()> {
    let alone = enough(|| Load::start()?.go(), |moved| *moved)?;
    let (moved, recorded) = recorded(bench, name, recorder)?;
    let (untraced, traced) = (per(alone.cpu, alone.pages), per(moved.cpu, moved.pages));
    let results = &mut bench.results;
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
pub fn recorded(bench: &Bench, name: &str, recorder: Recorder) -> Result<(Moved, Recorded)> {
    enough(
        || {
            let load = Load::start()?;
            let running = Running::start(recorder, &bench.tracer, bench.file(name))?;
            let moved = load.go()?;
            Ok((moved, running.end(&bench.tracer)?))
        },
        |(moved, _)| *moved,
    )
}

/// Runs the load until it has moved enough pages.
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
