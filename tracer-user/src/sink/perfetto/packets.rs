//! Packets: the fields of each message of a trace.
//! Input: tracks, times, descriptions of events; output: any writer.
//!
//! The numbers are those of protos/perfetto/trace of Perfetto 52; none of them changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use super::{proto::Message, words::Words};
use crate::{
    sink::table::{Cell, TableKind},
    units::{Nanos, Tgid},
};

/// Trace.
const PACKET: u64 = 1;

/// TracePacket (trace_packet.proto).
mod packet {
    pub const CLOCK_SNAPSHOT: u64 = 6;
    pub const TIMESTAMP: u64 = 8;
    pub const SEQUENCE: u64 = 10;
    pub const TRACK_EVENT: u64 = 11;
    pub const INTERNED_DATA: u64 = 12;
    pub const SEQUENCE_FLAGS: u64 = 13;
    pub const DEFAULTS: u64 = 59;
    pub const TRACK_DESCRIPTOR: u64 = 60;
    pub const MACHINE: u64 = 98;
    /// Also a field of TracePacketDefaults.
    pub const TIMESTAMP_CLOCK: u64 = 58;
    /// SequenceFlags: the packet clears the interned data, or needs it.
    pub const CLEARED: u64 = 1;
    pub const NEEDS: u64 = 2;
}

/// ClockSnapshot (clock_snapshot.proto).
mod snapshot {
    pub const CLOCKS: u64 = 1;
    pub const PRIMARY: u64 = 2;
    /// A field of each clock.
    pub const ID: u64 = 1;
    pub const TIME: u64 = 2;
}

/// TrackDescriptor (track_event/track_descriptor.proto) and the messages in it.
mod descriptor {
    pub const UUID: u64 = 1;
    pub const NAME: u64 = 2;
    pub const PROCESS: u64 = 3;
    pub const PARENT: u64 = 5;
    pub const COUNTER: u64 = 8;
    pub const PROCESS_PID: u64 = 1;
    pub const PROCESS_NAME: u64 = 6;
    pub const COUNTER_UNIT_NAME: u64 = 6;
}

/// TrackEvent (track_event/track_event.proto).
mod event {
    pub const CATEGORY: u64 = 3;
    pub const ANNOTATION: u64 = 4;
    pub const TYPE: u64 = 9;
    pub const NAME: u64 = 10;
    pub const TRACK: u64 = 11;
    pub const COUNTER_VALUE: u64 = 30;
    pub const FLOW: u64 = 47;
    pub const TERMINATING_FLOW: u64 = 48;
    /// Types.
    pub const BEGIN: u64 = 1;
    pub const END: u64 = 2;
    pub const INSTANT: u64 = 3;
    pub const COUNTER: u64 = 4;
}

/// DebugAnnotation (track_event/debug_annotation.proto).
mod annotation {
    pub const NAME: u64 = 1;
    pub const BOOL: u64 = 2;
    pub const INT: u64 = 4;
    pub const POINTER: u64 = 7;
    pub const VALUE: u64 = 17;
}

/// `CLOCK_REALTIME` (common/builtin_clock.proto).
const REALTIME: u64 = 1;
/// The first clock id that a sequence may define for itself (clock_snapshot.proto): `CLOCK_MONOTONIC` of the run's
/// machine. The id of `CLOCK_MONOTONIC` would be one clock for the machines of all runs.
const RUN_CLOCK: u64 = 64;
/// The first sequence id. A system trace, which counts from 1, may be put before or after this one.
pub const SEQUENCES: u64 = 1 << 24;

/// The side from which an event is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Owner,
    Actor,
}

/// The categories: the kinds, then the sides, in their order.
fn categories() -> Vec<&'static str> {
    let kinds = TableKind::ALL.iter().map(|kind| kind.name());
    kinds.chain(["owner", "actor"]).collect()
}

/// The description of an event, for its slice and its instants.
pub struct About {
    kind: TableKind,
    name: u64,
    annotations: Message,
}

