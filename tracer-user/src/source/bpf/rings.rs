//! The rings between the kernel and tracer: moves and what belongs to them in one, process events in the other, so that
//! neither takes the other's room.
//! Input: the records of both, each in the order in which the programs wrote them.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::maps::{Array, MapData, RingBuf};
use rustix::event::epoll;

use crate::{
    decode::{self, Raw},
    source::bpf::gauge::Gauge,
    units::{Nanos, PAGE_SIZE},
};

/// Size of the ring of moves between the kernel and tracer: a power of two, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingBytes(u32);

impl RingBytes {
    /// Room for 150 ms of moves at the highest rate that a kernel reaches (1.7 M a second, 64 bytes each): several
    /// times the interval of the reader's timer.
    pub const DEFAULT: Self = Self(1 << 24);
    /// The smallest ring.
    pub const LEAST: Self = Self(1 << 12);

    /// The least power of two that is at least `bytes`. None beyond 1 GiB.
    #[must_use]
    pub fn holding(bytes: u64) -> Option<Self> {
        let bytes = bytes.max(PAGE_SIZE).checked_next_power_of_two()?;
        (bytes <= 1 << 30)
            .then(|| u32::try_from(bytes).ok())
            .flatten()
            .map(Self)
    }

    /// The size of the ring of process events beside it: 4 MiB by default, room for 75,000 of them.
    #[must_use]
    pub fn of_processes(self) -> Self {
        Self((self.0 / 4).max(Self::LEAST.0))
    }

    /// The number of bytes, as `max_entries` of a map has it.
    #[must_use]
    pub(super) fn entries(self) -> u32 {
        self.0
    }
}

/// Both rings, and how the programs wake their reader.
pub struct Rings {
    moves: RingBuf<MapData>,
    moves_bytes: RingBytes,
    processes: RingBuf<MapData>,
    processes_gauge: Gauge,
    sequence: Sequence,
    reader_sleeps: Array<MapData, u32>,
    /// Records that could not be decoded.
    undecoded: u64,
}

impl Rings {
    /// The rings of a loaded object, of which that for moves has `moves_bytes`.
    ///
    /// # Errors
    /// When the positions of a ring cannot be mapped.
    pub fn new(
        moves: RingBuf<MapData>,
        processes: RingBuf<MapData>,
        reader_sleeps: Array<MapData, u32>,
        moves_bytes: RingBytes,
    ) -> io::Result<Self> {
        Ok(Self {
            processes_gauge: Gauge::new(&processes, moves_bytes.of_processes().0.into())?,
            moves,
            moves_bytes,
            processes,
            sequence: Sequence::default(),
            reader_sleeps,
            undecoded: 0,
        })
    }

    /// Appends the records that are there now in the order of their time: at most `limit` moves, and the process events
    /// before the last of them, or before `now` if that were all moves. Returns the number of moves.
    pub fn take(&mut self, limit: usize, now: Nanos, records: &mut Vec<Raw>) -> usize {
        let Self {
            moves,
            processes,
            sequence,
            undecoded,
            ..
        } = self;
        let (mut of_moves, mut of_processes) = (0, 0);
        let taken = sequence.take(
            limit,
            now.0,
            || next(moves, &mut of_moves),
            || next(processes, &mut of_processes),
            records,
        );
        *undecoded += of_moves + of_processes;
        taken
    }

    /// Whether a process event was taken from its ring whose time had not come.
    pub fn holds_back(&self) -> bool {
        self.sequence.next.is_some()
    }

    /// Whether process events may have been lost since the last turn: their ring cannot have been full before this one
    /// if it is not half full.
    pub fn may_have_lost(&self) -> bool {
        self.processes_gauge.is_half_full()
    }

    /// A look at how full the rings are: that of moves, and that of process events.
    ///
    /// # Errors
    /// When a ring's positions cannot be mapped.
    pub fn gauges(&self) -> io::Result<[Gauge; 2]> {
        Ok([
            Gauge::new(&self.moves, self.moves_bytes.0.into())?,
            Gauge::new(&self.processes, self.moves_bytes.of_processes().0.into())?,
        ])
    }

    /// The number of records that could not be decoded.
    pub fn undecoded(&self) -> u64 {
        self.undecoded
    }

