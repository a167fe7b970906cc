//! The one loop: drains the source, decodes, correlates, feeds every sink, and always finishes them.
//! Input: a running capture; the moment to end.

pub mod replay;

use std::{
    future::Future,
    io,
    pin::pin,
    time::{Duration, Instant},
};

use tokio::io::unix::AsyncFd;
use tracer_common::counter::Counter;

use crate::{
    correlate::Correlator,
    decode::{self, Raw},
    event::Event,
    kernel::{hooks::Kinds, vmstat::Vmstat},
    proc::process,
    run::clock::{cost, cpu_time, now},
    run::{
        account::{self, Account, Reading, Terms},
        books::{Books, Lost},
        header::Header,
        intervals::{Interval, Intervals},
        summary::Summary,
        totals::Totals,
    },
    sink::Sink,
    source::bpf::ring::Capture,
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
/// How often targets are checked for having gone without an event, and the books are looked at.
const CENSUS: Duration = Duration::from_secs(1);
/// Looks at the books that wait for a quiet moment.
const LOOKS: u32 = 64;
/// At the end a reading that does not balance is taken again so often, after so long: a task may be preempted between
/// the kernel's count and the hook.
const LAST_READINGS: u32 = 3;
const READING_PAUSE: Duration = Duration::from_millis(10);

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Somebody else decided: a signal, the clock, the command's end.
    Asked,
    /// Every traced process is gone.
    TargetsGone,
    /// Nobody reads the output any more.
    BrokenPipe,
    /// The output is as large as it may be.
    Full,
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
    intervals: Intervals,
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
        let begin = reading(&capture, look(&capture)?)?;
        let terms = Terms::new(capture.backend, &correlator.names.reasons);
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
            intervals: Intervals::new(begin.clone(), terms),
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
            let taken = match self.turn().and_then(|taken| self.take_census().map(|()| taken)) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::BrokenPipe),
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(End::Full),
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
            if self.correlator.processes.lineage_ended() {
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
    /// plugged in; and the books so far.
    fn take_census(&mut self) -> io::Result<()> {
        if self.census.elapsed() < CENSUS {
            return Ok(());
        }
        self.census = Instant::now();
        self.correlator.follow_hotplug();
        let members = self.correlator.processes.members();
        let gone: Vec<Tgid> = members.filter(|tgid| process::has_ended(*tgid)).collect();
        for tgid in gone {
            self.correlator.processes.drop_member(tgid);
            // Removing needs no room.
            let _ = self.capture.set_membership(tgid, 0);
        }
        for sink in &mut self.sinks {
            sink.flush()?;
        }
        self.close_interval()
    }

    /// Closes an interval of the books, if something has happened and the moment allows it.
    fn close_interval(&mut self) -> io::Result<()> {
        let look = look(&self.capture)?;
        if self.intervals.is_unchanged(&look) {
            return Ok(());
        }
        let reading = reading(&self.capture, look)?;
        let missed_runs = self.capture.missed_runs()?;
        let lost = Lost::new(&reading.counters, self.undecoded, missed_runs, self.correlator.losses);
        match self.intervals.close(reading, lost.events()) {
            Some(interval) => self.tell(&interval),
            None => Ok(()),
        }
    }

    fn tell(&mut self, interval: &Interval) -> io::Result<()> {
        for sink in &mut self.sinks {
            sink.interval(interval)?;
            sink.flush()?;
        }
        Ok(())
    }

    /// The last reading, while still attached: both sides must cover the same calls.
    fn last_reading(&self) -> io::Result<Reading> {
        let mut last = reading(&self.capture, look(&self.capture)?)?;
        for _ in 1..LAST_READINGS {
            if Account::between(&self.begin, &last, self.intervals.terms()).balanced() {
                break;
            }
            std::thread::sleep(READING_PAUSE);
            last = reading(&self.capture, last)?;
        }
        Ok(last)
    }

    /// Closes the books, detaches, empties the ring, and finishes every sink, whatever happens to one.
    ///
    /// # Errors
    /// The first error of a counter or a sink.
    pub fn finish(mut self) -> io::Result<Summary> {
        let end = self.last_reading();
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
        let correlation = self.correlator.losses;
        let lost = Lost {
            // Calls are lost only while both sides are looked at: in the moments of detaching, begins come without
            // their ends.
            calls: end.counters.sum(Counter::LostCalls),
            ..Lost::new(
                &after_drain,
                self.undecoded,
                missed_runs.unwrap_or_default(),
                correlation,
            )
        };
        if let Some(interval) = self.intervals.end(&end, lost.events()) {
            first_error(self.tell(&interval));
        }
        let (cpu, max_rss) = cost();
        let cpu = cpu.since(self.startup_cpu);
        let summary = Summary {
            duration,
            books: Books::close(
                Account::between(&self.begin, &end, self.intervals.terms()),
                &end.counters.since(&self.begin.counters),
                self.intervals.totals,
                lost,
                correlation,
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

/// One look at both sides.
fn look(capture: &Capture) -> io::Result<Reading> {
    Ok(Reading {
        at: now(),
        // Without the moves there is nothing to hold against the kernel's counts.
        kernel: if capture.kinds.any_of(Kinds::MOVE) {
            Vmstat::read_only(account::is_compared)?
        } else {
            Vmstat::default()
        },
        counters: capture.counters()?,
        settled: false,
    })
}

/// Reads the kernel's counts and ours at a moment when no call of migrate_pages ended in between: neither side changes
/// from one look to the next. `last` is the look before.
fn reading(capture: &Capture, mut last: Reading) -> io::Result<Reading> {
    // On a machine that migrates all the time no quiet moment comes: then the last look serves, and is marked.
    for _ in 0..LOOKS {
        let before = std::mem::replace(&mut last, look(capture)?);
        last.settled = before.kernel == last.kernel && before.counters == last.counters;
        if last.settled {
            break;
        }
    }
    Ok(last)
}
