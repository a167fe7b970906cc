//! The one loop: drains the source, decodes, correlates, feeds every sink, and always finishes them.
//! Input: a running capture; the moment to end.

use std::{
    future::Future,
    io,
    pin::pin,
    time::{Duration, Instant},
};

use tokio::io::unix::AsyncFd;

use crate::{
    analysis::{
        books::{Books, Reading},
        totals::Totals,
    },
    correlate::Correlator,
    decode::{self, Raw},
    event::Event,
    kernel::{hooks::Kinds, vmstat::Vmstat},
    proc::process,
    sink::{Header, Sink, Summary},
    source::ring::{Capture, Counters},
    units::{Nanos, Tgid},
};

/// Between two looks at the ring while events come: it holds many times what arrives meanwhile.
const BUSY: Duration = Duration::from_millis(10);
/// While none come, the first one wakes the reader; this long at most it sleeps.
const IDLE: Duration = Duration::from_secs(1);
/// Records taken in one turn.
const TURN: usize = 1 << 15;
/// After so many full turns in a row, correlation stops asking /proc until the ring is empty again:
/// by then half of the ring may be waiting.
const FULL_TURNS: u32 = 4;
/// A program that still runs when its hook is taken off may be writing its record: the ring counts as empty after so
/// many looks, so far apart.
const LAST_LOOKS: u32 = 3;
const LAST_PAUSE: Duration = Duration::from_millis(1);
/// How often targets are checked for having gone without an event.
const CENSUS: Duration = Duration::from_secs(1);

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody else decided: a signal, the clock, the command's end.
    Asked,
    /// Every traced process is gone.
    TargetsGone,
    /// Nobody reads the output any more.
    BrokenPipe,
}

/// A run: a capture on its way into sinks.
pub struct Pipeline {
    capture: Capture,
    correlator: Correlator,
    sinks: Vec<Box<dyn Sink>>,
    totals: Totals,
    records: Vec<Raw>,
    events: Vec<Event>,
    undecoded: u64,
    full_turns: u32,
    begin: Reading,
    begun: Instant,
    startup_cpu: Nanos,
    census: Instant,
}

impl Pipeline {
    /// Takes the first reading of the books and opens the sinks.
    ///
    /// # Errors
    /// When the counters cannot be read or a sink cannot begin.
    pub fn begin(
        capture: Capture,
        correlator: Correlator,
        mut sinks: Vec<Box<dyn Sink>>,
        header: &Header,
    ) -> io::Result<Self> {
        let begin = reading(&capture)?;
        for sink in &mut sinks {
            sink.begin(header)?;
        }
        Ok(Self {
            capture,
            correlator,
            sinks,
            totals: Totals::default(),
            records: Vec::with_capacity(TURN),
            events: Vec::new(),
            undecoded: 0,
            full_turns: 0,
            begin,
            begun: Instant::now(),
            startup_cpu: cpu_time(),
            census: Instant::now(),
        })
    }