/// Writes packets.
pub struct Packets<W> {
    writer: W,
    words: Words,
    /// The number of runs so far. Each is a sequence, and all but the first are machines of their own, so that equal
    /// PIDs are different processes.
    runs: u64,
    /// The names of all columns.
    columns: Vec<&'static str>,
    /// The numbers, from 1, of the columns of each kind.
    numbers: BTreeMap<TableKind, Vec<u64>>,
    message: Message,
}

impl<W: Write> Packets<W> {
    pub fn new(writer: W) -> Self {
        let names = |kind: TableKind| kind.columns().into_iter().map(|(name, _)| name);
        let columns: BTreeSet<&str> = TableKind::ALL.into_iter().flat_map(names).collect();
        let number = |name| columns.range(..=name).count() as u64;
        let numbers = TableKind::ALL
            .into_iter()
            .map(|kind| (kind, names(kind).map(number).collect()));
        Self {
            numbers: numbers.collect(),
            writer,
            words: Words::default(),
            runs: 0,
            columns: columns.into_iter().collect(),
            message: Message::default(),
        }
    }

    /// Begins a run: the next packets are a sequence with its own clock, which showed `begun` at the time `realtime`.
    pub fn begin(&mut self, begun: u64, realtime: u64) -> io::Result<()> {
        self.runs += 1;
        self.forget()?;
        self.packet(|packet| {
            packet.message(packet::CLOCK_SNAPSHOT, |snapshot| {
                for (id, time) in [(RUN_CLOCK, begun), (REALTIME, realtime)] {
                    snapshot.message(snapshot::CLOCKS, |clock| {
                        clock.number(snapshot::ID, id);
                        clock.number(snapshot::TIME, time);
                    });
                }
                snapshot.number(snapshot::PRIMARY, REALTIME);
            });
        })
    }

    /// Called before an event is described: keeps the interned data within its limits.
    pub fn make_room(&mut self) -> io::Result<()> {
        if self.words.is_full() { self.forget() } else { Ok(()) }
    }

    fn forget(&mut self) -> io::Result<()> {
        self.words = Words::new(&categories(), &self.columns);
        self.packet(|packet| {
            packet.number(packet::SEQUENCE_FLAGS, packet::CLEARED);
            packet.message(packet::DEFAULTS, |defaults| {
                defaults.number(packet::TIMESTAMP_CLOCK, RUN_CLOCK);
            });
        })
    }

