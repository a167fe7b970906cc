//! Raw events plus the answers of /proc make events: owner, VMA, nodes, verdict, page flags.
//! Input: batches from `decode`, in the order of the ring.

mod compactions;
mod failures;
pub mod owners;
pub mod processes;
pub mod spaces;
mod unmapped;

use std::collections::BTreeMap;

use tracer_common::event::{MappingMoved, mapping_flags};

use crate::{
    correlate::{
        failures::Failing,
        owners::Owners,
        processes::{Life, Processes},
        spaces::Spaces,
        unmapped::Files,
    },
    decode::Raw,
    event::{Event, KernelNames, Move, OwnerSource, Task, Verdict},
    kernel::topology::Topology,
    proc::{
        kpage::{FrameFile, KpfQuirks, PageFlags},
        pagemap::{Frame, LookupError},
    },
    run::attribution::Losses,
    units::{Nanos, Order, Pfn, Tgid, Tid, VirtAddr},
};

/// A run of mappings on its way to becoming an event.
#[derive(Clone, Debug)]
pub struct Pending {
    /// What the kernel side sent.
    pub raw: MappingMoved,
    /// Whose page table it is, as far as known.
    pub owner: Option<Life>,
    /// How that is known.
    pub source: OwnerSource,
    /// The owner's name at that moment.
    pub owner_task: Option<Task>,
    /// Who did it.
    pub actor: Task,
    /// Already known from the search for the owner.
    pub verdict: Option<Verdict>,
}

/// Turns raw events into events.
pub struct Correlator {
    /// Who is who.
    pub processes: Processes,
    spaces: Spaces,
    owners: Option<Owners>,
    topology: Topology,
    /// The running kernel's names for its numbers.
    pub names: KernelNames,
    files: Files,
    /// What is nobody's is wanted, too: no filter asks for an owner or an address.
    unowned: bool,
    flags: Option<FrameFile>,
    counts: Option<FrameFile>,
    quirks: KpfQuirks,
    /// What was dropped or not answered so far.
    pub losses: Losses,
}

