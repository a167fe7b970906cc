//! A recording of made-up moves as compaction and gigantic pages cause them: many pages, one after the other.
//! Input: the file, or - to encode without a file; the number of events.

use std::borrow::Borrow;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

use super::protocol::{Workload, say};
use crate::product::{
    Event, Files, Header, Move, Nanos, NodeId, Order, OwnerSource, Perms, Pfn, Reason, Sink, Store, Summary, Sync,
    Task, Tgid, Tid, Verdict, VirtAddr, Vma, Writer,
};

pub const WORKLOAD: Workload = Workload {
    name: "bulk",
    what: "bulk FILE EVENTS: records EVENTS made-up moves of neighbouring pages; with -, reports the ns and bytes that this takes",
    run,
};

/// The number of events in one look at the ring, every 10 ms.
const TURN: usize = 6_000;
/// The number of pages that the kernel unmaps before it maps them again.
const BATCH: u64 = 32;
/// The number of pages of a mapping that move in a row.
const ROW: u64 = 2_048;
const PROCESSES: usize = 8;
const MAPPINGS: usize = 4;
/// The number of frames in 16 GiB.
const FRAMES: u64 = 1 << 22;
const BEGUN: Nanos = Nanos(1_000_000_000);
/// The number of events that are made before the clock starts, so that only encoding is measured.
const AHEAD: usize = 1 << 18;

fn run(args: &[String]) -> Result<()> {
    let [path, events] = args else {
        bail!("usage: bulk FILE EVENTS")
    };
    let events: usize = events.parse().context("parse EVENTS")?;
    let mut moves = Moves::new();
    if path != "-" {
        let mut sink = Writer::new(Files::create(Path::new(path), true, None, Sync::Never)?)?;
        return record(&mut sink, moves.take(events)).context("record");
    }
    let ahead: Vec<Event> = moves.by_ref().take(AHEAD).collect();
    let mut bytes = 0;
    let began = cpu();
    let mut sink = Writer::new(Counter(&mut bytes))?;
    record(&mut sink, ahead.iter().cycle().take(events)).context("encode")?;
    let took = cpu() - began;
    drop(sink);
    say(&format!("{took} {bytes}"))
}

fn record(sink: &mut impl Sink, events: impl Iterator<Item = impl Borrow<Event>>) -> io::Result<()> {
    sink.begin(&Header {
        nodes: 1,
        begun: BEGUN,
        ..Header::unknown()
    })?;
    for (event, come) in events.zip(1usize..) {
        sink.event(event.borrow())?;
        if come.is_multiple_of(TURN) {
            sink.flush()?;
        }
    }
    sink.finish(&Summary::default())
}

/// CPU time of this process, ns.
fn cpu() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // The clock counts from the process's start.
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// An endless iterator of moves.
struct Moves {
    tasks: Vec<Task>,
    mappings: Vec<Arc<Vma>>,
    actor: Task,
    reason: Reason,
    random: u64,
    at: u64,
    /// The number of moves so far.
    count: u64,
    old_pfn: u64,
    new_pfn: u64,
    cpu: u16,
}

impl Moves {
    fn new() -> Self {
        let task = |pid, comm: &str| Task {
            tgid: Tgid(pid),
            tid: Tid(pid),
            comm: Some(Arc::from(comm)),
        };
        let mapping = |number: u64| {
            let start = 0x7f00_0000_0000 + (number << 32);
            Arc::new(Vma {
                start: VirtAddr(start),
                end: VirtAddr(start + (1 << 32)),
                perms: Perms::from_bytes(b"rw-p").expect("four letters of maps"),
                offset: 0,
                dev: (0, 0),
                inode: 0,
                name: Arc::from(""),
            })
        };
        Self {
            tasks: (0..PROCESSES)
                .map(|number| task(4_000 + number as u32, "made up"))
                .collect(),
            mappings: (0..(PROCESSES * MAPPINGS) as u64).map(mapping).collect(),
            actor: task(57, "kcompactd0"),
            reason: Reason {
                number: 0,
                name: Some(Arc::from("compaction")),
            },
            random: 0x9e37_79b9_7f4a_7c15,
            at: BEGUN.0,
            count: 0,
            old_pfn: 1 << 20,
            new_pfn: 1 << 22,
            cpu: 0,
        }
    }

    /// A random number below `end` (xorshift64).
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }
}

impl Iterator for Moves {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let (row, of_row, of_batch) = (self.count / ROW, self.count % ROW, self.count % BATCH);
        if of_batch == 0 {
            // The kernel unmaps the whole batch first.
            self.at += 250 * BATCH + self.below(2_000);
            self.cpu = u16::from(self.below(8) == 0);
        }
        self.at += 700 + self.below(400);
        // Frames come in pieces; target frames come in smaller ones.
        self.old_pfn += 1;
        self.new_pfn += 1;
        if self.below(64) == 0 {
            self.old_pfn = self.below(FRAMES);
        }
        if self.below(16) == 0 {
            self.new_pfn = self.below(FRAMES);
        }
        let mapping = (row % self.mappings.len() as u64) as usize;
        let round = row / self.mappings.len() as u64;
        let vma = self.mappings[mapping].clone();
        let page = (round * ROW + of_row) % (1 << 20);
        let event = Move {
            at: Nanos(self.at),
            owner: Some(self.tasks[mapping % PROCESSES].clone()),
            owner_source: OwnerSource::Kernel,
            vaddr: vma.start.plus_pages(page),
            pages: 1,
            order: Order(0),
            old_pfn: Some(Pfn(self.old_pfn)),
            new_pfn: Some(Pfn(self.new_pfn)),
            old_node: Some(NodeId(0)),
            new_node: Some(NodeId(0)),
            reason: Some(self.reason.clone()),
            actor: Some(self.actor.clone()),
            blackout: Some(Nanos(250 * (BATCH - of_batch) + 900 * of_batch + self.below(500))),
            vma: Some(vma),
            verdict: Verdict::Confirmed,
            flags: None,
            map_count: None,
            ambiguous: false,
            nth: Some(1),
            cpu: self.cpu,
        };
        self.count += 1;
        Some(Event::Move(event))
    }
}

/// A writer that counts its bytes and discards them.
struct Counter<'a>(&'a mut u64);

impl Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        *self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store for Counter<'_> {}
