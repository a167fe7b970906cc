//! Raw events plus the answers of /proc make events: owner, VMA, nodes, verdict, page flags.
//! Input: batches from `decode`, in the order of their time.

mod compaction;
mod failure;
mod frames;
mod intake;
pub mod life;
mod lists;
mod machine;
mod members;
mod moved;
mod outcomes;
mod owners;
pub mod processes;
mod spaces;
mod strings;
mod threads;
mod unmapped;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    correlate::{
        frames::Frames,
        intake::Intake,
        machine::Machine,
        moved::Moves,
        outcomes::{Outcome, Outcomes},
        owners::Owners,
        processes::Processes,
        spaces::Spaces,
    },
    decode::Raw,
    event::{Event, KernelNames, OwnerSource},
    kernel::topology::Topology,
    run::attribution::{Losses, Unattributed},
    units::Tgid,
};

/// Turns raw events into events.
pub struct Correlator {
    /// The names and lives of processes and threads.
    pub processes: Processes,
    /// The running kernel's names for its numbers.
    pub names: KernelNames,
    losses: Losses,
    outcomes: Outcomes,
    topology: Topology,
    spaces: Spaces,
    frames: Frames,
    /// Searches for the owners that raw events lack; None if all come with theirs.
    owners: Option<Owners>,
    /// Events without an owner are wanted, too: no filter selects an owner or an address.
    unowned: bool,
    intake: Intake,
    moves: Moves,
    failures: failure::Shared,
}

impl Correlator {
    /// `find_owners` is for raw events that may lack their owners (tracepoint backend). `unowned` means that no filter selects an
    /// owner or an address. The log reports once which files of /proc cannot be read; events lack what these would add.
    #[must_use]
    pub fn new(processes: Processes, topology: Topology, names: KernelNames, find_owners: bool, unowned: bool) -> Self {
        Self {
            processes,
            names,
            losses: Losses::default(),
            outcomes: Outcomes::default(),
            topology,
            spaces: Spaces::default(),
            frames: Frames::open(),
            owners: find_owners.then(Owners::default),
            unowned,
            intake: Intake::default(),
            moves: Moves::default(),
            failures: failure::Shared::default(),
        }
    }

    /// The losses so far: what was dropped, and what /proc did not answer. Pages that may still get further mappings
    /// are not included before [`Self::end`].
    #[must_use]
    pub fn losses(&self) -> Losses {
        if self.owners.is_none() {
            return self.losses;
        }
        let pages = self.outcomes.complete();
        let not_found = Unattributed {
            not_found: pages.not_found,
            ..self.losses.unattributed
        };
        if self.processes.members.wanted().is_some() {
            return Losses {
                unattributed: not_found,
                filtered_pages: pages.filtered,
                unsearched_pages: pages.not_searched,
                reported_pages: Some(pages.owned),
                ..self.losses
            };
        }
        // Every process is traced: those without an owner are reported, too.
        Losses {
            unattributed: Unattributed {
                unsearched: pages.not_searched,
                ..not_found
            },
            reported_pages: Some(pages.owned + pages.filtered + pages.not_found + pages.not_searched),
            ..self.losses
        }
    }

    /// Lets the questions of a batch wait for answers of processes for the time that `patience` returns, together.
    pub fn wait(&mut self, patience: impl Fn() -> Duration + 'static) {
        self.spaces.wait(patience);
    }

    /// Ends the input: every page is complete.
    pub fn end(&mut self) {
        self.outcomes.end();
    }

    /// Reads the frames of each node again where memory has come or gone.
    pub fn follow_hotplug(&mut self) {
        if self.topology.changed() {
            match Topology::read() {
                Ok(topology) => self.topology = topology,
                Err(error) => log::warn!("nodes of frames may be old: {error}"),
            }
        }
    }

    /// Forgets what process events have reported, because some of them were lost, and what was read of processes since.
    /// `members` has the conditions that each process fulfils now.
    pub fn begin_again(&mut self, members: BTreeMap<Tgid, u32>) {
        self.processes.begin_again(members);
        self.spaces.forget_all();
        if let Some(owners) = &mut self.owners {
            owners.skip();
        }
    }

