//! The loop of a live run: takes events from its source, keeps the books, and feeds the sink to its end.
//! Input: a source; the request to end.

pub mod feed;
pub mod replay;

use std::{
    future::{Future, pending},
    io,
    os::fd::OwnedFd,
    pin::pin,
    time::{Duration, Instant},
};

use tokio::io::unix::AsyncFd;
use tracer_common::counter::Counter;

use crate::{
    event::Event,
    kernel::clock::{cost, cpu_time},
    pipeline::feed::Feed,
    recording::header::Finished,
    run::{
        account::{Account, Reading},
        books::{Books, Lost},
        ending::Ending,
        header::Header,
        intervals::Intervals,
        kept::Kept,
        summary::Summary,
    },
    sink::Sink,
    source::{Source, Turn, UnderWay},
    units::Nanos,
    words::quantity::Counted,
};

/// Time between two turns while events arrive: a source holds many times the events of that time.
const BUSY: Duration = Duration::from_millis(10);
/// The longest sleep without events. The first event wakes the reader.
const IDLE: Duration = Duration::from_secs(1);
/// A program that still runs when its hook is detached may be writing its record. A stopped source counts as empty
/// after this number of empty turns, each this far from the one before.
const LAST_LOOKS: u32 = 3;
const LAST_PAUSE: Duration = Duration::from_millis(1);
/// The interval between checks for targets that have gone without an event, and between looks at the books.
const CENSUS: Duration = Duration::from_secs(1);
/// The number of looks at the books that wait for a quiet moment.
const LOOKS: u32 = 64;
/// At the end, a reading that does not balance is repeated this often, each time after this time: a task may be
/// preempted between the kernel's count and the hook.
const LAST_READINGS: u32 = 3;
const READING_PAUSE: Duration = Duration::from_millis(10);
/// At the end calls that are under way may take so long to end; the books are closed without those that take longer.
const PATIENCE: Duration = Duration::from_millis(100);

/// The reason why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end was requested: by a signal, the clock, or the command's exit.
    Asked,
    /// Every traced process has exited.
    TargetsGone,
    /// The reader of the output is gone.
    BrokenPipe,
    /// The output has reached its largest size.
    Full,
}

/// A live run, from its first reading of the books to its summary.
pub struct Pipeline<'s> {
    source: Box<dyn Source>,
    feed: Feed<'s>,
    ending: Ending,
    /// The kind of the sink's error, and the number of events since. None: it has not failed.
    failed: Option<(io::ErrorKind, u64)>,
    events: Vec<Event>,
    begin: Reading,
    intervals: Intervals,
    begun: Instant,
    startup_cpu: Nanos,
    census: Instant,
}

impl<'s> Pipeline<'s> {
    /// Takes the first reading of the books, from which on the source records, and begins the sink. `ending` is for
    /// whoever waits while the run does not listen.
    ///
    /// # Errors
    /// When the counters cannot be read or the sink cannot begin.
    pub fn begin(
        mut source: Box<dyn Source>,
        sink: &'s mut dyn Sink,
        header: &Header,
        ending: Ending,
    ) -> io::Result<Self> {
        source.heed(ending.clone())?;
        let begin = settle(&*source, source.look()?)?;
        source.begin()?;
        let mut feed = Feed::new(sink);
        feed.begin(header)?;
        Ok(Self {
            intervals: Intervals::new(begin.clone(), source.terms()),
            source,
            feed,
            ending,
            failed: None,
            events: Vec::new(),
            begin,
            begun: Instant::now(),
            startup_cpu: cpu_time(),
            census: Instant::now(),
        })
    }

