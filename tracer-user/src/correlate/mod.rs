//! Raw events plus the answers of /proc make events: owner, VMA, nodes, verdict, page flags.
//! Input: batches from `decode`, in the order of the ring.

pub mod owners;
pub mod processes;
pub mod spaces;

use std::collections::BTreeMap;

use tracer_common::event::{MappingMoved, mapping_flags};

use crate::{
    correlate::{
        owners::Owners,
        processes::{Life, Processes},
        spaces::Spaces,
    },
    decode::Raw,
    event::{Event, Move, OwnerSource, ReasonNames, Task, Verdict},
    kernel::topology::Topology,
    proc::{
        kpage::{FrameFile, KpfQuirks, PageFlags},
        pagemap::{Frame, LookupError},
    },
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

/// What was dropped or could not be answered here. Base pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Runs whose owner nobody could be found for.
    pub unattributed_pages: u64,
    /// Of those owners, pages nobody asked about because reading had fallen behind.
    pub not_asked_pages: u64,
    /// Tracepoint backend, which filters here: runs of other processes than the wanted ones.
    pub filtered_pages: u64,
    /// Tracepoint backend: runs dropped because nobody looked for their owners.
    pub unsearched_pages: u64,
    /// Tracepoint backend: runs that became events.
    pub reported_pages: u64,
}

/// Turns raw events into events.
pub struct Correlator {
    /// Who is who.
    pub processes: Processes,
    spaces: Spaces,
    owners: Option<Owners>,
    topology: Topology,
    reasons: ReasonNames,
    flags: Option<FrameFile>,
    counts: Option<FrameFile>,
    quirks: KpfQuirks,
    /// What was dropped or not answered so far.
    pub losses: Losses,
}

impl Correlator {
    /// `find_owners`: the raw events come without owners (tracepoint backend).
    /// What /proc does not offer is missing from the events; the caller says so once.
    #[must_use]
    pub fn new(processes: Processes, topology: Topology, reasons: ReasonNames, find_owners: bool) -> Self {
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
            reasons,
            flags,
            counts,
            quirks,
            losses: Losses::default(),
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
        let mut pending = self.name(batch);
        if let Some(owners) = &mut self.owners {
            if ask {
                owners.find(&mut pending, &mut self.processes, &mut self.spaces);
            }
            self.keep_wanted(&mut pending, ask);
            self.losses.reported_pages += pending.iter().map(|run| u64::from(run.raw.pages)).sum::<u64>();
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
        self.processes.bury();
    }

    /// Takes in the process events, and names owner and actor of each run as of that moment.
    fn name(&mut self, batch: &[Raw]) -> Vec<Pending> {
        let mut pending = Vec::with_capacity(batch.len());
        for raw in batch {
            match raw {
                Raw::Process(change, seen) => {
                    if let Some(tgid) = self.processes.apply(*change, seen) {
                        self.spaces.forget(tgid);
                    }
                }
                Raw::Mapping(raw) => {
                    let actor = self.processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid));
                    let owner = (raw.owner_tgid != 0).then_some(Tgid(raw.owner_tgid));
                    pending.push(Pending {
                        raw: *raw,
                        owner: owner.map(|tgid| self.processes.life(tgid)),
                        source: match owner {
                            None => OwnerSource::Unknown,
                            Some(_) if raw.flags & mapping_flags::OWNER_EXITING != 0 => OwnerSource::KernelExiting,
                            Some(_) => OwnerSource::Kernel,
                        },
                        owner_task: owner.map(|tgid| self.processes.process(tgid)),
                        actor,
                        verdict: None,
                    });
                }
            }
        }
        pending
    }

    /// Drops runs of processes that nobody asked for.
    fn keep_wanted(&mut self, pending: &mut Vec<Pending>, searched: bool) {
        let Some(targets) = self.processes.targets() else {
            return;
        };
        let losses = &mut self.losses;
        pending.retain(|run| match run.owner {
            Some(owner) if targets.contains(&owner.tgid) => true,
            Some(_) => {
                losses.filtered_pages += u64::from(run.raw.pages);
                false
            }
            // It may have been a wanted process's page that is gone already, or anybody's.
            None => {
                let count = if searched {
                    &mut losses.unattributed_pages
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
                self.losses.unattributed_pages += pages;
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
                reason: self.reasons.get(raw.reason),
                actor: run.actor.clone(),
                blackout: (raw.unmapped_at != 0).then(|| Nanos(raw.at).since(Nanos(raw.unmapped_at))),
                vma: vma.clone(),
                verdict,
                flags: None,
                map_count: None,
                ambiguous: raw.flags & mapping_flags::AMBIGUOUS != 0,
                cpu: raw.cpu,
            }));
        }
    }

    /// Adds flags and map counts of frames that still hold the page.
    fn add_frame_facts(&self, events: &mut [Event]) {
        let mut frames: Vec<Pfn> = events
            .iter()
            .map(|Event::Move(moved)| moved)
            .filter(|moved| moved.verdict == Verdict::Confirmed)
            .filter_map(|moved| moved.new_pfn)
            .collect();
        frames.sort_unstable();
        frames.dedup();
        let read = |file: &Option<FrameFile>| {
            let mut words = Vec::new();
            let answer = file.as_ref()?.lookup(&frames, &mut words);
            answer.map_err(|e| log::debug!("{e}")).ok().map(|()| words)
        };
        let (flags, counts) = (read(&self.flags), read(&self.counts));
        for Event::Move(moved) in events {
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
