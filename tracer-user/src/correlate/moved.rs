//! Moves of mapped pages: what the owners' page tables say of them, VMAs and nodes.
//! Input: raw events from `decode`, their owners known as far as can be; pagemaps and maps of the owners.

use std::{ops::Range, sync::Arc};

use tracer_common::event::{MappingMoved, mapping_flags};

use crate::{
    correlate::{
        life::Life,
        machine::{Machine, frame},
        processes::Processes,
        spaces::Spaces,
    },
    event::{Event, Move, OwnerSource, Task, Verdict},
    proc::{
        maps::Vma,
        pagemap::{Frame, LookupError},
    },
    units::{Nanos, Order, Pfn, Tgid, Tid, VirtAddr},
};

/// A range of mappings that moved, on its way to becoming an event: its names are those of its moment.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    /// The record of the kernel side.
    pub raw: MappingMoved,
    /// The process that owns the page table; None if it is not known.
    pub owner: Option<Life>,
    /// How the owner was found.
    pub source: OwnerSource,
    /// The owner's name at that moment.
    pub owner_task: Option<Task>,
    /// The thread that moved the pages.
    pub actor: Task,
    /// The verdict, if the search for the owner has found it already.
    pub verdict: Option<Verdict>,
}

impl Moving {
    /// Names the mover, and the owner if the kernel side reports it.
    pub fn new(raw: &MappingMoved, processes: &mut Processes) -> Self {
        let actor = processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid));
        let tgid = Tgid(raw.owner_tgid);
        let (owner, source) = if raw.owner_tgid == 0 {
            (None, OwnerSource::Unknown)
        } else if raw.flags & mapping_flags::OWNER_EXITING != 0 {
            (Some(processes.leaving(tgid)), OwnerSource::KernelExiting)
        } else {
            (Some(processes.living(tgid, unmapped_at(raw))), OwnerSource::Kernel)
        };
        let (owner, owner_task) = owner.unzip();
        Self {
            raw: *raw,
            owner,
            source,
            owner_task,
            actor,
            verdict: None,
        }
    }

    /// Base pages.
    pub fn pages(&self) -> u64 {
        self.raw.pages.into()
    }

    /// Whether it moved outside migrate_pages, where folios are not numbered.
    pub fn is_outside(&self) -> bool {
        self.raw.nth == 0
    }

    fn event(&self, part: Part, vma: Option<Arc<Vma>>, machine: Machine<'_>) -> Move {
        let raw = &self.raw;
        let (old_pfn, new_pfn) = (frame(raw.old_pfn, part.first), frame(raw.new_pfn, part.first));
        Move {
            at: Nanos(raw.at),
            owner: self.owner_task.clone(),
            owner_source: self.source,
            vaddr: VirtAddr(raw.vaddr).plus_pages(part.first),
            pages: part.pages,
            order: Order(raw.order),
            old_pfn,
            new_pfn,
            old_node: machine.node(old_pfn),
            new_node: machine.node(new_pfn),
            reason: Some(machine.names.reason(raw.reason)),
            actor: Some(self.actor.clone()),
            blackout: (raw.unmapped_at != 0).then(|| Nanos(raw.at).since(Nanos(raw.unmapped_at))),
            vma,
            verdict: part.verdict,
            flags: None,
            map_count: None,
            ambiguous: raw.flags & mapping_flags::AMBIGUOUS != 0,
            nth: (!self.is_outside()).then_some(raw.nth),
            cpu: raw.cpu,
        }
    }
}

/// Pages of a move with the same verdict.
#[derive(Clone, Copy)]
struct Part {
    /// The index of the first page in the move.
    first: u64,
    pages: u64,
    verdict: Verdict,
}

/// Makes moves into events.
#[derive(Default)]
pub(super) struct Moves {
    /// One answer for each move.
    answers: Vec<Answer>,
    /// Verdicts of single pages, in the order of the moves.
    verdicts: Vec<Verdict>,
    /// Moves whose owner's page table is read, by owner and address.
    asked: Vec<usize>,
    pages: Vec<VirtAddr>,
    words: Vec<u64>,
}

/// The verdicts of a move's pages.
#[derive(Clone, Debug)]
enum Answer {
    /// One verdict for all pages.
    All(Verdict),
    /// This range of [`Moves::verdicts`].
    Each(Range<usize>),
}

/// Base pages whose events lack something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Incomplete {
    /// Pages without an owner.
    pub owner: u64,
    /// Pages with an owner whose page table was not read.
    pub verdict: u64,
}

impl Incomplete {
    fn count(&mut self, moving: &Moving, part: Part) {
        match moving.owner {
            None => self.owner += part.pages,
            Some(_) if part.verdict == Verdict::NotAsked => self.verdict += part.pages,
            Some(_) => {}
        }
    }
}

impl Moves {
    /// Appends one event for each part of a move with the same verdict. With `ask` false nothing of /proc is read.
    pub fn events(
        &mut self,
        moves: &[Moving],
        ask: bool,
        processes: &Processes,
        spaces: &mut Spaces,
        machine: Machine<'_>,
        out: &mut Vec<Event>,
    ) -> Incomplete {
        self.answer(moves, ask, processes, spaces);
        let mut missing = Incomplete::default();
        for (moving, answer) in moves.iter().zip(&self.answers) {
            let owner = moving.owner.filter(|&life| ask && !processes.ended(life));
            let vma = owner.and_then(|life| spaces.vma(life.tgid, VirtAddr(moving.raw.vaddr)));
            let mut add = |part: Part| {
                missing.count(moving, part);
                out.push(Event::Move(moving.event(part, vma.clone(), machine)));
            };
            match answer {
                Answer::All(verdict) => add(Part {
                    first: 0,
                    pages: moving.pages(),
                    verdict: *verdict,
                }),
                Answer::Each(range) => {
                    let mut first = 0;
                    for alike in self.verdicts[range.clone()].chunk_by(PartialEq::eq) {
                        let (pages, verdict) = (alike.len() as u64, alike[0]);
                        add(Part { first, pages, verdict });
                        first += pages;
                    }
                }
            }
        }
        missing
    }