    /// Correlates one batch and appends its events to `out`, in the same order. With `ask` false no page table is read,
    /// because the caller has fallen behind the ring.
    pub fn batch(&mut self, batch: &[Raw], ask: bool, out: &mut Vec<Event>) {
        self.spaces.begin();
        let begin = out.len();
        let mut rest = batch;
        while !rest.is_empty() {
            let by_moment = self.owners.is_some();
            let machine = Machine::new(&self.topology, &self.names);
            rest = self
                .intake
                .take(rest, by_moment, &mut self.processes, &mut self.spaces, machine);
            self.moves(ask, out);
        }
        self.failures(ask);
        if !self.intake.complete.is_empty() {
            out.append(&mut self.intake.complete);
            out[begin..].sort_by_key(Event::at);
        }
        self.processes.bury();
    }

    /// Finds the owners of the moves that were taken in last, checks them against page tables, and makes them events.
    fn moves(&mut self, ask: bool, out: &mut Vec<Event>) {
        if let Some(owners) = &mut self.owners {
            let moves = &mut self.intake.moves;
            let searched = if ask {
                owners.find(moves, &mut self.processes, &mut self.spaces, &mut self.frames)
            } else {
                owners.skip();
                false
            };
            self.keep_wanted(searched);
        }
        let begin = out.len();
        let machine = Machine::new(&self.topology, &self.names);
        let moves = &self.intake.moves;
        let outside = moves.iter().filter(|moving| moving.is_outside());
        self.losses.outside_pages += outside.map(moved::Moving::pages).sum::<u64>();
        let missing = self
            .moves
            .events(moves, ask, &self.processes, &mut self.spaces, machine, out);
        self.frames.add_to(&mut out[begin..]);
        if self.owners.is_none() {
            self.losses.unattributed.unnamed += missing.owner;
        }
        self.losses.not_asked_pages += missing.verdict;
    }

    /// Counts the outcomes of the search for owners, and drops moves of processes that are not requested. Numbers the
    /// remaining moves: 1 for the first of a page, 2 for each other.
    fn keep_wanted(&mut self, searched: bool) {
        let members = &self.processes.members;
        let everybody = members.wanted().is_none();
        self.intake.moves.retain_mut(|moving| {
            // The programs have dropped the moves of others whose owners they know.
            let is_judged = matches!(moving.source, OwnerSource::Kernel | OwnerSource::KernelExiting);
            let outcome = match moving.owner {
                Some(owner) if everybody || is_judged || members.wants(owner.tgid) => Outcome::Owned,
                Some(_) => Outcome::Filtered,
                // It may have been a wanted process's page that is gone already, or anybody's.
                None if searched => Outcome::NotFound,
                None => Outcome::NotSearched,
            };
            let is_kept = |outcome| everybody || outcome == Outcome::Owned;
            let before = self.outcomes.add(&moving.raw, outcome);
            moving.raw.nth = if before.is_some_and(is_kept) { 2 } else { 1 };
            is_kept(outcome)
        });
    }

    /// Makes the failures of the batch into events. Their mappings are looked up last.
    fn failures(&mut self, ask: bool) {
        let machine = Machine::new(&self.topology, &self.names);
        let mut owners = failure::Mappers {
            processes: &self.processes,
            spaces: &mut self.spaces,
            ask,
            unowned: self.unowned,
        };
        let failures = self.intake.failures.drain(..);
        let failures = failures.map(|failing| failing.event(&mut owners, machine, &mut self.failures));
        self.intake.complete.extend(failures.map(Event::Failure));
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::filter::membership;

    use super::*;
    use crate::{
        kernel::topology::{Sources, Zone},
        units::{NodeId, Pfn},
    };

    /// Above any pid_max, so that nothing is found in /proc.
    pub const NOBODY: u32 = 5_000_000;

    pub fn topology() -> Topology {
        let sources = Sources {
            zones: vec![Zone {
                node: NodeId(0),
                start: Pfn(0),
                spanned: 1,
                present: 1,
            }],
            ..Sources::default()
        };
        Topology::from_sources(&sources).unwrap()
    }

    /// A correlator that traces [`NOBODY`] alone.
    pub fn correlator(unowned: bool) -> Correlator {
        let processes = Processes::new(membership::COMM, BTreeMap::from([(Tgid(NOBODY), membership::COMM)]));
        Correlator::new(processes, topology(), KernelNames::default(), false, unowned)
    }
}
