//! Folios that could not be moved, by the process that maps them.
//! Input: every event of one or several runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    analysis::question::{Analysis, Audience, Input, Occasion, Question},
    cells,
    event::Event,
    run::{failure::Failed, header::Header, totals::FailureTotals},
    section::{Cell, Column, Note, Section},
    units::{PAGE_SIZE, Tgid},
};

/// The number of processes that have a row of their own; the others share one row.
const MOST: usize = 1 << 12;

/// The process of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    /// A process that maps the folio: machine, number and name.
    Process(Arc<str>, Tgid, Option<Arc<str>>),
    /// No mapping of the folio is known.
    Unknown,
    /// There are more processes than rows.
    Other,
}

/// Failures by process. A folio that two processes map counts for both.
#[derive(Clone, Debug, Default)]
struct FailuresByProcess {
    host: Arc<str>,
    rows: BTreeMap<Holder, FailureTotals>,
    known: Failed<Holder>,
}

/// This table is part of a report, unless people request another one.
pub(super) fn new(asked: &Question) -> Option<Box<dyn Analysis>> {
    let is_shown = asked.audience == Audience::Programs || asked.by.is_empty();
    (asked.occasion == Occasion::Report && is_shown).then(|| Box::<FailuresByProcess>::default() as Box<dyn Analysis>)
}

impl Analysis for FailuresByProcess {
    /// Equal frames of different runs are different folios.
    fn begin(&mut self, header: &Header) {
        self.host = Arc::from(&*header.host);
        self.known = Failed::default();
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Move(moved) => self.known.came(moved.new_pfn, moved.pages),
            Event::Unmapped(moved) => self.known.came(moved.new_pfn, moved.order.pages()),
            Event::Failure(failure) => {
                let owners = failure.places.iter().map(|place| &place.owner);
                let process =
                    |owner: &crate::event::Task| Holder::Process(self.host.clone(), owner.tgid, owner.comm.clone());
                let mut holders: BTreeSet<Holder> = owners.map(process).collect();
                if holders.is_empty() {
                    holders.insert(Holder::Unknown);
                }
                let mut room = MOST.saturating_sub(self.rows.len());
                let with_row = holders.into_iter().map(|holder| {
                    if self.rows.contains_key(&holder) {
                        holder
                    } else if room > 0 {
                        room -= 1;
                        holder
                    } else {
                        Holder::Other
                    }
                });
                // Processes that share a row count the attempt once.
                let holders: BTreeSet<Holder> = with_row.collect();
                for holder in holders {
                    let known = self.known.failed(&holder, failure);
                    self.rows.entry(holder).or_default().add(failure, known);
                }
            }
            Event::Compaction(_) => {}
        }
    }

    /// The first rows; people also get the number of the others.
    fn sections(&self, asked: &Question, _input: &Input) -> Vec<Section> {
        let columns = vec![
            Column::name().heading("NOT MOVED OF"),
            Column::name().key("host"),
            Column::count().key("pid"),
            Column::name().key("comm"),
            Column::name().key("all_others"),
            Column::count().key("folios").heading("FOLIOS"),
            Column::count().key("pages"),
            Column::bytes().heading("SIZE"),
            Column::count().key("failures").heading("FAILURES"),
            Column::count().key("attempts").heading("ATTEMPTS"),
        ];
        let mut section = Section::table("failures_by_process", columns);
        let rows = self.sorted();
        for (holder, sums) in rows.iter().take(asked.rows) {
            let (name, host, pid, comm) = match holder {
                Holder::Process(host, tgid, comm) => {
                    let comm_only = comm.as_ref().map(ToString::to_string);
                    let pid = Cell::Number(tgid.0.into());
                    (
                        Cell::Process(*tgid, comm.clone()),
                        Some(host.to_string()),
                        Some(pid),
                        comm_only,
                    )
                }
                Holder::Unknown => ("no known mapping".into(), None, None, None),
                Holder::Other => (Cell::Others(None), None, None, None),
            };
            section.row(cells![
                name,
                host,
                pid,
                comm,
                **holder == Holder::Other,
                sums.folios,
                sums.pages,
                Cell::Bytes(sums.pages.saturating_mul(PAGE_SIZE)),
                sums.failures,
                sums.attempts,
            ]);
        }
        let more = rows.len().saturating_sub(section.rows.len()) as u64;
        if more > 0 {
            let words = cells![Cell::Counted(more, "process more", "processes more")];
            section.notes.push(Note::plain(words));
        }
        let is_empty = asked.audience == Audience::People && rows.is_empty();
        (!is_empty).then_some(section).into_iter().collect()
    }
}

impl FailuresByProcess {
    /// The rows, most pages first.
    fn sorted(&self) -> Vec<(&Holder, FailureTotals)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(holder, sums)| (holder, *sums)).collect();
        rows.sort_by_key(|(_, sums)| (std::cmp::Reverse(sums.pages), std::cmp::Reverse(sums.failures)));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::failure::Failure, made_up};

    #[test]
    fn a_folio_that_is_tried_ten_times_is_one_of_each_process_that_maps_it() {
        let mut by_process = FailuresByProcess::default();
        for event in made_up::others() {
            let Event::Failure(failure) = event else { continue };
            let mut places = failure.places.clone();
            places.extend(places.clone().into_iter().map(|mut place| {
                place.owner.tgid = Tgid(7);
                place
            }));
            // A folio that is mapped twice in one process counts once there.
            places.extend(places.clone());
            for _ in 0..10 {
                let failure = Failure {
                    places: places.clone(),
                    ..failure.clone()
                };
                by_process.event(&Event::Failure(failure));
            }
        }
        let rows: Vec<(bool, FailureTotals)> = by_process
            .sorted()
            .into_iter()
            .map(|(holder, sums)| (*holder == Holder::Unknown, sums))
            .collect();
        let once = FailureTotals {
            failures: 10,
            attempts: 100,
            folios: 1,
            pages: 1,
        };
        // Without a frame and a place each failure counts as a new folio.
        let unknown = FailureTotals {
            failures: 10,
            attempts: 0,
            folios: 10,
            pages: 10,
        };
        assert_eq!(rows, [(true, unknown), (false, once), (false, once)]);
    }
}
