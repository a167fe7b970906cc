//! The last known arrivals of pages: the process whose page arrived is likely to be the one whose page leaves next.
//! Input: moves in the order of the ring, with their owners as far as they are known.

use std::{collections::HashMap, mem};

use crate::{
    correlate::{life::Life, lists::Lists},
    units::{Pfn, VirtAddr},
};

/// How long an arrival identifies the page that leaves, nanoseconds. Nothing reports that a page was unmapped, copied
/// or freed: the older the arrival, the likelier the frame holds another process's page at the same address.
pub(super) const STAY: u64 = 200_000_000;

/// A page at one time: its address and its frame.
pub(super) type Mapping = (VirtAddr, Pfn);

/// The arrival of a process's page.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub life: Life,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// Whether this is the first page of a huge mapping.
    pub huge: bool,
}

/// Arrivals that are at most twice [`STAY`] old.
#[derive(Default)]
pub(super) struct Arrivals {
    now: Period,
    /// The period before, which is forgotten next.
    before: Period,
    /// The begin of `now`, `CLOCK_MONOTONIC` nanoseconds.
    since: u64,
}

#[derive(Default)]
struct Period {
    /// Arrivals with a known owner; several if processes share the page.
    known: Lists<Mapping, Arrival>,
    /// The time of the last arrival whose owner is not known.
    strangers: HashMap<Mapping, u64>,
}

impl Arrivals {
    /// The known arrivals, oldest first.
    pub fn at(&self, mapping: Mapping) -> impl Iterator<Item = &Arrival> {
        let both = [&self.before, &self.now].into_iter();
        both.flat_map(move |period| period.known.get(&mapping))
    }

    /// Whether a page arrived whose owner is not known.
    pub fn has_stranger(&self, mapping: Mapping) -> bool {
        [&self.now, &self.before]
            .iter()
            .any(|period| period.strangers.contains_key(&mapping))
    }

    /// Takes in that a page has left.
    pub fn leave(&mut self, from: Mapping, life: Life) {
        self.retain(from, |arrival| arrival.life != life);
    }

    /// Takes in that a page has arrived, with the time of its unmapping; `arrival` is None if its owner is not known.
    pub fn arrive(&mut self, to: Mapping, (unmapped_at, at): (u64, u64), arrival: Option<Arrival>) {
        // The frame was free before: earlier pages had left.
        self.retain(to, |other| {
            other.at > unmapped_at && arrival.is_none_or(|arrival| arrival.life != other.life)
        });
        for period in [&mut self.before, &mut self.now] {
            if period.strangers.get(&to).is_some_and(|&at| at <= unmapped_at) {
                period.strangers.remove(&to);
            }
        }
        match arrival {
            Some(arrival) => self.now.known.push(to, arrival),
            None => drop(self.now.strangers.insert(to, at)),
        }
    }

    fn retain(&mut self, mapping: Mapping, keep: impl Fn(&Arrival) -> bool) {
        for period in [&mut self.before, &mut self.now] {
            period.known.retain(&mapping, &keep);
        }
    }

    /// Forgets all arrivals.
    pub fn clear(&mut self) {
        for period in [&mut self.before, &mut self.now] {
            period.known.clear();
            period.strangers.clear();
        }
    }

    /// Forgets arrivals that are too old at that time.
    pub fn forget(&mut self, now: u64) {
        if now.saturating_sub(self.since) > STAY {
            mem::swap(&mut self.before, &mut self.now);
            self.now.known.clear();
            self.now.strangers.clear();
            self.since = now;
        }
    }
}