    /// Runs until `asked` is ready, the targets have exited, or the reader of the output is gone.
    ///
    /// # Errors
    /// When the sink cannot be written. Call [`Pipeline::finish`] nevertheless.
    pub async fn run(&mut self, asked: impl Future<Output = ()>, reader_gone: impl Fn() -> bool) -> io::Result<End> {
        let mut asked = pin!(asked);
        let waker = self.source.waker()?;
        // SAFETY: an owned duplicate of the source's descriptor, closed only when `waker` is dropped.
        let waker = waker.map(|fd| unsafe { AsyncFd::register(fd) }).transpose()?;
        let mut delay = Duration::ZERO;
        let mut armed = false;
        loop {
            tokio::select! {
                biased;
                () = &mut asked => return Ok(End::Asked),
                woken = woken(waker.as_ref()), if armed => {
                    woken?;
                    // The wake-up is consumed, even if its event is not complete yet.
                    armed = false;
                }
                () = tokio::time::sleep(delay) => {}
            }
            let turn = match self.turn().and_then(|turn| self.take_census().map(|()| turn)) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(End::BrokenPipe),
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Ok(End::Full),
                other => other?,
            };
            delay = match turn {
                Turn::Full => Duration::ZERO,
                Turn::Empty if armed => IDLE,
                Turn::Empty => {
                    self.source.arm()?;
                    // An event may have arrived before the request: one more turn, then sleep.
                    Duration::ZERO
                }
                Turn::All => BUSY,
            };
            armed = turn == Turn::Empty;
            if reader_gone() {
                return Ok(End::BrokenPipe);
            }
            if self.source.targets_gone() {
                return Ok(End::TargetsGone);
            }
        }
    }

    /// Feeds the events that have arrived. A sink that has failed gets no more of them.
    fn turn(&mut self) -> io::Result<Turn> {
        self.events.clear();
        let turn = self.source.turn(&mut self.events)?;
        let mut events = self.events.iter();
        if let Some((_, unwritten)) = &mut self.failed {
            *unwritten += events.len() as u64;
        } else if turn != Turn::Empty {
            let fed = events
                .by_ref()
                .try_for_each(|event| self.feed.event(event))
                .and_then(|()| self.feed.flush());
            if let Err(error) = &fed {
                self.failed = Some((error.kind(), events.len() as u64));
            }
            fed?;
        }
        Ok(turn)
    }

    /// Takes the census of the source, flushes the sink, and looks at the books, once a second.
    fn take_census(&mut self) -> io::Result<()> {
        if self.census.elapsed() < CENSUS {
            return Ok(());
        }
        self.census = Instant::now();
        self.source.census();
        self.feed.flush()?;
        self.close_interval()
    }

    /// Closes an interval of the books if something has happened and the moment allows it.
    fn close_interval(&mut self) -> io::Result<()> {
        let look = self.source.look()?;
        if self.intervals.is_unchanged(&look) {
            return Ok(());
        }
        let reading = settle(&*self.source, look)?;
        let lost = self.source.lost(&reading)?.events();
        match self.intervals.close(reading, lost) {
            Some(interval) => self.feed.interval(&interval).and_then(|()| self.feed.flush()),
            None => Ok(()),
        }
    }

    /// Takes the last reading while the source still sees everything, because both sides must cover the same calls.
    /// Before that no call begins to be recorded any more, and calls under way get time to end.
    fn last_reading(&mut self) -> io::Result<Reading> {
        self.source.close()?;
        let closed = Instant::now();
        while self.source.under_way()?.calls > 0 && closed.elapsed() < PATIENCE {
            std::thread::sleep(LAST_PAUSE);
        }
        let mut last = settle(&*self.source, self.source.look()?)?;
        for _ in 1..LAST_READINGS {
            if Account::between(&self.begin, &last, self.intervals.terms()).balanced() {
                break;
            }
            std::thread::sleep(READING_PAUSE);
            last = settle(&*self.source, last)?;
        }
        Ok(last)
    }

    /// Takes the turns that are left after the source was stopped.
    fn drain(&mut self) -> io::Result<()> {
        let mut empty = 0;
        let mut result = Ok(());
        while empty < LAST_LOOKS {
            match self.turn() {
                Ok(Turn::Empty) => {
                    empty += 1;
                    std::thread::sleep(LAST_PAUSE);
                }
                Ok(_) => empty = 0,
                // The next turns count what a sink that has failed does not get.
                Err(error) if self.failed.is_some() && result.is_ok() => result = Err(error),
                Err(error) => return result.and(Err(error)),
            }
        }
        result
    }

    /// Closes the books, stops the source, feeds the remaining events, and finishes the sink, whatever fails before.
    ///
    /// # Errors
    /// The first error of the source or the sink.
    pub fn finish(mut self) -> io::Result<Summary> {
        self.ending.begin();
        let mut result = Ok(());
        let mut first_error = |outcome: io::Result<()>| {
            if result.is_ok() {
                result = outcome;
            }
        };
        let end = self.last_reading().unwrap_or_else(|error| {
            first_error(Err(error));
            self.begin.clone()
        });
        let duration = Nanos(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        first_error(self.source.stop());
        first_error(self.drain());
        // This covers the drained events, too.
        let last_look = self.source.look().unwrap_or_else(|_| end.clone());
        let under_way = self.source.under_way().unwrap_or_else(|error| {
            first_error(Err(error));
            UnderWay::default()
        });
        let lost = self.source.lost(&last_look).unwrap_or_else(|error| {
            first_error(Err(error));
            Lost::default()
        });
        if let Some(interval) = self.intervals.end(&end, lost.events()) {
            first_error(self.feed.interval(&interval).and_then(|()| self.feed.flush()));
        }
        let (cpu, max_rss) = cost();
        let finished = Finished {
            duration,
            books: Books {
                machine_outside: end.outside.since(&self.begin.outside),
                unbooked: under_way.pages
                    + last_look.counters.shown_since(&end.counters)
                    + last_look
                        .counters
                        .since(&self.begin.counters)
                        .sum(Counter::UnbookedPages),
                ..Books::close(
                    Account::between(&self.begin, &end, self.intervals.terms()),
                    &end.counters.since(&self.begin.counters),
                    self.intervals.totals,
                    lost,
                    self.source.attribution(),
                )
            },
            startup_cpu: self.startup_cpu,
            cpu: cpu.since(self.startup_cpu),
            max_rss,
        };
        if let Some((kind, events)) = self.failed.filter(|(_, events)| *events > 0) {
            let events = Counted(events, "event");
            let error = format!("{events} came after the output's last one, not written");
            if kind != io::ErrorKind::BrokenPipe {
                log::warn!("{error}");
            }
            // That the output has reached its largest size is no failure.
            if kind != io::ErrorKind::FileTooLarge {
                first_error(Err(io::Error::new(kind, error)));
            }
        }
        let summary = self.feed.finish(finished, Kept::default());
        result.and(summary)
    }
}

/// Ready when the source has something. Without a descriptor, it is never ready.
async fn woken(waker: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    match waker {
        Some(waker) => {
            waker.readable().await?.clear_ready();
            Ok(())
        }
        None => pending().await,
    }
}

/// Looks at the kernel's counts and the source's until no call of migrate_pages ended between two looks: then neither
/// side has changed. `last` is the look before.
fn settle(source: &dyn Source, mut last: Reading) -> io::Result<Reading> {
    // A machine that migrates all the time has no quiet moment: then the last look is used, and marked.
    for _ in 0..LOOKS {
        let before = std::mem::replace(&mut last, source.look()?);
        last.settled = before.kernel == last.kernel && before.counters == last.counters;
        if last.settled {
            break;
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests;
