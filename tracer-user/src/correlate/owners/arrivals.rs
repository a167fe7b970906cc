//! Which page was last seen to come where: an arrival speaks for who leaves next.
//! Input: moves in the order of the ring, with their owners as far as they are known.

use std::{collections::HashMap, mem};

use crate::{
    correlate::{life::Life, lists::Lists},
    units::{Pfn, VirtAddr},
};

/// How long an arrival speaks for who leaves, nanoseconds. Nothing reports that a page was unmapped, copied or freed: the
/// longer it is ago, the likelier is the frame another's page at the same address.
pub(super) const STAY: u64 = 200_000_000;

/// A page at a moment: where it is mapped, and in which frame.
pub(super) type Mapping = (VirtAddr, Pfn);

/// Whose page came.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub life: Life,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// By a huge mapping, of which this is the first page.
    pub huge: bool,
}

/// Pages that came, since not longer ago than twice [`STAY`].
#[derive(Default)]
pub(super) struct Arrivals {
    now: Period,
    /// The time before; forgotten next.
    before: Period,
    /// When `now` was begun, `CLOCK_MONOTONIC` nanoseconds.
    since: u64,
}

#[derive(Default)]
struct Period {
    /// Whose: of several, where they share it.
    known: Lists<Mapping, Arrival>,
    /// When the last one came whose owner is not known.
    strangers: HashMap<Mapping, u64>,
}

impl Arrivals {
    /// Who came, the first one first.
    pub fn at(&self, mapping: Mapping) -> impl Iterator<Item = &Arrival> {
        let both = [&self.before, &self.now].into_iter();
        both.flat_map(move |period| period.known.get(&mapping))
    }

    /// Whether somebody came who is not known.
    pub fn has_stranger(&self, mapping: Mapping) -> bool {
        [&self.now, &self.before]
            .iter()
            .any(|period| period.strangers.contains_key(&mapping))
    }

    /// Takes in that a page left.
    pub fn leave(&mut self, from: Mapping, life: Life) {
        self.retain(from, |arrival| arrival.life != life);
    }

    /// Takes in that a page came, which had been unmapped at that moment; `arrival`: whose it is, as far as is known.
    pub fn arrive(&mut self, to: Mapping, (unmapped_at, at): (u64, u64), arrival: Option<Arrival>) {
        // The frame was free before: who had been there had left.
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

    /// Forgets what is too long ago at that time.
    pub fn forget(&mut self, now: u64) {
        if now.saturating_sub(self.since) > STAY {
            mem::swap(&mut self.before, &mut self.now);
            self.now.known.clear();
            self.now.strangers.clear();
            self.since = now;
        }
    }
}