    /// Requests to be woken by the next event: only then does the [waker](Self::waker) become readable. Take what is
    /// there once more before sleeping.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn wake_me(&mut self) -> io::Result<()> {
        self.reader_sleeps.set(0, 1, 0).map_err(io::Error::other)
    }

    /// A descriptor that becomes readable when either ring does.
    ///
    /// # Errors
    /// The kernel's.
    pub fn waker(&self) -> io::Result<OwnedFd> {
        let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for ring in [&self.moves, &self.processes] {
            let nothing = epoll::EventData::new_u64(0);
            epoll::add(&both, ring.as_fd(), nothing, epoll::EventFlags::IN)?;
        }
        Ok(both)
    }
}

/// The next record of a ring that can be decoded; counts the others.
fn next(ring: &mut RingBuf<MapData>, undecoded: &mut u64) -> Option<Raw> {
    loop {
        match decode::decode(&ring.next()?) {
            Ok(raw) => return Some(raw),
            Err(error) => {
                log::debug!("{error}");
                *undecoded += 1;
            }
        }
    }
}

/// Puts the records of two rings in the order of their time.
#[derive(Default)]
struct Sequence {
    /// The process event that is due next. It was taken from its ring because its time stands in it.
    next: Option<Raw>,
}

impl Sequence {
    /// Appends records as [`Rings::take`] does, from iterators over the rings.
    ///
    /// A move that is written after `now` was read is not looked for, nor are process events from then on: they could be
    /// applied before it.
    fn take(
        &mut self,
        limit: usize,
        now: u64,
        mut moves: impl FnMut() -> Option<Raw>,
        mut processes: impl FnMut() -> Option<Raw>,
        records: &mut Vec<Raw>,
    ) -> usize {
        for taken in 0..limit {
            let Some(moved) = moves() else {
                self.until(now, &mut processes, records);
                return taken;
            };
            if let Some(at) = moved.at() {
                self.until(at, &mut processes, records);
            }
            records.push(moved);
        }
        limit
    }

    /// Appends the process events up to a time.
    fn until(&mut self, at: u64, processes: &mut impl FnMut() -> Option<Raw>, records: &mut Vec<Raw>) {
        while let Some(seen) = self.next.take().or_else(&mut *processes) {
            if seen.at() > Some(at) {
                self.next = Some(seen);
                return;
            }
            records.push(seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::event::{FILE_NAME, FileSeen, MappingMoved, ProcessChange, ProcessSeen};

    use super::*;

    fn moved(at: u64) -> Raw {
        Raw::Mapping(MappingMoved {
            at,
            ..MappingMoved::default()
        })
    }

    fn process(at: u64) -> Raw {
        let seen = ProcessSeen {
            at,
            ..ProcessSeen::default()
        };
        Raw::Process(ProcessChange::Renamed, seen)
    }

    #[test]
    fn records_come_in_the_order_of_their_time() {
        let mut sequence = Sequence::default();
        let mut moves = [moved(10), moved(30), moved(20), moved(50)].into_iter();
        let mut processes = [5, 10, 15, 40, 60, 70].map(process).into_iter();
        let mut records = Vec::new();
        let mut take = |sequence: &mut Sequence, limit, now| {
            records.clear();
            let taken = sequence.take(limit, now, || moves.next(), || processes.next(), &mut records);
            (taken, records.clone())
        };
        // Process events are taken up to the last move, if there may be more moves.
        assert_eq!(
            take(&mut sequence, 2, 100),
            (2, vec![process(5), process(10), moved(10), process(15), moved(30)])
        );
        assert_eq!(sequence.next, Some(process(40)));
        // Else those up to now are.
        assert_eq!(
            take(&mut sequence, 9, 65),
            (2, vec![moved(20), process(40), moved(50), process(60)])
        );
        assert_eq!(sequence.next, Some(process(70)));
        assert_eq!(take(&mut sequence, 9, 69), (0, vec![]));
        assert_eq!(take(&mut sequence, 9, 70), (0, vec![process(70)]));
        assert_eq!((take(&mut sequence, 9, 80), sequence.next), ((0, vec![]), None));
    }

    #[test]
    fn a_file_name_has_no_time() {
        let file = Raw::File(FileSeen {
            kind: 0,
            pad: 0,
            dev: 1,
            ino: 2,
            name: [0; FILE_NAME],
        });
        let (mut moves, mut processes) = ([file, moved(3)].into_iter(), [2].map(process).into_iter());
        let mut records = Vec::new();
        Sequence::default().take(9, 9, || moves.next(), || processes.next(), &mut records);
        assert_eq!(records, [file, process(2), moved(3)]);
    }
}
