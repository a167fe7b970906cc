//! The tracks of a trace and the room on them: slices that overlap are put into lanes side by side.
//! Input: the subjects of the tracks, times.

use std::{collections::HashMap, mem};

use sha2::{Digest as _, Sha256};

use crate::units::{Nanos, Tgid, Tid};

/// The least number of tracks that are remembered. A forgotten track is described again when something happens on it.
const REMEMBERED: usize = 1 << 14;
/// The most lanes of a track. Calls of `migrate_pages` unmap up to 512 pages before they map the first again.
const LANES: usize = 32;

/// The subject of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The run, the parent of its counters.
    Run,
    /// Pages that moved per second.
    Moved,
    /// Events that were lost per second.
    Lost,
    /// A process, the parent of all its tracks. None: the parent of moves whose owner is not known.
    Process(Option<Tgid>),
    /// Pages of the process that moved, from unmapped to mapped.
    Moves(Option<Tgid>),
    /// Pages of the process that moved, at the time when they were mapped.
    Instants(Option<Tgid>),
    /// Pages of the process that could not be moved.
    Failures(Tgid),
    /// The work of a thread.
    Work(Tgid, Tid),
}

impl Place {
    /// A stable number for the kind of subject, and the process and thread.
    fn key(self) -> (u8, Option<Tgid>, Tid) {
        let none = Tid(0);
        match self {
            Self::Run => (0, None, none),
            Self::Moved => (1, None, none),
            Self::Lost => (2, None, none),
            Self::Process(tgid) => (3, tgid, none),
            Self::Moves(tgid) => (4, tgid, none),
            Self::Instants(tgid) => (5, tgid, none),
            Self::Failures(tgid) => (6, Some(tgid), none),
            Self::Work(tgid, tid) => (7, Some(tgid), tid),
        }
    }
}

/// A track or lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The track's id.
    pub uuid: u64,
    /// Whether it must be described first.
    pub new: bool,
}

struct Track {
    /// Whether it was described with a proper name.
    named: bool,
    uuid: u64,
    /// The first lane is the track itself.
    lanes: Vec<Lane>,
}

struct Lane {
    uuid: u64,
    /// The time from which it is free.
    until: Nanos,
}

/// The tracks of a run.
#[derive(Default)]
pub struct Tracks {
    /// Identifies the run.
    run: String,
    recent: HashMap<Place, Track>,
    /// Tracks that were not used since `recent` was last emptied.
    older: HashMap<Place, Track>,
}

impl Tracks {
    pub fn new(run: String) -> Self {
        Self { run, ..Self::default() }
    }

    /// The track itself; `named`: its name is known now.
    pub fn find(&mut self, place: Place, named: bool) -> Found {
        let known = self.recent.contains_key(&place) || self.older.contains_key(&place);
        let track = self.track(place);
        let new = !known || named && !track.named;
        track.named |= named;
        Found { uuid: track.uuid, new }
    }

    /// The first lane of a track that is free from `begin` on; it is taken up to `end`. None: there is none.
    pub fn lane(&mut self, place: Place, begin: Nanos, end: Nanos) -> Option<Found> {
        let lanes = &mut self.track(place).lanes;
        let taken = lanes.len();
        if let Some(lane) = lanes.iter_mut().find(|lane| lane.until <= begin) {
            lane.until = end;
            return Some(Found {
                uuid: lane.uuid,
                new: false,
            });
        }
        if taken == LANES {
            return None;
        }
        let uuid = uuid(&self.run, place, taken);
        self.track(place).lanes.push(Lane { uuid, until: end });
        Some(Found { uuid, new: true })
    }

    fn track(&mut self, place: Place) -> &mut Track {
        if self.recent.len() >= REMEMBERED && !self.recent.contains_key(&place) {
            self.older = mem::take(&mut self.recent);
        }
        let Self { run, recent, older } = self;
        recent.entry(place).or_insert_with(|| {
            older.remove(&place).unwrap_or_else(|| {
                let (uuid, until) = (uuid(run, place, 0), Nanos(0));
                Track {
                    named: false,
                    uuid,
                    lanes: vec![Lane { uuid, until }],
                }
            })
        })
    }
}

/// An id that is the same for the same place of the same run in every export.
fn uuid(run: &str, place: Place, lane: usize) -> u64 {
    let (kind, tgid, tid) = place.key();
    let mut hash = Sha256::new();
    hash.update([kind, tgid.is_some().into()]);
    hash.update(tgid.unwrap_or_default().0.to_le_bytes());
    hash.update(tid.0.to_le_bytes());
    hash.update(lane.to_le_bytes());
    hash.update(run);
    let hash = hash.finalize();
    hash.iter().take(8).fold(0, |uuid, byte| uuid << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_overlaps_is_in_another_lane() {
        let mut tracks = Tracks::new("run".to_owned());
        let place = Place::Moves(Some(Tgid(1)));
        let mut lane = |begin, end| tracks.lane(place, Nanos(begin), Nanos(end));
        let first = lane(10, 20).unwrap();
        let second = lane(15, 25).unwrap();
        assert!(!first.new && second.new && first.uuid != second.uuid);
        // A slice may begin where another one ends.
        assert_eq!(lane(20, 30), Some(first));
        assert_eq!(lane(26, 40), Some(Found { new: false, ..second }));
        let more: HashSet<u64> = (2..LANES).map(|_| lane(5, 100).unwrap().uuid).collect();
        assert_eq!(more.len(), LANES - 2);
        assert_eq!(lane(5, 100), None);
        assert_eq!(lane(30, 100), Some(first));
        assert_eq!(tracks.find(place, true).uuid, first.uuid);
    }

    #[test]
    fn tracks_of_different_runs_are_different_ones() {
        let (mut one, mut other) = (Tracks::new("1".to_owned()), Tracks::new("2".to_owned()));
        let places = [
            Place::Run,
            Place::Process(None),
            Place::Process(Some(Tgid(0))),
            Place::Process(Some(Tgid(7))),
            Place::Work(Tgid(7), Tid(7)),
            Place::Work(Tgid(7), Tid(8)),
        ];
        let ids: HashSet<u64> = places
            .iter()
            .flat_map(|place| [one.find(*place, true).uuid, other.find(*place, true).uuid])
            .collect();
        assert_eq!(ids.len(), 2 * places.len());
    }

    #[test]
    fn a_name_that_comes_later_describes_it_again() {
        let mut tracks = Tracks::new(String::new());
        let place = Place::Process(Some(Tgid(1)));
        let new: Vec<bool> = [false, false, true, false, true]
            .iter()
            .map(|named| tracks.find(place, *named).new)
            .collect();
        assert_eq!(new, [true, false, true, false, false]);
    }

    #[test]
    fn only_so_many_are_remembered_and_those_in_use_are() {
        let mut tracks = Tracks::new(String::new());
        for tgid in 0..3 * u32::try_from(REMEMBERED).unwrap() {
            tracks.find(Place::Process(Some(Tgid(tgid))), true);
            assert_eq!(tracks.find(Place::Run, true).new, tgid == 0);
        }
        assert!(tracks.recent.len() + tracks.older.len() <= 2 * REMEMBERED);
        assert!(tracks.find(Place::Process(Some(Tgid(0))), true).new);
    }
}
