//! Made-up recordings of three machines: every kind of event, unknown values, hostile names, a midnight.
//! Input: the directory. There is no other, so that the recordings are always the same.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::protocol::Workload;
use crate::product::{
    Cause, Compaction, Device, Event, FailedPlace, Failure, FilePlace, Files, Header, Move, Nanos, NodeId, Order,
    OwnerSource, Pfn, Reason, Summary, Sync, Task, Tgid, Tid, Totals, UnmappedMove, Verdict, VirtAddr, Writer,
};

pub const WORKLOAD: Workload = Workload {
    name: "fleet",
    what: "fleet DIR: writes made-up recordings of three hosts, DIR/HOST.data",
    run,
};

const HOSTS: [(&str, &str); 3] = [
    ("db-1", "11111111-54ad-4aa4-9b2e-0d1a5fbf5e0c"),
    ("db-2", "22222222-54ad-4aa4-9b2e-0d1a5fbf5e0c"),
    ("web/3", "33333333-54ad-4aa4-9b2e-0d1a5fbf5e0c"),
];
/// The number of moves of the first machine; the others have more.
const MOVES: u64 = 20_000;
/// The time between two events.
const STEP: u64 = 1_000_000;
/// 2026-03-01T23:59:50Z, ten seconds before a midnight, is this long after 1970.
const BEGUN: i128 = 1_772_409_590_000_000_000;

fn run(args: &[String]) -> Result<()> {
    let [dir] = args else { bail!("usage: fleet DIR") };
    for ((host, boot_id), number) in HOSTS.into_iter().zip(1..) {
        let path = Path::new(dir).join(format!("{}.data", host.replace('/', "-")));
        let begun = Nanos(number * 1_000_000_000_000);
        let header = Header {
            host: host.to_owned(),
            boot_id: boot_id.to_owned(),
            kernel: format!("6.{number}.0"),
            begun,
            clock_offset: BEGUN - i128::from(begun.0),
            ..Header::unknown()
        };
        record(&path, &header, MOVES * number).with_context(|| format!("record {}", path.display()))?;
    }
    Ok(())
}

fn record(path: &Path, header: &Header, moves: u64) -> Result<()> {
    let mut sink = Writer::new(Files::create(path, false, None, Sync::Never)?)?;
    sink.begin(header)?;
    let mut totals = Totals::default();
    for number in 0..moves {
        let at = Nanos(header.begun.0 + number * STEP);
        let event = match number % 100 {
            97 => Event::Unmapped(unmapped(number, at)),
            98 => Event::Failure(failure(number, at)),
            99 => Event::Compaction(compaction(number, at)),
            _ => Event::Move(moved(number, at)),
        };
        totals.add(&event);
        sink.event(&event)?;
    }
    sink.finish(&Summary {
        duration: Nanos(moves * STEP),
        totals,
        ..Summary::default()
    })?;
    Ok(())
}

fn task(number: u64) -> Task {
    let tgid = 100 + u32::try_from(number % 7).unwrap_or_default();
    let comm = match tgid {
        100 => None,
        101 => Some("a\"b,c;d\n\u{1b}[31m".to_owned()),
        _ => Some(format!("worker-{tgid}")),
    };
    Task {
        tgid: Tgid(tgid),
        tid: Tid(tgid + 1000),
        comm: comm.map(Arc::from),
    }
}

fn reason(number: u64) -> Reason {
    let names = ["compaction", "numa_misplaced", "demotion"];
    match number % 4 {
        3 => Reason { number: 77, name: None },
        known => Reason {
            number: u8::try_from(known).unwrap_or_default(),
            name: names
                .into_iter()
                .nth(usize::try_from(known).unwrap_or_default())
                .map(Arc::from),
        },
    }
}

/// Replaces every `every`th value by None, as unknown.
fn known<T>(number: u64, every: u64, value: T) -> Option<T> {
    (!number.is_multiple_of(every)).then_some(value)
}

fn moved(number: u64, at: Nanos) -> Move {
    let order = u8::try_from(number % 10).unwrap_or_default();
    let owner = known(number, 11, task(number));
    Move {
        at,
        owner_source: if owner.is_some() {
            OwnerSource::Kernel
        } else {
            OwnerSource::Unknown
        },
        owner,
        // Some addresses are in the upper half, which no signed number holds.
        vaddr: VirtAddr(number << 12 | number << 63),
        pages: 1 << order,
        order: Order(order),
        old_pfn: known(number, 13, Pfn(number * 3)),
        new_pfn: known(number, 17, Pfn(number * 5)),
        old_node: known(number, 13, NodeId(0)),
        new_node: known(number, 17, NodeId(1)),
        reason: known(number, 19, reason(number)),
        actor: known(number, 19, task(number / 7)),
        blackout: known(number, 5, Nanos(number % 1000 * 100)),
        vma: None,
        verdict: Verdict::Confirmed,
        flags: None,
        map_count: known(number, 3, 1),
        ambiguous: number.is_multiple_of(2),
        nth: known(number, 19, 1),
        cpu: u16::try_from(number % 64).unwrap_or_default(),
    }
}

fn unmapped(number: u64, at: Nanos) -> UnmappedMove {
    UnmappedMove {
        at,
        order: Order(2),
        old_pfn: Some(Pfn(number)),
        new_pfn: Some(Pfn(number + 4)),
        old_node: Some(NodeId(0)),
        new_node: Some(NodeId(1)),
        reason: reason(number),
        actor: task(number),
        file: known(
            number / 100,
            4,
            FilePlace {
                dev: Device(8 << 20 | 1),
                inode: number,
                offset: number << 12,
                name: Some(Arc::from("base.db\n\u{1b}[31m")),
            },
        ),
        cpu: 0,
    }
}

fn failure(number: u64, at: Nanos) -> Failure {
    let place = FailedPlace {
        owner: task(number),
        vaddr: VirtAddr(number << 12),
        vma: None,
        inferred: true,
    };
    Failure {
        at,
        order: Order(0),
        pfn: Some(Pfn(number)),
        node: Some(NodeId(0)),
        reason: reason(number),
        actor: task(number / 7),
        mode: "sync".into(),
        cause: Cause::Locked,
        inferred: true,
        errno: known(number, 3, 11),
        attempts: 10,
        refs: None,
        map_count: Some(1),
        flags: Arc::from("locked,lru"),
        // There are none, one or two.
        places: vec![place; usize::try_from(number / 100 % 3).unwrap_or_default()],
        cpu: 0,
    }
}

fn compaction(number: u64, at: Nanos) -> Compaction {
    Compaction {
        at,
        duration: Nanos(number),
        actor: task(number),
        order: known(number, 3, Order(9)),
        node: Some(NodeId(1)),
        zone: Arc::from("Normal"),
        direct: number.is_multiple_of(3),
        sync: true,
        proactive: false,
        result: Arc::from("success"),
        moved: 32,
        failed: 1,
        cpu: 0,
    }
}