impl Correlator {
    /// `find_owners`: the raw events come without owners (tracepoint backend). `unowned`: no filter asks for an owner or an
    /// address.
    /// What /proc does not offer is missing from the events; the caller says so once.
    #[must_use]
    pub fn new(processes: Processes, topology: Topology, names: KernelNames, find_owners: bool, unowned: bool) -> Self {
        let flags = FrameFile::flags()
            .map_err(|e| log::warn!("{e}: page flags are missing from events"))
            .ok();
        let counts = FrameFile::counts()
            .map_err(|e| log::warn!("{e}: map counts are missing from events"))
            .ok();
        let own = crate::proc::pagemap::Pagemap::open(Tgid(std::process::id())).ok();
        let quirks = own
            .zip(flags.as_ref())
            .and_then(|(own, flags)| KpfQuirks::probe(&own, flags))
            .unwrap_or_else(|| KpfQuirks::of(&crate::kernel::release::release()));
        Self {
            processes,
            spaces: Spaces::default(),
            owners: find_owners.then(Owners::default),
            topology,
            names,
            files: Files::default(),
            unowned,
            flags,
            counts,
            quirks,
            losses: Losses {
                reported_pages: find_owners.then_some(0),
                ..Losses::default()
            },
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
        let (mut others, mut failing) = (Vec::new(), Vec::new());
        let mut rest = batch;
        while !rest.is_empty() {
            let (pending, behind) = self.name(rest, &mut others, &mut failing);
            self.events(pending, ask, out);
            rest = behind;
        }
        others.extend(failing.into_iter().map(|failing| self.failure(failing, ask)));
        if !others.is_empty() {
            out.append(&mut others);
            out[begin..].sort_by_key(Event::at);
        }
        self.processes.bury();
    }

    /// Makes runs into events.
    fn events(&mut self, mut pending: Vec<Pending>, ask: bool, out: &mut Vec<Event>) {
        if let Some(owners) = &mut self.owners {
            if ask {
                let counts = self.counts.as_ref();
                owners.find(&mut pending, &mut self.processes, &mut self.spaces, counts);
            }
            self.keep_wanted(&mut pending, ask);
            let pages: u64 = pending.iter().map(|run| u64::from(run.raw.pages)).sum();
            *self.losses.reported_pages.get_or_insert_default() += pages;
        }
        let entries = if ask {
            self.ask(&pending)
        } else {
            vec![Answer::NotAsked; pending.len()]
        };
        let first = out.len();
        for (run, answer) in pending.iter().zip(&entries) {
            self.judge(run, answer, ask, out);
        }
        self.add_frame_facts(&mut out[first..]);
    }

    /// Takes in the process events, and names owner and actor of each run as of that moment. Where owners are found
    /// here, it ends before a change of who is wanted: the runs until then are judged by who was wanted then. Returns
    /// the rest. Events that nothing is asked about are complete at once, and go to `others`.
    fn name<'a>(
        &mut self,
        batch: &'a [Raw],
        others: &mut Vec<Event>,
        failing: &mut Vec<Failing>,
    ) -> (Vec<Pending>, &'a [Raw]) {
        let mut pending = Vec::with_capacity(batch.len());
        for (at, raw) in batch.iter().enumerate() {
            match raw {
                Raw::Process(change, seen) => {
                    let judges = self.owners.is_some() && !pending.is_empty();
                    if judges && self.processes.changes_wanted(*change, seen) {
                        return (pending, &batch[at..]);
                    }
                    if let Some(tgid) = self.processes.apply(*change, seen) {
                        self.spaces.forget(tgid);
                    }
                }
                Raw::File(seen) => self.files.add(seen),
                Raw::Folio(raw) => others.push(self.unmapped(raw)),
                Raw::Failure(raw) => failing.push(self.failing(raw)),
                Raw::Compaction(raw) => others.push(self.compaction(raw)),
                Raw::Mapping(raw) => {
                    let actor = self.processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid));
                    let (owner, source) = self.owner(raw);
                    let (owner, owner_task) = owner.unzip();
                    pending.push(Pending {
                        raw: *raw,
                        owner,
                        source,
                        owner_task,
                        actor,
                        verdict: None,
                    });
                }
            }
        }
        (pending, &[])
    }

    /// Whose page table the kernel side says it is.
    fn owner(&mut self, raw: &MappingMoved) -> (Option<(Life, Task)>, OwnerSource) {
        let tgid = Tgid(raw.owner_tgid);
        if raw.owner_tgid == 0 {
            (None, OwnerSource::Unknown)
        } else if raw.flags & mapping_flags::OWNER_EXITING != 0 {
            (Some(self.processes.leaving(tgid)), OwnerSource::KernelExiting)
        } else {
            let task = self.processes.process_at(tgid, unmapped_at(raw));
            (Some((self.processes.life(tgid), task)), OwnerSource::Kernel)
        }
    }

    /// Drops runs of processes that nobody asked for.
    fn keep_wanted(&mut self, pending: &mut Vec<Pending>, searched: bool) {
        let processes = &self.processes;
        if processes.wanted().is_none() {
            return;
        }
        let losses = &mut self.losses;
        pending.retain(|run| match run.owner {
            Some(owner) if processes.wants(owner.tgid) => true,
            Some(_) => {
                losses.filtered_pages += u64::from(run.raw.pages);
                false
            }
            // It may have been a wanted process's page that is gone already, or anybody's.
            None => {
                let count = if searched {
                    &mut losses.unattributed.not_found
                } else {
                    &mut losses.unsearched_pages
                };
                *count += u64::from(run.raw.pages);
                false
            }
        });
    }

    /// Reads the page tables of the owners, each once, its addresses sorted.
    fn ask(&mut self, pending: &[Pending]) -> Vec<Answer> {
        let mut answers = vec![Answer::NotAsked; pending.len()];
        let mut by_owner: BTreeMap<Tgid, Vec<usize>> = BTreeMap::new();
        for (index, run) in pending.iter().enumerate() {
            match run.owner {
                _ if run.verdict.is_some() => {}
                None => {}
                Some(life) if self.processes.ended(life) => answers[index] = Answer::Gone,
                Some(life) => by_owner.entry(life.tgid).or_default().push(index),
            }
        }
        let mut pages = Vec::new();
        let mut words = Vec::new();
        for (tgid, mut indices) in by_owner {
            indices.sort_by_key(|&index| pending[index].raw.vaddr);
            pages.clear();
            for &index in &indices {
                let raw = &pending[index].raw;
                pages.extend((0..u64::from(raw.pages)).map(|page| VirtAddr(raw.vaddr).plus_pages(page)));
            }
            let result = self.spaces.lookup(tgid, &pages, &mut words);
            let mut words = words.iter().copied();
            for &index in &indices {
                answers[index] = match &result {
                    Ok(()) => Answer::Entries(words.by_ref().take(pending[index].raw.pages as usize).collect()),
                    Err(LookupError::ProcessGone) => Answer::Gone,
                    Err(error) => {
                        log::debug!("{error}");
                        Answer::NotAsked
                    }
                };
            }
        }
        answers
    }

    /// One event per part of the run with the same verdict.
    fn judge(&mut self, run: &Pending, answer: &Answer, ask: bool, out: &mut Vec<Event>) {
        let raw = &run.raw;
        let whole = |verdict| (0, u64::from(raw.pages), verdict);
        let parts: Vec<(u64, u64, Verdict)> = match (run.verdict, answer) {
            (Some(verdict), _) => vec![whole(verdict)],
            (None, Answer::NotAsked) => vec![whole(Verdict::NotAsked)],
            (None, Answer::Gone) => vec![whole(Verdict::ProcessGone)],
            (None, Answer::Entries(entries)) => {
                let mut parts: Vec<(u64, u64, Verdict)> = Vec::new();
                for (page, &entry) in (0..).zip(entries) {
                    let verdict = verdict(Frame::decode(entry), frame(raw.new_pfn, page));
                    match parts.last_mut() {
                        Some((_, pages, last)) if *last == verdict => *pages += 1,
                        _ => parts.push((page, 1, verdict)),
                    }
                }
                parts
            }
        };
        let vma = run
            .owner
            .filter(|&life| ask && !self.processes.ended(life))
            .and_then(|life| self.spaces.vma(life.tgid, VirtAddr(raw.vaddr)));
        for (first, pages, verdict) in parts {
            if run.owner.is_none() {
                let missing = &mut self.losses.unattributed;
                *match (&self.owners, ask) {
                    (None, _) => &mut missing.unnamed,
                    (Some(_), false) => &mut missing.unsearched,
                    (Some(_), true) => &mut missing.not_found,
                } += pages;
            } else if verdict == Verdict::NotAsked {
                self.losses.not_asked_pages += pages;
            }
            let (old_pfn, new_pfn) = (frame(raw.old_pfn, first), frame(raw.new_pfn, first));
            out.push(Event::Move(Move {
                at: Nanos(raw.at),
                owner: run.owner_task.clone(),
                owner_source: run.source,
                vaddr: VirtAddr(raw.vaddr).plus_pages(first),
                pages,
                order: Order(raw.order),
                old_pfn,
                new_pfn,
                old_node: old_pfn.and_then(|pfn| self.topology.node_of(pfn)),
                new_node: new_pfn.and_then(|pfn| self.topology.node_of(pfn)),
                reason: self.names.reason(raw.reason),
                actor: run.actor.clone(),
                blackout: (raw.unmapped_at != 0).then(|| Nanos(raw.at).since(Nanos(raw.unmapped_at))),
                vma: vma.clone(),
                verdict,
                flags: None,
                map_count: None,
                ambiguous: raw.flags & mapping_flags::AMBIGUOUS != 0,
                nth: (raw.nth != 0).then_some(raw.nth),
                cpu: raw.cpu,
            }));
        }
    }

    /// Adds flags and map counts of frames that still hold the page.
    fn add_frame_facts(&self, events: &mut [Event]) {
        let mut frames: Vec<Pfn> = events
            .iter()
            .filter_map(|event| match event {
                Event::Move(moved) if moved.verdict == Verdict::Confirmed => moved.new_pfn,
                _ => None,
            })
            .collect();
        frames.sort_unstable();
        frames.dedup();
        let read = |file: &Option<FrameFile>| {
            let mut words = Vec::new();
            let answer = file.as_ref()?.lookup(&frames, &mut words);
            answer.map_err(|e| log::debug!("{e}")).ok().map(|()| words)
        };
        let (flags, counts) = (read(&self.flags), read(&self.counts));
        for event in events {
            let Event::Move(moved) = event else { continue };
            if moved.verdict != Verdict::Confirmed {
                continue;
            }
            let Some(at) = moved.new_pfn.and_then(|pfn| frames.binary_search(&pfn).ok()) else {
                continue;
            };
            moved.flags = flags
                .as_ref()
                .and_then(|words| words.get(at))
                .map(|&word| PageFlags::new(word, self.quirks));
            moved.map_count = counts.as_ref().and_then(|words| words.get(at)).copied();
        }
    }
}