    /// Runs until `asked` is ready, the targets are gone, or nobody reads.
    ///
    /// # Errors
    /// When a sink cannot be written. Call [`Pipeline::finish`] all the same.
    pub async fn run(&mut self, asked: impl Future<Output = ()>, reader_gone: impl Fn() -> bool) -> io::Result<End> {
        let mut asked = pin!(asked);
        // SAFETY: an owned duplicate of the ring's descriptor, closed only when `ring` is dropped.
        let ring = unsafe { AsyncFd::register(self.capture.ring_fd().try_clone_to_owned()?) }?;
        let mut delay = Duration::ZERO;
        let mut armed = false;
        loop {
            tokio::select! {
                biased;
                () = &mut asked => return Ok(End::Asked),
                woken = ring.readable(), if armed => {
                    woken?.clear_ready();
                    // The wake-up is used up, also if its record is not complete yet.
                    armed = false;
                }
                () = tokio::time::sleep(delay) => {}
            }
            let taken = match self.turn() {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::BrokenPipe),
                other => other?,
            };
            delay = match taken {
                TURN => Duration::ZERO,
                0 if armed => IDLE,
                0 => {
                    self.capture.wake_me()?;
                    // An event may have come before the request: one more look, then sleep.
                    Duration::ZERO
                }
                _ => BUSY,
            };
            armed = taken == 0;
            if reader_gone() {
                return Ok(End::BrokenPipe);
            }
            self.take_census();
            if self
                .correlator
                .processes
                .targets()
                .is_some_and(std::collections::BTreeSet::is_empty)
            {
                return Ok(End::TargetsGone);
            }
        }
    }

    /// One look at the ring. Returns how many records it gave.
    fn turn(&mut self) -> io::Result<usize> {
        let Self {
            capture,
            records,
            undecoded,
            ..
        } = self;
        records.clear();
        let taken = capture.drain(TURN, |record| match decode::decode(record) {
            Ok(raw) => records.push(raw),
            Err(error) => {
                log::debug!("{error}");
                *undecoded += 1;
            }
        });
        self.full_turns = if taken == TURN { self.full_turns + 1 } else { 0 };
        if taken == 0 {
            return Ok(0);
        }
        self.events.clear();
        self.correlator
            .batch(&self.records, self.full_turns < FULL_TURNS, &mut self.events);
        for event in &self.events {
            self.totals.add(event);
            for sink in &mut self.sinks {
                sink.event(event)?;
            }
        }
        for sink in &mut self.sinks {
            sink.flush()?;
        }
        Ok(taken)
    }

    /// What no event tells of: targets that are gone (the hook may be missing, or the event was lost), memory that was
    /// plugged in.
    fn take_census(&mut self) {
        if self.census.elapsed() < CENSUS {
            return;
        }
        self.census = Instant::now();
        self.correlator.follow_hotplug();
        let gone: Vec<Tgid> = self
            .correlator
            .processes
            .targets()
            .into_iter()
            .flatten()
            .copied()
            .filter(|tgid| process::has_ended(*tgid))
            .collect();
        for tgid in gone {
            self.correlator.processes.drop_target(tgid);
            self.capture.drop_target(tgid);
        }
    }

    /// Closes the books, detaches, empties the ring, and finishes every sink, whatever happens to one.
    ///
    /// # Errors
    /// The first error of a counter or a sink.
    pub fn finish(mut self) -> io::Result<Summary> {
        // While still attached: both sides must cover the same calls.
        let end = reading(&self.capture);
        let missed_runs = self.capture.missed_runs();
        let duration = Nanos(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let detached = self.capture.detach();
        let mut result = Ok(());
        let mut first_error = |outcome: io::Result<()>| {
            if result.is_ok() {
                result = outcome;
            }
        };
        first_error(detached.map_err(io::Error::other));
        let mut empty_looks = 0;
        while empty_looks < LAST_LOOKS {
            match self.turn() {
                Ok(0) => {
                    empty_looks += 1;
                    std::thread::sleep(LAST_PAUSE);
                }
                Ok(_) => empty_looks = 0,
                Err(error) => {
                    first_error(Err(error));
                    break;
                }
            }
        }
        let end = end.unwrap_or_else(|error| {
            first_error(Err(error));
            self.begin.clone()
        });
        let after_drain = self.capture.counters().unwrap_or_else(|_| end.counters.clone());
        let (cpu, max_rss) = cost();
        let cpu = cpu.since(self.startup_cpu);
        let summary = Summary {
            duration,
            books: Books::close(
                self.capture.backend,
                &self.begin,
                &end,
                &after_drain,
                self.undecoded,
                missed_runs.unwrap_or_default(),
                self.correlator.losses,
            ),
            totals: self.totals,
            startup_cpu: self.startup_cpu,
            cpu,
            max_rss,
        };
        for sink in &mut self.sinks {
            first_error(sink.finish(&summary));
        }
        result.map(|()| summary)
    }
}

/// Reads the kernel's count and ours at a moment when no call of migrate_pages ended in between: neither side changes
/// from one look to the next.
fn reading(capture: &Capture) -> io::Result<Reading> {
    let look = || -> io::Result<(Option<u64>, Counters)> {
        // Without the moves there is nothing to hold against the kernel's count.
        let moves = capture.kinds.any_of(Kinds::MOVE);
        let kernel_pages = Vmstat::read()?.get("pgmigrate_success").filter(|_| moves);
        Ok((kernel_pages, capture.counters()?))
    };
    let mut last = look()?;
    let mut settled = false;
    // On a machine that migrates all the time no quiet moment comes: then the last look serves, and is marked.
    for _ in 0..64 {
        let before = std::mem::replace(&mut last, look()?);
        settled = before == last;
        if settled {
            break;
        }
    }
    let (kernel_pages, counters) = last;
    Ok(Reading {
        kernel_pages,
        counters,
        settled,
    })
}

/// CPU time and peak memory of this process (/proc/self/status, fs/proc/task_mmu.c `task_mem`).
fn cost() -> (Nanos, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0);
    (cpu_time(), peak_kib << 10)
}

/// CPU time of this process so far.
fn cpu_time() -> Nanos {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Nanos(u64::try_from(clock.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(clock.tv_nsec).unwrap_or(0))
}
