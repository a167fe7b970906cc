//! Raw events plus the answers of /proc make events: owner, VMA, nodes, verdict, page flags.
//! Input: batches from `decode`, in the order of the ring.

mod compaction;
mod failure;
mod frames;
mod intake;
pub mod life;
mod lists;
mod machine;
mod members;
mod moved;
mod owners;
pub mod processes;
mod spaces;
mod strings;
mod threads;
mod unmapped;

use crate::{
    correlate::{
        frames::Frames,
        intake::Intake,
        machine::Machine,
        moved::{Moves, Moving},
        owners::Owners,
        processes::Processes,
        spaces::Spaces,
    },
    decode::Raw,
    event::{Event, KernelNames},
    kernel::topology::Topology,
    run::attribution::Losses,
};

/// Turns raw events into events.
pub struct Correlator {
    /// Who is who.
    pub processes: Processes,
    /// The running kernel's names for its numbers.
    pub names: KernelNames,
    /// What was dropped or not answered so far.
    pub losses: Losses,
    topology: Topology,
    spaces: Spaces,
    frames: Frames,
    /// None: the raw events come with their owners.
    owners: Option<Owners>,
    /// What is nobody's is wanted, too: no filter selects an owner or an address.
    unowned: bool,
    intake: Intake,
    moves: Moves,
    failures: failure::Shared,
}

impl Correlator {
    /// `find_owners`: the raw events come without owners (tracepoint backend). `unowned`: no filter selects an owner or an
    /// address.
    /// What /proc does not offer is missing from the events; the log says so once.
    #[must_use]
    pub fn new(processes: Processes, topology: Topology, names: KernelNames, find_owners: bool, unowned: bool) -> Self {
        Self {
            processes,
            names,
            losses: Losses {
                reported_pages: find_owners.then_some(0),
                ..Losses::default()
            },
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

    /// Reads the frames of each node again where memory has come or gone.
    pub fn follow_hotplug(&mut self) {
        if self.topology.changed() {
            match Topology::read() {
                Ok(topology) => self.topology = topology,
                Err(error) => log::warn!("nodes of frames may be old: {error}"),
            }
        }
    }

    /// Correlates one batch and appends its events to `out`, in the same order. With `ask` false no
    /// page table is read: the caller has fallen behind the ring.
    pub fn batch(&mut self, batch: &[Raw], ask: bool, out: &mut Vec<Event>) {
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

    /// Finds owners and answers, and makes the moves that were taken in last into events.
    fn moves(&mut self, ask: bool, out: &mut Vec<Event>) {
        if let Some(owners) = &mut self.owners {
            let moves = &mut self.intake.moves;
            if ask {
                owners.find(moves, &mut self.processes, &mut self.spaces, &mut self.frames);
            }
            self.keep_wanted(ask);
            let pages: u64 = self.intake.moves.iter().map(Moving::pages).sum();
            *self.losses.reported_pages.get_or_insert_default() += pages;
        }
        let begin = out.len();
        let machine = Machine::new(&self.topology, &self.names);
        let moves = &self.intake.moves;
        let missing = self
            .moves
            .events(moves, ask, &self.processes, &mut self.spaces, machine, out);
        self.frames.add_to(&mut out[begin..]);
        let unattributed = &mut self.losses.unattributed;
        *match (&self.owners, ask) {
            (None, _) => &mut unattributed.unnamed,
            (Some(_), false) => &mut unattributed.unsearched,
            (Some(_), true) => &mut unattributed.not_found,
        } += missing.owner;
        self.losses.not_asked_pages += missing.verdict;
    }

    /// Drops moves of processes that nobody wants.
    fn keep_wanted(&mut self, searched: bool) {
        let members = &self.processes.members;
        if members.wanted().is_none() {
            return;
        }
        let losses = &mut self.losses;
        self.intake.moves.retain(|moving| {
            let dropped = match moving.owner {
                Some(owner) if members.wants(owner.tgid) => return true,
                Some(_) => &mut losses.filtered_pages,
                // It may have been a wanted process's page that is gone already, or anybody's.
                None if searched => &mut losses.unattributed.not_found,
                None => &mut losses.unsearched_pages,
            };
            *dropped += moving.pages();
            false
        });
    }

    /// Makes the failures of the batch into events: what is mapped is asked last.
    fn failures(&mut self, ask: bool) {
        let machine = Machine::new(&self.topology, &self.names);
        let mut owners = failure::Owners {
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
    use std::collections::BTreeMap;

    use tracer_common::filter::membership;

    use super::*;
    use crate::{
        kernel::topology::{Sources, Zone},
        units::{NodeId, Pfn, Tgid},
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

    /// One that wants [`NOBODY`].
    pub fn correlator(unowned: bool) -> Correlator {
        let processes = Processes::new(membership::COMM, BTreeMap::from([(Tgid(NOBODY), membership::COMM)]));
        Correlator::new(processes, topology(), KernelNames::default(), false, unowned)
    }
}
