//! Correlation allocates no memory for an event: it keeps the memory of a batch for the next one.
//! Input: made-up records of moves of this process's own pages; an allocator that counts.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
};

use tracer_common::{
    event::{MappingMoved, ProcessChange, ProcessSeen},
    filter::membership,
};
use tracer_user::{
    correlate::{Correlator, processes::Processes},
    decode::Raw,
    event::{Event, KernelNames, Names},
    kernel::{
        clock::now,
        topology::{Sources, Topology, Zone},
    },
    proc::pagemap::{Frame, Pagemap},
    units::{NodeId, PAGE_SHIFT, PAGE_SIZE, Pfn, Tgid, VirtAddr},
};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    TAKEN.set(TAKEN.get() + 1);
}

// SAFETY: every request is passed on unchanged to `System`, which fulfils the contract. The counter is a constant
// without a destructor, so that access to it allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that `System` requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above; the block is from `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; the block is from `System`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Replaces a frame that this process may not know.
const HIDDEN: u64 = 1 << 20;
/// Moves in a batch.
const PAGES: usize = 4096;

fn correlator(find_owners: bool) -> Correlator {
    let sources = Sources {
        zones: vec![Zone {
            node: NodeId(0),
            start: Pfn(0),
            spanned: 1 << 30,
            present: 1 << 30,
        }],
        ..Sources::default()
    };
    let topology = Topology::from_sources(&sources).unwrap();
    let reasons = Names::reasons([("MR_COMPACTION", 0)].into_iter());
    let names = KernelNames {
        reasons,
        compact_results: Names::new([("COMPACT_SUCCESS", 0)].into_iter(), |name| Some(name.to_owned())),
        ..KernelNames::default()
    };
    // This process owns everything.
    let members = BTreeMap::from([(Tgid(std::process::id()), membership::COMM)]);
    Correlator::new(
        Processes::new(membership::COMM, members),
        topology,
        names,
        find_owners,
        false,
    )
}

/// The name of this process, as the kernel side reports it.
fn named(change: ProcessChange) -> Raw {
    let own = std::process::id();
    let seen = ProcessSeen {
        tgid: own,
        tid: own,
        comm: *b"mover\0\0\0\0\0\0\0\0\0\0\0",
        membership: membership::COMM,
        ..ProcessSeen::default()
    };
    Raw::Process(change, seen)
}

/// Moves each page of `memory` to its present frame, some of them as ranges of pages.
fn moves(memory: &[u8], owner_tgid: u32) -> Vec<Raw> {
    let own = std::process::id();
    let first = VirtAddr((memory.as_ptr().addr() as u64).next_multiple_of(PAGE_SIZE));
    let now = now().0;
    let mut entries = vec![0; PAGES];
    let pagemap = Pagemap::open(Tgid(own)).unwrap();
    assert_eq!(pagemap.read_range(first, &mut entries).unwrap(), PAGES);
    let moves = (0..).zip(&entries).map(|(page, &entry)| {
        let new_pfn = match Frame::decode(entry) {
            Frame::Present(pfn) => pfn.0,
            _ => HIDDEN,
        };
        Raw::Mapping(MappingMoved {
            vaddr: first.plus_pages(page).0,
            old_pfn: new_pfn + (1 << 30),
            new_pfn,
            pages: if page % 16 == 8 { 8 } else { 1 },
            unmapped_at: now + page + 1,
            at: now + page + 2,
            owner_tgid,
            actor_tgid: own,
            actor_tid: own,
            ..MappingMoved::default()
        })
    });
    moves.collect()
}

/// Makes the batch a second later.
fn later(batch: &mut [Raw]) {
    for raw in batch {
        if let Raw::Mapping(raw) = raw {
            raw.unmapped_at += 1_000_000_000;
            raw.at += 1_000_000_000;
        }
    }
}

/// The allocations of the quietest of several batches, because names and mappings are read again once a second.
fn allocations(correlator: &mut Correlator, mut batch: Vec<Raw>) -> u64 {
    let mut events: Vec<Event> = Vec::new();
    let mut turn = || {
        events.clear();
        later(&mut batch);
        let before = TAKEN.get();
        correlator.batch(&batch, true, &mut events);
        TAKEN.get() - before
    };
    // The kept buffers have reached their size after these.
    for _ in 0..3 {
        turn();
    }
    let quietest = (0..10).map(|_| turn()).min();
    // The search finds an owner only if this process may know its frames.
    let Some(Raw::Mapping(first)) = batch.first() else {
        unreachable!()
    };
    assert!(
        events.len() >= batch.len() || first.new_pfn == HIDDEN,
        "{} events",
        events.len()
    );
    quietest.unwrap()
}

fn memory() -> Vec<u8> {
    vec![1; (PAGES + 1) << PAGE_SHIFT]
}

#[test]
fn moves_of_known_owners_allocate_nothing() {
    let memory = memory();
    let mut correlator = correlator(false);
    let begin = [named(ProcessChange::Fork), named(ProcessChange::Actor)];
    correlator.batch(&begin, true, &mut Vec::new());
    let batch = moves(&memory, std::process::id());
    assert_eq!(allocations(&mut correlator, batch), 0);
}

#[test]
fn moves_whose_owners_are_searched_allocate_nothing() {
    let memory = memory();
    let mut correlator = correlator(true);
    correlator.batch(&[named(ProcessChange::Actor)], true, &mut Vec::new());
    assert_eq!(allocations(&mut correlator, moves(&memory, 0)), 0);
}

#[test]
fn moves_of_a_process_that_is_gone_ask_for_its_name_once() {
    /// Above any pid_max.
    const NOBODY: u32 = 5_000_000;
    let memory = memory();
    let mut correlator = correlator(false);
    let taken = allocations(&mut correlator, moves(&memory, NOBODY));
    assert!(taken < 100, "{taken}");
}
