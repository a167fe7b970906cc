//! A trace for Perfetto: pages that move are slices on the tracks of their processes; the tracks of the movers show
//! them, too.
//! Input: events; output: any writer. docs/export.md describes the tracks.

mod packets;
mod proto;
mod rates;
#[cfg(test)]
mod tests;
mod tracks;
mod words;

use std::io::{self, Write};

use crate::{
    escape::Printable,
    event::{
        Event, Move, Reason, Task,
        compaction::Compaction,
        failure::{Failure, cause_name},
        unmapped::UnmappedMove,
    },
    render::rows::moved::{folios, size},
    run::{folios::Folios, header::Header, intervals::Interval, kept::Unfinished, summary::Summary},
    sink::{
        Sink,
        export::{Export, RunColumns},
        table::{self, TableKind},
    },
    units::Nanos,
    words::{numbered, quantity::Counted},
};

use packets::{About, Packets, Side};
use rates::Rate;
use tracks::{Subject, TrackRef, Tracks};

/// Writes a trace.
pub struct Perfetto<W> {
    packets: Packets<W>,
    tracks: Tracks,
    moved: Rate,
    /// The folios that `moved` has counted.
    counted: Folios,
    run: RunColumns,
    begun: Nanos,
    /// The prefix of this run's names: its host.
    prefix: String,
    /// The number of runs so far. It identifies runs without a header.
    runs: u64,
    /// Moves that were linked to their actors.
    flows: u64,
}

impl<W: Write> Perfetto<W> {
    /// `writer` should be buffered.
    pub fn new(writer: W) -> Self {
        Self {
            packets: Packets::new(writer),
            tracks: Tracks::default(),
            moved: Rate::default(),
            counted: Folios::default(),
            run: RunColumns::default(),
            begun: Nanos(0),
            prefix: String::new(),
            runs: 0,
            flows: 0,
        }
    }

    fn moved(&mut self, event: &Event, moved: &Move) -> io::Result<()> {
        let about = self.about(event, &moving(moved.reason.as_ref(), &size(moved)))?;
        // A flow has two ends: the page's and the mover's.
        let flow = moved.actor.is_some().then(|| {
            self.flows += 1;
            self.flows
        });
        let above = self.process(moved.owner.as_ref())?;
        let owner = moved.owner.as_ref().map(|owner| owner.tgid);
        let begin = moved.blackout.map(|blackout| moved.at.since(blackout));
        let lane = match begin {
            Some(begin) => {
                self.track(Subject::Moves(owner), above, "moves", true)?;
                self.lane(Subject::Moves(owner), above, "moves", begin, moved.at)?
            }
            None => None,
        };
        for about in &about {
            if let (Some(begin), Some(lane)) = (begin, lane) {
                self.packets.slice(lane, begin, moved.at, about, Side::Owner, flow)?;
            } else {
                let track = self.track(Subject::Instants(owner), above, "moves as instants", true)?;
                self.packets.instant(track, moved.at, about, Side::Owner, flow)?;
            }
        }
        if let Some(actor) = &moved.actor {
            self.did(actor, moved.at, &about, flow)?;
        }
        let pages = self.counted.pages(moved);
        self.count(moved.at, pages)
    }

    fn unmapped(&mut self, event: &Event, moved: &UnmappedMove) -> io::Result<()> {
        let pages = moved.order.pages();
        let about = self.about(event, &moving(Some(&moved.reason), &folios(moved.order, 1, pages)))?;
        self.did(&moved.actor, moved.at, &about, None)?;
        self.count(moved.at, pages)
    }

    fn failed(&mut self, event: &Event, failure: &Failure) -> io::Result<()> {
        let what = format!("not moved: {}", cause_name(failure.cause));
        let about = self.about(event, &moving(Some(&failure.reason), &what))?;
        for (place, about) in failure.places.iter().zip(&about) {
            let above = self.process(Some(&place.owner))?;
            let track = self.track(Subject::Failures(place.owner.tgid), above, "not moved", true)?;
            self.packets.instant(track, failure.at, about, Side::Owner, None)?;
        }
        self.did(&failure.actor, failure.at, &about, None)
    }

    fn compacted(&mut self, event: &Event, pass: &Compaction) -> io::Result<()> {
        let about = self.about(event, &format!("compact {}", Printable(&pass.zone)))?;
        let begin = pass.at.since(pass.duration);
        let (above, _) = self.work(&pass.actor)?;
        let subject = Subject::Work(pass.actor.tgid, pass.actor.tid);
        let Some(lane) = self.lane(subject, above, &work(&pass.actor), begin, pass.at)? else {
            return self.did(&pass.actor, pass.at, &about, None);
        };
        about
            .iter()
            .try_for_each(|about| self.packets.slice(lane, begin, pass.at, about, Side::Actor, None))
    }

    /// The description of an event, once for each of its rows.
    fn about(&mut self, event: &Event, name: &str) -> io::Result<Vec<About>> {
        self.packets.make_room()?;
        let mut found = Vec::with_capacity(1);
        table::rows(event, Vec::with_capacity(32), |cells| {
            found.push(self.packets.about(TableKind::of(event), name, cells));
            Ok(())
        })?;
        Ok(found)
    }

    /// Adds one instant to the actor's track, even if the event has several rows.
    fn did(&mut self, actor: &Task, at: Nanos, about: &[About], flow: Option<u64>) -> io::Result<()> {
        let (_, track) = self.work(actor)?;
        let mut about = about.iter().take(1);
        about.try_for_each(|about| self.packets.instant(track, at, about, Side::Actor, flow))
    }

