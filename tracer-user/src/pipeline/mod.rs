//! The one loop of a live run: takes events from its source, keeps the books, and feeds the sink to its end.
//! Input: a source; the moment to end.

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

use crate::{
    event::Event,
    pipeline::feed::Feed,
    recording::header::Finished,
    run::{
        account::{Account, Reading},
        books::{Books, Lost},
        clock::{cost, cpu_time},
        header::Header,
        intervals::Intervals,
        kept::Kept,
        summary::Summary,
    },
    sink::Sink,
    source::{Source, Turn},
    units::Nanos,
};

/// Between two turns while events come: a source holds many times what arrives meanwhile.
const BUSY: Duration = Duration::from_millis(10);
/// While none come, the first one wakes the reader; this long at most it sleeps.
const IDLE: Duration = Duration::from_secs(1);
/// A program that still runs when its hook is taken off may be writing its record: a stopped source counts as empty
/// after so many empty turns, so far apart.
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

/// A live run, from its first reading of the books to its summary.
pub struct Pipeline<'s> {
    source: Box<dyn Source>,
    feed: Feed<'s>,
    events: Vec<Event>,
    begin: Reading,
    intervals: Intervals,
    begun: Instant,
    startup_cpu: Nanos,
    census: Instant,
}

impl<'s> Pipeline<'s> {
    /// Takes the first reading of the books and begins the sink.
    ///
    /// # Errors
    /// When the counters cannot be read or the sink cannot begin.
    pub fn begin(source: Box<dyn Source>, sink: &'s mut dyn Sink, header: &Header) -> io::Result<Self> {
        let begin = settle(&*source, source.look()?)?;
        let mut feed = Feed::new(sink);
        feed.begin(header)?;
        Ok(Self {
            intervals: Intervals::new(begin.clone(), source.terms()),
            source,
            feed,
            events: Vec::new(),
            begin,
            begun: Instant::now(),
            startup_cpu: cpu_time(),
            census: Instant::now(),
        })
    }

    /// Runs until `asked` is ready, the targets are gone, or nobody reads.
    ///
    /// # Errors
    /// When the sink cannot be written. Call [`Pipeline::finish`] all the same.
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
                    // The wake-up is used up, also if its event is not complete yet.
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
                    // Something may have come before the request: one more turn, then sleep.
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

    /// Feeds what has come.
    fn turn(&mut self) -> io::Result<Turn> {
        self.events.clear();
        let turn = self.source.turn(&mut self.events)?;
        if turn != Turn::Empty {
            self.events.iter().try_for_each(|event| self.feed.event(event))?;
            self.feed.flush()?;
        }
        Ok(turn)
    }

    /// Once a second: what no event reports, what sinks hold back, and the books so far.
    fn take_census(&mut self) -> io::Result<()> {
        if self.census.elapsed() < CENSUS {
            return Ok(());
        }
        self.census = Instant::now();
        self.source.census();
        self.feed.flush()?;
        self.close_interval()
    }

    /// Closes an interval of the books, if something has happened and the moment allows it.
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

    /// The last reading, while the source still sees everything: both sides must cover the same calls.
    fn last_reading(&self) -> io::Result<Reading> {
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
        while empty < LAST_LOOKS {
            if self.turn()? == Turn::Empty {
                empty += 1;
                std::thread::sleep(LAST_PAUSE);
            } else {
                empty = 0;
            }
        }
        Ok(())
    }

    /// Closes the books, stops the source, feeds what is left, and finishes the sink, whatever fails before.
    ///
    /// # Errors
    /// The first error of the source or the sink.
    pub fn finish(mut self) -> io::Result<Summary> {
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
        // Of what was drained, too.
        let last_look = self.source.look().unwrap_or_else(|_| end.clone());
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
                elsewhere: end.elsewhere.since(&self.begin.elsewhere),
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
        let summary = self.feed.finish(finished, Kept::default());
        result.and(summary)
    }
}

/// Ready when the source has something; never without a descriptor.
async fn woken(waker: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    match waker {
        Some(waker) => {
            waker.readable().await?.clear_ready();
            Ok(())
        }
        None => pending().await,
    }
}

/// Looks at the kernel's counts and the source's until a moment when no call of migrate_pages ended in between: neither
/// side changes from one look to the next. `last` is the look before.
fn settle(source: &dyn Source, mut last: Reading) -> io::Result<Reading> {
    // On a machine that migrates all the time no quiet moment comes: then the last look serves, and is marked.
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