    /// Reads the page tables of the owners, each once, its addresses sorted.
    fn answer(&mut self, moves: &[Moving], ask: bool, processes: &Processes, spaces: &mut Spaces) {
        self.verdicts.clear();
        self.asked.clear();
        self.answers.clear();
        for (index, moving) in moves.iter().enumerate() {
            let verdict = match (moving.verdict, moving.owner) {
                (Some(verdict), _) => verdict,
                (None, Some(life)) if ask && processes.ended(life) => Verdict::ProcessGone,
                (None, Some(_)) if ask => {
                    self.asked.push(index);
                    Verdict::NotAsked
                }
                (None, _) => Verdict::NotAsked,
            };
            self.answers.push(Answer::All(verdict));
        }
        let tgid = |index: usize| moves[index].owner.map(|life| life.tgid);
        self.asked
            .sort_unstable_by_key(|&index| (tgid(index), moves[index].raw.vaddr, index));
        for of_one in self.asked.chunk_by(|&one, &other| tgid(one) == tgid(other)) {
            let Some(tgid) = tgid(of_one[0]) else { continue };
            self.pages.clear();
            for &index in of_one {
                let moving = &moves[index];
                let first = VirtAddr(moving.raw.vaddr);
                self.pages
                    .extend((0..moving.pages()).map(|page| first.plus_pages(page)));
            }
            let result = spaces.lookup(tgid, &self.pages, &mut self.words);
            let mut words = self.words.iter();
            for &index in of_one {
                let moving = &moves[index];
                self.answers[index] = match &result {
                    Ok(()) => {
                        let begin = self.verdicts.len();
                        let pages = (0..moving.pages()).zip(words.by_ref());
                        self.verdicts.extend(pages.map(|(page, &word)| {
                            let new_pfn = frame(moving.raw.new_pfn, page);
                            verdict(Frame::decode(word), new_pfn)
                        }));
                        Answer::Each(begin..self.verdicts.len())
                    }
                    Err(LookupError::ProcessGone) => Answer::All(Verdict::ProcessGone),
                    Err(error) => {
                        log::debug!("{error}");
                        Answer::All(Verdict::NotAsked)
                    }
                };
            }
        }
    }
}

/// A time at which the owner certainly had the page. It may run another program when the mapping is restored.
pub(super) fn unmapped_at(raw: &MappingMoved) -> Nanos {
    Nanos(if raw.unmapped_at == 0 { raw.at } else { raw.unmapped_at })
}

/// The verdict of a page table entry on a page that is expected in `new_pfn`, or on swap.
pub(super) fn verdict(frame: Frame, new_pfn: Option<Pfn>) -> Verdict {
    match frame {
        Frame::Present(pfn) if Some(pfn) == new_pfn => Verdict::Confirmed,
        Frame::Swapped(_) if new_pfn.is_none() => Verdict::Confirmed,
        // The page is moving again: the entry has the frame that it leaves.
        Frame::Present(_) | Frame::Migrating(_) => Verdict::MovedAgain,
        Frame::Hidden => Verdict::Hidden,
        Frame::Swapped(slot) if slot.hidden() => Verdict::Hidden,
        Frame::Swapped(_) => Verdict::SwappedOut,
        Frame::Guard | Frame::None => Verdict::Unmapped,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracer_common::{
        event::{ProcessChange, ProcessSeen},
        filter::membership,
    };

    use super::*;
    use crate::{
        correlate::tests::{NOBODY, correlator},
        decode::Raw,
        run::totals::Totals,
    };

    #[test]
    fn rows_are_the_reported_pages_and_those_outside_migrate_pages() {
        let raw = |nth, pages| {
            Raw::Mapping(MappingMoved {
                owner_tgid: NOBODY,
                nth,
                pages,
                at: 30,
                ..MappingMoved::default()
            })
        };
        let (mut correlator, mut events, mut totals) = (correlator(true), Vec::new(), Totals::default());
        // A page with two mappings, and a collapse.
        correlator.batch(&[raw(1, 1), raw(2, 1), raw(0, 512)], false, &mut events);
        for event in &events {
            totals.add(event);
        }
        let outside = correlator.losses().outside_pages;
        assert_eq!((outside, totals.pages), (512, 1 + outside));
    }

    #[test]
    fn an_owner_bears_the_name_that_it_had_when_its_page_was_unmapped() {
        let renamed = ProcessSeen {
            tgid: NOBODY,
            tid: NOBODY,
            at: 20,
            membership: membership::COMM,
            comm: *b"reborn\0\0\0\0\0\0\0\0\0\0",
            ..ProcessSeen::default()
        };
        let moved = |unmapped_at| MappingMoved {
            owner_tgid: NOBODY,
            unmapped_at,
            at: 30,
            pages: 1,
            ..MappingMoved::default()
        };
        let mut processes = Processes::new(0, BTreeMap::new());
        processes.apply(ProcessChange::Renamed, &renamed);
        let mut name = |unmapped_at| {
            let moving = Moving::new(&moved(unmapped_at), &mut processes);
            moving.owner_task.and_then(|task| task.comm)
        };
        assert_eq!(name(10), None);
        assert_eq!(name(25).as_deref(), Some("reborn"));
        assert_eq!(name(0).as_deref(), Some("reborn"));
    }
}
