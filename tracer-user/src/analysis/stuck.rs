//! Folios that could not be moved, by the process that maps them.
//! Input: every event of one or several runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    event::Event,
    run::{stuck::Stuck, totals::FailureTotals},
    units::Tgid,
};

/// Processes that have a row of their own; what more there are is in one row.
const MOST: usize = 1 << 12;

/// The process that a row is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A process that maps the folio, on a machine.
    Process(Arc<str>, Tgid, Option<Arc<str>>),
    /// No mapping of the folio is known.
    Unknown,
    /// There are more processes than rows.
    Other,
}

/// Failures by process. A folio that two processes map is in both rows.
#[derive(Clone, Debug, Default)]
pub struct StuckByProcess {
    rows: BTreeMap<Holder, FailureTotals>,
    known: Stuck<Holder>,
}

impl StuckByProcess {
    /// Before the events of another run: frames of another run are others.
    pub fn begin_run(&mut self) {
        self.known = Stuck::default();
    }

    /// Adds an event of a run on that machine.
    pub fn add(&mut self, event: &Event, host: &Arc<str>) {
        match event {
            Event::Move(moved) => self.known.came(moved.new_pfn, moved.pages),
            Event::Unmapped(moved) => self.known.came(moved.new_pfn, moved.order.pages()),
            Event::Failure(failure) => {
                let owners = failure.places.iter().map(|place| &place.owner);
                let process =
                    |owner: &crate::event::Task| Holder::Process(host.clone(), owner.tgid, owner.comm.clone());
                let mut holders: BTreeSet<Holder> = owners.map(process).collect();
                if holders.is_empty() {
                    holders.insert(Holder::Unknown);
                }
                for holder in holders {
                    let has_row = self.rows.contains_key(&holder) || self.rows.len() < MOST;
                    let holder = if has_row { holder } else { Holder::Other };
                    let known = self.known.failed(&holder, failure);
                    self.rows.entry(holder).or_default().add(failure.order.pages(), known);
                }
            }
            Event::Compaction(_) => {}
        }
    }

    /// Rows, those with the most pages first.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&Holder, FailureTotals)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(holder, sums)| (holder, *sums)).collect();
        rows.sort_by_key(|(_, sums)| (std::cmp::Reverse(sums.pages), std::cmp::Reverse(sums.attempts)));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::failure::Failure, made_up};

    #[test]
    fn a_folio_that_is_tried_ten_times_is_one_of_each_process_that_maps_it() {
        let mut stuck = StuckByProcess::default();
        let host = Arc::from("db-1");
        for event in made_up::others() {
            let Event::Failure(failure) = event else { continue };
            let mut places = failure.places.clone();
            places.extend(places.clone().into_iter().map(|mut place| {
                place.owner.tgid = Tgid(7);
                place
            }));
            // Twice in one process is once.
            places.extend(places.clone());
            for _ in 0..10 {
                let failure = Failure {
                    places: places.clone(),
                    ..failure.clone()
                };
                stuck.add(&Event::Failure(failure), &host);
            }
        }
        let rows: Vec<(bool, FailureTotals)> = stuck
            .sorted()
            .into_iter()
            .map(|(holder, sums)| (*holder == Holder::Unknown, sums))
            .collect();
        let once = FailureTotals {
            attempts: 10,
            folios: 1,
            pages: 1,
        };
        // Without a frame and a place nothing tells one folio from another.
        let unknown = FailureTotals {
            attempts: 10,
            folios: 10,
            pages: 10,
        };
        assert_eq!(rows, [(true, unknown), (false, once), (false, once)]);
    }
}
