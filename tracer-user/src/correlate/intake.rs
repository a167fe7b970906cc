//! Takes in a batch, part by part: names change with each process event, and every other event gets those of its time.
//! Input: batches from `decode`, in the order of their time.

use crate::{
    correlate::{
        compaction,
        failure::Failing,
        machine::Machine,
        moved::Moving,
        processes::Processes,
        spaces::Spaces,
        strings::Strings,
        unmapped::{self, Files},
    },
    decode::Raw,
    event::Event,
};

/// Events that have come and are not complete yet. The memory is kept from batch to batch.
#[derive(Default)]
pub(super) struct Intake {
    /// Moves of the part that was taken in last.
    pub moves: Vec<Moving>,
    /// Failures of the batch so far.
    pub failures: Vec<Failing>,
    /// Events of the batch so far that need no look-up: they are complete.
    pub complete: Vec<Event>,
    files: Files,
    zones: Strings,
}

impl Intake {
    /// Takes in the next part of a batch and returns the rest. With `by_moment`, the part ends before the set of wanted
    /// processes changes, so that each move is judged by the set of its time. Without it, the part is the whole batch.
    pub fn take<'a>(
        &mut self,
        batch: &'a [Raw],
        by_moment: bool,
        processes: &mut Processes,
        spaces: &mut Spaces,
        machine: Machine<'_>,
    ) -> &'a [Raw] {
        self.moves.clear();
        for (at, raw) in batch.iter().enumerate() {
            match raw {
                Raw::Process(change, seen) => {
                    let judges = by_moment && !self.moves.is_empty();
                    if judges && processes.members.changes_wanted(*change, seen) {
                        return &batch[at..];
                    }
                    if let Some(tgid) = processes.apply(*change, seen) {
                        spaces.forget(tgid);
                    }
                }
                Raw::Mapping(raw) => self.moves.push(Moving::new(raw, processes)),
                Raw::Failure(raw) => self.failures.push(Failing::new(raw, processes)),
                Raw::File(seen) => self.files.add(seen),
                Raw::Unmapped(raw) => {
                    let moved = unmapped::event(raw, processes, machine, &self.files);
                    self.complete.push(Event::Unmapped(moved));
                }
                Raw::Compaction(raw) => {
                    let pass = compaction::event(raw, processes, machine, &mut self.zones);
                    self.complete.push(Event::Compaction(pass));
                }
            }
        }
        &[]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracer_common::{
        event::{MappingMoved, ProcessChange, ProcessSeen},
        filter::membership,
    };

    use super::*;
    use crate::{
        correlate::tests::{NOBODY, topology},
        kernel::names::KernelNames,
        units::Tgid,
    };

    #[test]
    fn moves_before_a_change_of_who_is_wanted_are_judged_by_themselves() {
        let mapping = Raw::Mapping(MappingMoved {
            actor_tgid: NOBODY,
            actor_tid: NOBODY,
            pages: 1,
            ..MappingMoved::default()
        });
        let renamed = |membership| {
            let seen = ProcessSeen {
                tgid: NOBODY,
                tid: NOBODY,
                membership,
                ..ProcessSeen::default()
            };
            Raw::Process(ProcessChange::Renamed, seen)
        };
        let batch = [renamed(membership::COMM), mapping, mapping, renamed(0), mapping];
        let (topology, names) = (topology(), KernelNames::default());
        let machine = Machine::new(&topology, &names);
        let (mut intake, mut spaces) = (Intake::default(), Spaces::default());
        let mut processes = Processes::new(membership::COMM, BTreeMap::from([(Tgid(NOBODY), membership::COMM)]));
        let rest = intake.take(&batch, true, &mut processes, &mut spaces, machine);
        assert_eq!((intake.moves.len(), rest.len()), (2, 2));
        assert!(processes.members.wants(Tgid(NOBODY)));
        let rest = intake.take(rest, true, &mut processes, &mut spaces, machine);
        assert_eq!((intake.moves.len(), rest.len()), (1, 0));
        assert!(!processes.members.wants(Tgid(NOBODY)));
        // The kernel side has filtered these already.
        let rest = intake.take(&batch, false, &mut processes, &mut spaces, machine);
        assert_eq!((intake.moves.len(), rest.len()), (3, 0));
    }
}
