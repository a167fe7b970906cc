//! A recording of made-up events, written as tracer writes it, until it is killed or complete.
//! Input: the file, its largest size, and the number of full files that are kept.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::protocol::{Workload, say};
use crate::product::{
    Event, Files, Header, Limit, Move, Nanos, NodeId, Order, OwnerSource, Pfn, Reason, Sink, Summary, Sync, Task, Tgid,
    Tid, Verdict, VirtAddr, Writer, now,
};

pub const WORKLOAD: Workload = Workload {
    name: "recorder",
    what: "recorder FILE EVENTS [SIZE KEEP]: records EVENTS made-up events (0: without end), the Nth at address N pages",
    run,
};

/// The pipeline looks at the ring in this interval.
const TURN: Duration = Duration::from_millis(10);
/// The number of events in a turn.
const EVENTS: u64 = 50;

fn run(args: &[String]) -> Result<()> {
    let [path, events, limit @ ..] = args else {
        bail!("usage: recorder FILE EVENTS [SIZE KEEP]")
    };
    let events: u64 = events.parse().context("parse EVENTS")?;
    let limit = match limit {
        [size, keep] => Some(Limit {
            size: size.parse().context("parse SIZE")?,
            keep: keep.parse().context("parse KEEP")?,
        }),
        _ => None,
    };
    let mut sink = Writer::new(Files::create(Path::new(path), false, limit, Sync::Never)?)?;
    sink.begin(&Header {
        begun: now(),
        ..Header::unknown()
    })?;
    say("begun")?;
    let written = write(&mut sink, events);
    // The sink is finished after every outcome, as in the pipeline.
    let finished = sink.finish(&Summary::default());
    written.and(finished).context("record")
}

fn write(sink: &mut impl Sink, events: u64) -> std::io::Result<()> {
    let (task, mut next) = (task(), Instant::now());
    for number in 1.. {
        sink.event(&made_up(number, &task))?;
        if number % EVENTS == 0 {
            sink.flush()?;
            next += TURN;
            // An endless recording is limited by time, any other by its number of events.
            if events == 0 {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
        if number == events {
            break;
        }
    }
    Ok(())
}

fn task() -> Task {
    Task {
        tgid: Tgid(4711),
        tid: Tid(4711),
        comm: Some(Arc::from("made up")),
    }
}

fn made_up(number: u64, task: &Task) -> Event {
    // The value has no pattern, so that it takes room.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let scattered = (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40;
    Event::Move(Move {
        at: now(),
        owner: Some(task.clone()),
        owner_source: OwnerSource::Kernel,
        vaddr: VirtAddr(number << 12),
        pages: 1,
        order: Order(0),
        old_pfn: Some(Pfn(scattered)),
        new_pfn: Some(Pfn(scattered ^ 0xff_ffff)),
        old_node: Some(NodeId(0)),
        new_node: Some(NodeId(1)),
        reason: Some(Reason {
            number: 0,
            name: Some(Arc::from("compaction")),
        }),
        actor: Some(task.clone()),
        blackout: Some(Nanos(scattered)),
        vma: None,
        verdict: Verdict::Confirmed,
        flags: None,
        map_count: None,
        ambiguous: false,
        nth: Some(1),
        cpu: 0,
    })
}
