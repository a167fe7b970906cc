//! The kernel as a source: BPF programs at its hooks fill two rings, whose records become events.
//! Input: the embedded object, the kernel's BTF, and the answers of /proc to `correlate`.

pub mod attach;
pub mod bases;
mod gauge;
pub mod object;
pub mod ring;
pub mod rings;
pub mod trial;

use std::{io, os::fd::OwnedFd, time::Duration};

use tracer_common::counter::Counter;

use crate::{
    correlate::Correlator,
    decode::Raw,
    event::Event,
    kernel::{capabilities::Capability, clock::now, hooks::Kinds, vmstat::Vmstat},
    proc::{process, questions},
    run::{
        account::{self, Reading, Terms},
        attribution::Losses,
        books::Lost,
        counters::MissedRuns,
        coverage::Coverage,
        ending::Ending,
        outside::Outside,
    },
    source::{
        Needs, Source, Turn, UnderWay,
        bpf::{gauge::Gauge, ring::Capture},
    },
    units::{Nanos, Tgid},
};

/// The requirements for loading programs and for reading frame numbers in pagemap.
pub const NEEDS: Needs = Needs {
    purpose: "tracing the kernel and reading frame numbers",
    capabilities: &[Capability::Bpf, Capability::Perfmon, Capability::SysAdmin],
    initial_pid_namespace: true,
};

/// Moves taken in one turn.
const TURN: usize = 1 << 15;
/// After this number of full turns in a row, correlation stops reading /proc until the ring is empty again: by then
/// half of the ring may be waiting.
const FULL_TURNS: u32 = 4;
/// When the run is to end, the questions of a batch may still wait for answers for this time together.
const LAST_PATIENCE: Duration = Duration::from_millis(300);

/// Attached hooks, and the correlator that makes events of their records.
pub struct Bpf {
    capture: Capture,
    correlator: Correlator,
    records: Vec<Raw>,
    full_turns: u32,
    /// Process events that were lost, as far as is known.
    lost_processes: u64,
    /// Process events were lost before this time: records from before may still come.
    doubted: Option<Nanos>,
    stopped: Option<Stopped>,
}

/// Losses that count only while both sides are observed. While hooks are detached, begins of calls come without their
/// ends, and a program that is gone does not report how often it was skipped.
#[derive(Clone, Copy, Debug, Default)]
struct Stopped {
    calls: u64,
    missed_runs: MissedRuns,
}

impl Bpf {
    /// Reads from attached hooks, whose records `correlator` makes into events.
    #[must_use]
    pub fn new(capture: Capture, correlator: Correlator) -> Self {
        Self {
            capture,
            correlator,
            records: Vec::with_capacity(TURN),
            full_turns: 0,
            lost_processes: 0,
            doubted: None,
            stopped: None,
        }
    }

    /// Takes what has arrived until `now`, and makes events of it.
    fn take(&mut self, now: Nanos, events: &mut Vec<Event>) -> Turn {
        self.records.clear();
        let taken = self.capture.take(TURN, now, &mut self.records);
        self.full_turns = if taken == TURN { self.full_turns + 1 } else { 0 };
        if self.records.is_empty() {
            if self.capture.rings.holds_back() {
                return Turn::All;
            }
            if self.stopped.is_some() {
                self.correlator.end();
            }
            return Turn::Empty;
        }
        let ask = self.full_turns < FULL_TURNS;
        self.correlator.batch(&self.records, ask, events);
        if taken == TURN { Turn::Full } else { Turn::All }
    }

    /// Looks whether process events were lost.
    fn look_for_losses(&mut self) -> io::Result<()> {
        let lost = self.capture.lost_processes()?;
        if lost != self.lost_processes {
            log::debug!(
                "{} process events were lost: what is known of processes is read anew",
                lost - self.lost_processes
            );
            self.lost_processes = lost;
            self.doubted = Some(now());
        }
        Ok(())
    }