    /// The track of a thread's process, and below it the track of the thread's work.
    fn work(&mut self, actor: &Task) -> io::Result<(u64, u64)> {
        // The name of a thread may differ from that of its process.
        let process = Task {
            comm: actor.comm.clone().filter(|_| actor.tid.0 == actor.tgid.0),
            ..*actor
        };
        let above = self.process(Some(&process))?;
        let subject = Subject::Work(actor.tgid, actor.tid);
        let track = self.track(subject, above, &work(actor), actor.comm.is_some())?;
        Ok((above, track))
    }

    /// The track above all tracks of a process.
    fn process(&mut self, task: Option<&Task>) -> io::Result<u64> {
        let comm = task.and_then(|task| task.comm.as_deref());
        let subject = Subject::Process(task.map(|task| task.tgid));
        let track = self.tracks.find(subject, comm.is_some());
        if track.new {
            let prefix = &self.prefix;
            match task {
                Some(task) => {
                    let name = format!("{prefix}{}", Printable(comm.unwrap_or("?")));
                    self.packets.process(track.uuid, task.tgid, &name)?;
                }
                None => self
                    .packets
                    .track(track.uuid, None, &format!("{prefix}unknown owner"))?,
            }
        }
        Ok(track.uuid)
    }

    /// A track below another one; `named`: `name` is more than a number.
    fn track(&mut self, subject: Subject, above: u64, name: &str, named: bool) -> io::Result<u64> {
        let track = self.tracks.find(subject, named);
        self.describe(track, above, name)
    }

    /// The track or a lane beside it with room from `begin` to `end`; None: there is none.
    fn lane(&mut self, subject: Subject, above: u64, name: &str, begin: Nanos, end: Nanos) -> io::Result<Option<u64>> {
        let lane = self.tracks.lane(subject, begin, end);
        // Lanes have the same name and parent: Perfetto shows them as one track with several rows.
        lane.map(|lane| self.describe(lane, above, name)).transpose()
    }

    fn describe(&mut self, track: TrackRef, above: u64, name: &str) -> io::Result<u64> {
        if track.new {
            self.packets.track(track.uuid, Some(above), name)?;
        }
        Ok(track.uuid)
    }

    fn count(&mut self, at: Nanos, pages: u64) -> io::Result<()> {
        let steps = self.moved.add(at, pages);
        self.steps(Subject::Moved, "pages moved in a second", "pages", &steps)
    }

    fn steps(&mut self, subject: Subject, name: &str, unit: &str, steps: &[(Nanos, u64)]) -> io::Result<()> {
        let above = self.above_counters()?;
        let track = self.tracks.find(subject, true);
        if track.new {
            self.packets.counter(track.uuid, above, name, unit)?;
        }
        let mut steps = steps.iter();
        steps.try_for_each(|(at, value)| self.packets.step(track.uuid, *at, *value))
    }

    fn above_counters(&mut self) -> io::Result<u64> {
        let track = self.tracks.find(Subject::Run, true);
        if track.new {
            self.packets
                .track(track.uuid, None, &format!("{}tracer", self.prefix))?;
        }
        Ok(track.uuid)
    }

    fn end(&mut self) -> io::Result<()> {
        let steps = self.moved.end();
        if steps.is_empty() {
            return Ok(());
        }
        self.steps(Subject::Moved, "pages moved in a second", "pages", &steps)
    }
}

/// The name of a move's slice, or of a failed one's.
fn moving(reason: Option<&Reason>, what: &str) -> String {
    match reason {
        Some(reason) => format!("{} {what}", Printable(&reason.to_string())),
        None => format!("move {what}"),
    }
}

/// The name of the track of a thread's work.
fn work(actor: &Task) -> String {
    format!("by {}", numbered(actor.comm.as_deref(), actor.tid))
}

impl<W: Write> Sink for Perfetto<W> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        let run = RunColumns::from(header);
        if self.runs > 0 && run.id.is_some() && run == self.run {
            // The run goes on in another file of its rotation.
            return Ok(());
        }
        self.runs += 1;
        self.begun = header.begun;
        self.tracks = Tracks::new(run.id.clone().unwrap_or_else(|| self.runs.to_string()));
        let host = run.host.as_deref();
        self.prefix = host.map_or_else(String::new, |host| format!("{}: ", Printable(host)));
        self.run = run;
        let realtime = header.clock_offset.saturating_add(header.begun.0.into());
        // A clock that shows an impossible time counts as unknown.
        let realtime = u64::try_from(realtime).unwrap_or(header.begun.0);
        self.packets.begin(header.begun.0, realtime)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Move(moved) => self.moved(event, moved),
            Event::Unmapped(moved) => self.unmapped(event, moved),
            Event::Failure(failure) => self.failed(event, failure),
            Event::Compaction(pass) => self.compacted(event, pass),
        }
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        let Interval { account, lost } = interval;
        if *lost == 0 {
            return Ok(());
        }
        // The rate is per second, although an interval may be longer.
        let nanos = u128::from(account.end.since(account.begin).0.max(1));
        let rate = (u128::from(*lost) * 1_000_000_000).div_ceil(nanos);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        let steps = [(account.begin, rate), (account.end, 0)];
        self.steps(Subject::Lost, "events lost in a second", "events", &steps)
    }

    fn abandon(&mut self, _unfinished: &Unfinished) -> io::Result<()> {
        self.end()
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        self.end()?;
        let lost = summary.lost_events();
        if lost == 0 {
            return Ok(());
        }
        let track = self.above_counters()?;
        let at = Nanos(self.begun.0.saturating_add(summary.duration.0));
        self.packets
            .note(track, at, &format!("lost {}", Counted(lost, "event")))
    }
}

impl<W: Write> Export for Perfetto<W> {
    fn takes(&self, _event: &Event) -> bool {
        true
    }

    fn close(&mut self) -> io::Result<()> {
        self.packets.flush()
    }
}