    /// A row of the kind's table as annotations; unknown values are left out.
    pub fn about(&mut self, kind: TableKind, name: &str, cells: &[Cell<'_>]) -> About {
        let Self { words, numbers, .. } = self;
        let mut annotations = Message::default();
        let names = numbers.get(&kind).map_or(&[][..], |numbers| numbers);
        for (name, cell) in names.iter().zip(cells) {
            let (field, value) = match cell {
                Cell::Int(Some(value)) => (annotation::INT, i64::from(*value).cast_unsigned()),
                Cell::Long(Some(value)) | Cell::Time(Some(value)) => (annotation::INT, value.cast_unsigned()),
                Cell::Address(Some(value)) => (annotation::POINTER, *value),
                Cell::Bool(Some(value)) => (annotation::BOOL, u64::from(*value)),
                Cell::Text(Some(text)) => (annotation::VALUE, words.value(text)),
                Cell::Int(None)
                | Cell::Long(None)
                | Cell::Address(None)
                | Cell::Bool(None)
                | Cell::Text(None)
                | Cell::Time(None) => continue,
            };
            annotations.message(event::ANNOTATION, |annotation| {
                annotation.number(annotation::NAME, *name);
                annotation.number(field, value);
            });
        }
        About {
            kind,
            name: words.name(name),
            annotations,
        }
    }

    /// A slice from `begin` to `end`. A flow begins at the owner's slice and ends at the actor's.
    pub fn slice(
        &mut self,
        track: u64,
        begin: Nanos,
        end: Nanos,
        about: &About,
        side: Side,
        flow: Option<u64>,
    ) -> io::Result<()> {
        self.event(event::BEGIN, track, begin, |event| about.write(event, side, flow))?;
        self.event(event::END, track, end, |_| {})
    }

    /// An instant at `at`.
    pub fn instant(&mut self, track: u64, at: Nanos, about: &About, side: Side, flow: Option<u64>) -> io::Result<()> {
        self.event(event::INSTANT, track, at, |event| about.write(event, side, flow))
    }

    /// An instant with only a text.
    pub fn note(&mut self, track: u64, at: Nanos, text: &str) -> io::Result<()> {
        self.make_room()?;
        let name = self.words.name(text);
        self.event(event::INSTANT, track, at, |event| event.number(event::NAME, name))
    }

    /// A counter's value from `at` on.
    pub fn step(&mut self, track: u64, at: Nanos, value: u64) -> io::Result<()> {
        self.event(event::COUNTER, track, at, |event| {
            event.number(event::COUNTER_VALUE, value);
        })
    }

    fn event(&mut self, kind: u64, track: u64, at: Nanos, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
        self.packet(|packet| {
            packet.number(packet::TIMESTAMP, at.0);
            packet.number(packet::SEQUENCE_FLAGS, packet::NEEDS);
            packet.message(packet::TRACK_EVENT, |event| {
                event.number(event::TYPE, kind);
                event.number(event::TRACK, track);
                fill(event);
            });
        })
    }

    /// A track below the track `above`.
    pub fn track(&mut self, track: u64, above: Option<u64>, name: &str) -> io::Result<()> {
        self.descriptor(track, |descriptor| {
            if let Some(above) = above {
                descriptor.number(descriptor::PARENT, above);
            }
            descriptor.bytes(descriptor::NAME, name.as_bytes());
        })
    }

    /// A process, the parent of its tracks.
    pub fn process(&mut self, track: u64, tgid: Tgid, name: &str) -> io::Result<()> {
        self.descriptor(track, |descriptor| {
            descriptor.message(descriptor::PROCESS, |process| {
                process.number(descriptor::PROCESS_PID, tgid.0.into());
                process.bytes(descriptor::PROCESS_NAME, name.as_bytes());
            });
        })
    }

    /// A counter below `above`.
    pub fn counter(&mut self, track: u64, above: u64, name: &str, unit: &str) -> io::Result<()> {
        self.descriptor(track, |descriptor| {
            descriptor.number(descriptor::PARENT, above);
            descriptor.bytes(descriptor::NAME, name.as_bytes());
            descriptor.message(descriptor::COUNTER, |counter| {
                counter.bytes(descriptor::COUNTER_UNIT_NAME, unit.as_bytes());
            });
        })
    }

    fn descriptor(&mut self, track: u64, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
        self.packet(|packet| {
            packet.message(packet::TRACK_DESCRIPTOR, |descriptor| {
                descriptor.number(descriptor::UUID, track);
                fill(descriptor);
            });
        })
    }

    fn packet(&mut self, fill: impl FnOnce(&mut Message)) -> io::Result<()> {
        let Self {
            writer,
            words,
            runs,
            message,
            ..
        } = self;
        message.clear();
        message.message(PACKET, |packet| {
            packet.number(packet::SEQUENCE, SEQUENCES + *runs);
            if *runs > 1 {
                packet.number(packet::MACHINE, *runs);
            }
            if !words.untold.is_empty() {
                packet.bytes(packet::INTERNED_DATA, words.untold.as_bytes());
                words.untold.clear();
            }
            fill(packet);
        });
        writer.write_all(message.as_bytes())
    }

    /// Writes what was held back.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl About {
    fn write(&self, event: &mut Message, side: Side, flow: Option<u64>) {
        let field = match side {
            Side::Owner => event::FLOW,
            Side::Actor => event::TERMINATING_FLOW,
        };
        // Categories are numbered from 1 in the order of `categories`.
        event.number(event::CATEGORY, self.kind as u64 + 1);
        event.number(event::CATEGORY, (TableKind::ALL.len() + side as usize) as u64 + 1);
        event.number(event::NAME, self.name);
        if let Some(flow) = flow {
            event.fixed(field, flow);
        }
        event.append(&self.annotations);
    }
}