    /// Replaces what process events have not reported: because they were lost, or because a process was renamed too often.
    /// Each record from before `now` was taken in, if `all` is set.
    fn catch_up(&mut self, now: Nanos, all: bool) -> io::Result<()> {
        if let Some(until) = self.doubted {
            self.correlator.begin_again(self.capture.memberships()?);
            if all && until <= now {
                self.doubted = None;
            }
        }
        if all {
            for tgid in self.correlator.processes.merged(now) {
                let bits = self.capture.membership(tgid);
                self.correlator.processes.set_member(tgid, bits);
            }
        }
        Ok(())
    }

    fn until_now(&self) -> io::Result<Stopped> {
        Ok(Stopped {
            calls: self.capture.counters()?.sum(Counter::LostCalls),
            missed_runs: self.capture.missed_runs()?,
        })
    }
}

impl Source for Bpf {
    fn coverage(&self) -> Coverage {
        self.capture.coverage()
    }

    fn terms(&self) -> Terms {
        Terms::new(&self.coverage(), &self.correlator.names.reasons)
    }

    fn heed(&mut self, ending: Ending) -> io::Result<()> {
        let gauges = self.capture.rings.gauges()?;
        self.correlator.wait(move || {
            if gauges.iter().any(Gauge::is_half_full) {
                Duration::ZERO
            } else if ending.is_here() {
                LAST_PATIENCE
            } else {
                questions::PATIENCE
            }
        });
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        self.capture.open_calls().map_err(io::Error::other)
    }

    fn close(&mut self) -> io::Result<()> {
        self.capture.close_calls();
        Ok(())
    }

    fn under_way(&self) -> io::Result<UnderWay> {
        self.capture.under_way()
    }

    fn turn(&mut self, events: &mut Vec<Event>) -> io::Result<Turn> {
        let now = now();
        if self.capture.rings.may_have_lost() {
            self.look_for_losses()?;
        }
        let turn = self.take(now, events);
        self.catch_up(now, turn != Turn::Full)?;
        Ok(turn)
    }

    fn census(&mut self) {
        self.correlator.follow_hotplug();
        if let Err(error) = self.look_for_losses() {
            log::debug!("lost process events: {error}");
        }
        let members = self.correlator.processes.members();
        let gone: Vec<Tgid> = members.filter(|tgid| process::has_ended(*tgid)).collect();
        for tgid in gone {
            self.correlator.processes.drop_member(tgid);
            // Removing needs no room.
            let _ = self.capture.set_membership(tgid, 0);
        }
    }

    fn targets_gone(&self) -> bool {
        self.correlator.processes.lineage_ended()
    }

    fn waker(&self) -> io::Result<Option<OwnedFd>> {
        self.capture.rings.waker().map(Some)
    }

    fn arm(&mut self) -> io::Result<()> {
        self.capture.rings.wake_me()
    }

    fn look(&self) -> io::Result<Reading> {
        let at = now();
        // Without the moves, there is nothing to compare with the kernel's counts.
        let moves = self.capture.kinds.any_of(Kinds::MOVE);
        let is_compared = |name: &str| moves && account::is_compared(name);
        let vmstat = Vmstat::read_only(|name| is_compared(name) || Outside::is_counted(name))?;
        Ok(Reading {
            at,
            outside: Outside::of(&vmstat),
            kernel: vmstat.only(is_compared),
            counters: self.capture.counters()?,
            settled: false,
        })
    }

    fn lost(&self, reading: &Reading) -> io::Result<Lost> {
        let missed_runs = match self.stopped {
            Some(stopped) => stopped.missed_runs,
            None => self.capture.missed_runs()?,
        };
        let lost = Lost::new(
            &reading.counters,
            self.capture.rings.undecoded(),
            missed_runs,
            self.correlator.losses(),
        );
        Ok(match self.stopped {
            Some(Stopped { calls, .. }) => Lost { calls, ..lost },
            None => lost,
        })
    }

    fn attribution(&self) -> Losses {
        self.correlator.losses()
    }

    fn stop(&mut self) -> io::Result<()> {
        let until_now = self.until_now();
        self.stopped = Some(until_now.as_ref().copied().unwrap_or_default());
        let detached = self.capture.detach().map_err(io::Error::other);
        until_now.and(detached)
    }
}