#[derive(Clone, Debug)]
enum Answer {
    NotAsked,
    Gone,
    /// One pagemap entry per page of the run.
    Entries(Vec<u64>),
}

/// When the owner had the page for sure: it may be another program when the mapping is in place again.
fn unmapped_at(raw: &MappingMoved) -> Nanos {
    Nanos(if raw.unmapped_at == 0 { raw.at } else { raw.unmapped_at })
}

/// A frame of the wire, so many pages on; 0 is none.
fn frame(first: u64, pages: u64) -> Option<Pfn> {
    (first != 0).then(|| Pfn(first).plus(pages))
}

/// What an entry of the page table says of a page that is expected in `new_pfn`, or on swap.
pub(crate) fn verdict(frame: Frame, new_pfn: Option<Pfn>) -> Verdict {
    match frame {
        Frame::Present(pfn) if Some(pfn) == new_pfn => Verdict::Confirmed,
        Frame::Swapped(_) if new_pfn.is_none() => Verdict::Confirmed,
        // On its way again: the entry shows the frame that it leaves.
        Frame::Present(_) | Frame::Migrating(_) => Verdict::MovedAgain,
        Frame::Hidden => Verdict::Hidden,
        Frame::Swapped(slot) if slot.hidden() => Verdict::Hidden,
        Frame::Swapped(_) => Verdict::SwappedOut,
        Frame::Guard | Frame::None => Verdict::Unmapped,
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        event::{ProcessChange, ProcessSeen},
        filter::membership,
    };

    use super::*;
    use crate::kernel::topology::{Sources, Zone};
    use crate::units::NodeId;

    /// Above any pid_max, so that nothing is found in /proc.
    pub const NOBODY: u32 = 5_000_000;

    pub fn correlator(find_owners: bool) -> Correlator {
        let sources = Sources {
            zones: vec![Zone {
                node: NodeId(0),
                start: Pfn(0),
                spanned: 1,
                present: 1,
            }],
            ..Sources::default()
        };
        let topology = Topology::from_sources(&sources).unwrap();
        let processes = Processes::new(membership::COMM, BTreeMap::from([(Tgid(NOBODY), membership::COMM)]));
        Correlator::new(processes, topology, KernelNames::default(), find_owners, false)
    }

    #[test]
    fn runs_before_a_change_of_who_is_wanted_are_judged_by_themselves() {
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
        let mut searching = correlator(true);
        let (first, rest) = searching.name(&batch, &mut Vec::new(), &mut Vec::new());
        assert_eq!((first.len(), rest.len()), (2, 2));
        assert!(searching.processes.wants(Tgid(NOBODY)));
        let (second, rest) = searching.name(rest, &mut Vec::new(), &mut Vec::new());
        assert_eq!((second.len(), rest.len()), (1, 0));
        assert!(!searching.processes.wants(Tgid(NOBODY)));
        // The kernel side has judged already.
        let (_, rest) = correlator(false).name(&batch, &mut Vec::new(), &mut Vec::new());
        assert_eq!(rest.len(), 0);
    }

    #[test]
    fn an_owner_bears_the_name_that_it_had_when_it_was_asked_for() {
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
        let mut correlator = correlator(false);
        correlator.processes.apply(ProcessChange::Renamed, &renamed);
        let mut name = |unmapped_at| {
            let (owner, _) = correlator.owner(&moved(unmapped_at));
            owner.and_then(|(_, task)| task.comm)
        };
        assert_eq!(name(10), None);
        assert_eq!(name(25).as_deref(), Some("reborn"));
        assert_eq!(name(0).as_deref(), Some("reborn"));
    }
}
