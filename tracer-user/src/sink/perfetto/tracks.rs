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
pub enum Subject {
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

impl Subject {
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
pub struct TrackRef {
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
    recent: HashMap<Subject, Track>,
    /// Tracks that were not used since `recent` was last emptied.
    older: HashMap<Subject, Track>,
}

impl Tracks {
    pub fn new(run: String) -> Self {
        Self { run, ..Self::default() }
    }

    /// The track itself; `named`: its name is known now.
    pub fn find(&mut self, subject: Subject, named: bool) -> TrackRef {
        let known = self.recent.contains_key(&subject) || self.older.contains_key(&subject);
        let track = self.track(subject);
        let new = !known || named && !track.named;
        track.named |= named;
        TrackRef { uuid: track.uuid, new }
    }

    /// The first lane of a track that is free from `begin` on; it is taken up to `end`. None: there is none.
    pub fn lane(&mut self, subject: Subject, begin: Nanos, end: Nanos) -> Option<TrackRef> {
        let lanes = &mut self.track(subject).lanes;
        let taken = lanes.len();
        if let Some(lane) = lanes.iter_mut().find(|lane| lane.until <= begin) {
            lane.until = end;
            return Some(TrackRef {
                uuid: lane.uuid,
                new: false,
            });
        }
        if taken == LANES {
            return None;
        }
        let uuid = uuid(&self.run, subject, taken);
        self.track(subject).lanes.push(Lane { uuid, until: end });
        Some(TrackRef { uuid, new: true })
    }

    fn track(&mut self, subject: Subject) -> &mut Track {
        if self.recent.len() >= REMEMBERED && !self.recent.contains_key(&subject) {
            self.older = mem::take(&mut self.recent);
        }
        let Self { run, recent, older } = self;
        recent.entry(subject).or_insert_with(|| {
            older.remove(&subject).unwrap_or_else(|| {
                let (uuid, until) = (uuid(run, subject, 0), Nanos(0));
                Track {
                    named: false,
                    uuid,
                    lanes: vec![Lane { uuid, until }],
                }
            })
        })
    }
}

/// An id that is the same for the same subject of the same run in every export.
fn uuid(run: &str, subject: Subject, lane: usize) -> u64 {
    let (kind, tgid, tid) = subject.key();
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
        let subject = Subject::Moves(Some(Tgid(1)));
        let mut lane = |begin, end| tracks.lane(subject, Nanos(begin), Nanos(end));
        let first = lane(10, 20).unwrap();
        let second = lane(15, 25).unwrap();
        assert!(!first.new && second.new && first.uuid != second.uuid);
        // A slice may begin where another one ends.
        assert_eq!(lane(20, 30), Some(first));
        assert_eq!(lane(26, 40), Some(TrackRef { new: false, ..second }));
        let more: HashSet<u64> = (2..LANES).map(|_| lane(5, 100).unwrap().uuid).collect();
        assert_eq!(more.len(), LANES - 2);
        assert_eq!(lane(5, 100), None);
        assert_eq!(lane(30, 100), Some(first));
        assert_eq!(tracks.find(subject, true).uuid, first.uuid);
    }

    #[test]
    fn tracks_of_different_runs_are_different_ones() {
        let (mut one, mut other) = (Tracks::new("1".to_owned()), Tracks::new("2".to_owned()));
        let subjects = [
            Subject::Run,
            Subject::Process(None),
            Subject::Process(Some(Tgid(0))),
            Subject::Process(Some(Tgid(7))),
            Subject::Work(Tgid(7), Tid(7)),
            Subject::Work(Tgid(7), Tid(8)),
        ];
        let ids: HashSet<u64> = subjects
            .iter()
            .flat_map(|subject| [one.find(*subject, true).uuid, other.find(*subject, true).uuid])
            .collect();
        assert_eq!(ids.len(), 2 * subjects.len());
    }

    #[test]
    fn a_name_that_comes_later_describes_it_again() {
        let mut tracks = Tracks::new(String::new());
        let subject = Subject::Process(Some(Tgid(1)));
        let new: Vec<bool> = [false, false, true, false, true]
            .iter()
            .map(|named| tracks.find(subject, *named).new)
            .collect();
        assert_eq!(new, [true, false, true, false, false]);
    }

    #[test]
    fn only_so_many_are_remembered_and_those_in_use_are() {
        let mut tracks = Tracks::new(String::new());
        for tgid in 0..3 * u32::try_from(REMEMBERED).unwrap() {
            tracks.find(Subject::Process(Some(Tgid(tgid))), true);
            assert_eq!(tracks.find(Subject::Run, true).new, tgid == 0);
        }
        assert!(tracks.recent.len() + tracks.older.len() <= 2 * REMEMBERED);
        assert!(tracks.find(Subject::Process(Some(Tgid(0))), true).new);
    }
}
