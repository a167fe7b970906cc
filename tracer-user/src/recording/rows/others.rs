//! The columns of what is not a move of a page: folios without a mapping, folios that could not be moved, runs of
//! compaction; and back.
//! Input: such an event; its row.

use super::{MAX_PLACES, less_one, node, of, plus_one, turned};
use crate::{
    event::{
        compaction::Compaction,
        failure::{Cause, FailedPlace, Failure, Refs},
        unmapped::{Device, FilePlace, UnmappedMove},
    },
    recording::{
        Damage,
        columns::{
            Codec::{self, Delta, Plain, Runs},
            Rows,
        },
        tables::{Filling, Role, Tables, narrow, some},
    },
    units::{Nanos, Order, PAGE_SHIFT, Pfn, VirtAddr},
};

/// The columns of a folio that moved without a mapping. What may be missing is one more than it is, and 0 where it is.
pub(super) const UNMAPPED_MOVE: [Codec; 14] = [
    Delta, // at
    Runs,  // order
    Delta, // old frame + 1
    Delta, // new frame + 1
    Runs,  // old node + 1
    Runs,  // new node + 1
    Runs,  // reason
    Runs,  // actor
    Runs,  // whether there is a file
    Runs,  // device
    Runs,  // inode
    Delta, // offset, turned
    Runs,  // name
    Runs,  // CPU
];
pub(super) fn unmapped_row(moved: &UnmappedMove, tables: &mut Filling) -> [u64; 14] {
    let file = moved.file.as_ref();
    [
        moved.at.0,
        moved.order.0.into(),
        plus_one(moved.old_pfn.map(|pfn| pfn.0)),
        plus_one(moved.new_pfn.map(|pfn| pfn.0)),
        plus_one(moved.old_node.map(|node| node.0.into())),
        plus_one(moved.new_node.map(|node| node.0.into())),
        tables.reason(&moved.reason),
        tables.task(&moved.actor, Role::Actor),
        file.is_some().into(),
        file.map_or(0, |file| file.dev.0.into()),
        file.map_or(0, |file| file.inode),
        turned(file.map_or(0, |file| file.offset)),
        tables.string(file.and_then(|file| file.name.as_deref())),
        moved.cpu.into(),
    ]
}

pub(super) fn read_unmapped(row: [u64; 14], tables: &Tables) -> Result<UnmappedMove, Damage> {
    let [
        at,
        order,
        old_pfn,
        new_pfn,
        old_node,
        new_node,
        reason,
        actor,
        has_file,
        dev,
        inode,
        offset,
        name,
        cpu,
    ] = row;
    let file = || {
        Ok(FilePlace {
            dev: Device(narrow(dev)?),
            inode,
            offset: offset.rotate_left(PAGE_SHIFT),
            name: tables.string(name)?,
        })
    };
    Ok(UnmappedMove {
        at: Nanos(at),
        order: Order(narrow(order)?),
        old_pfn: less_one(old_pfn).map(Pfn),
        new_pfn: less_one(new_pfn).map(Pfn),
        old_node: node(old_node)?,
        new_node: node(new_node)?,
        reason: tables.reason(reason)?,
        actor: some(tables.task(actor))?,
        file: (has_file != 0).then(file).transpose()?,
        cpu: narrow(cpu)?,
    })
}

/// The columns of a folio that could not be moved.
pub(super) const FAILURE: [Codec; 17] = [
    Delta, // at
    Runs,  // order
    Delta, // frame + 1
    Runs,  // node + 1
    Runs,  // reason
    Runs,  // actor
    Runs,  // mode
    Runs,  // cause
    Runs,  // whether it is inferred
    Runs,  // errno + 1
    Runs,  // attempts
    Runs,  // references + 1
    Runs,  // references expected
    Runs,  // map count + 1
    Runs,  // flags, their names with commas between them
    Runs,  // places
    Runs,  // CPU
];

/// The columns of a mapping of such a folio.
pub(super) const PLACE: [Codec; 4] = [
    Runs,  // owner
    Delta, // address, turned
    Runs,  // mapping
    Runs,  // inferred
];

pub(super) fn failure_row(failure: &Failure, tables: &mut Filling) -> [u64; 17] {
    [
        failure.at.0,
        failure.order.0.into(),
        plus_one(failure.pfn.map(|pfn| pfn.0)),
        plus_one(failure.node.map(|node| node.0.into())),
        tables.reason(&failure.reason),
        tables.task(&failure.actor, Role::Actor),
        tables.string(Some(&failure.mode)),
        failure.cause as u64,
        failure.inferred.into(),
        plus_one(failure.errno.map(Into::into)),
        failure.attempts.into(),
        plus_one(failure.refs.map(|refs| refs.held.into())),
        failure.refs.map_or(0, |refs| refs.expected.into()),
        plus_one(failure.map_count.map(Into::into)),
        tables.string((!failure.flags.is_empty()).then_some(&failure.flags)),
        known_places(failure).len() as u64,
        failure.cpu.into(),
    ]
}

/// Of its mappings those that are recorded.
pub(super) fn known_places(failure: &Failure) -> &[FailedPlace] {
    &failure.places[..failure.places.len().min(MAX_PLACES)]
}

pub(super) fn place_row(place: &FailedPlace, tables: &mut Filling) -> [u64; 4] {
    [
        tables.task(&place.owner, Role::Owner),
        turned(place.vaddr.0),
        tables.vma(place.vma.as_ref()),
        place.inferred.into(),
    ]
}

pub(super) fn read_failure(row: [u64; 17], places: &mut Rows<'_, 4>, tables: &Tables) -> Result<Failure, Damage> {
    let [
        at,
        order,
        pfn,
        node_number,
        reason,
        actor,
        mode,
        cause,
        inferred,
        errno,
        attempts,
        refs,
        expected,
        map_count,
        flags,
        place_count,
        cpu,
    ] = row;
    if place_count > MAX_PLACES as u64 {
        return Err(Damage("it names too many mappings of a folio"));
    }
    let narrow_some = |number| less_one(number).map(narrow).transpose();
    let mut failure = Failure {
        at: Nanos(at),
        order: Order(narrow(order)?),
        pfn: less_one(pfn).map(Pfn),
        node: node(node_number)?,
        reason: tables.reason(reason)?,
        actor: some(tables.task(actor))?,
        mode: some(tables.string(mode))?,
        cause: of(&Cause::ALL, cause)?,
        inferred: inferred != 0,
        errno: narrow_some(errno)?,
        attempts: narrow(attempts)?,
        refs: match narrow_some(refs)? {
            Some(held) => Some(Refs {
                held,
                expected: narrow(expected)?,
            }),
            None => None,
        },
        map_count: narrow_some(map_count)?,
        flags: tables.string(flags)?.unwrap_or_default(),
        places: Vec::new(),
        cpu: narrow(cpu)?,
    };
    for _ in 0..place_count {
        let [owner, vaddr, vma, inferred] = places.take()?;
        failure.places.push(FailedPlace {
            owner: some(tables.task(owner))?,
            vaddr: VirtAddr(vaddr.rotate_left(PAGE_SHIFT)),
            vma: tables.vma(vma)?,
            inferred: inferred != 0,
        });
    }
    Ok(failure)
}

/// The columns of a run of compaction.
pub(super) const COMPACTION: [Codec; 13] = [
    Delta, // at
    Delta, // duration
    Runs,  // actor
    Runs,  // order + 1
    Runs,  // node + 1
    Runs,  // zone
    Runs,  // direct
    Runs,  // sync
    Runs,  // proactive
    Runs,  // result
    Plain, // moved
    Plain, // failed
    Runs,  // CPU
];

pub(super) fn compaction_row(run: &Compaction, tables: &mut Filling) -> [u64; 13] {
    [
        run.at.0,
        run.duration.0,
        tables.task(&run.actor, Role::Actor),
        plus_one(run.order.map(|order| order.0.into())),
        plus_one(run.node.map(|node| node.0.into())),
        tables.string(Some(&run.zone)),
        run.direct.into(),
        run.sync.into(),
        run.proactive.into(),
        tables.string(Some(&run.result)),
        run.moved,
        run.failed,
        run.cpu.into(),
    ]
}

pub(super) fn read_compaction(row: [u64; 13], tables: &Tables) -> Result<Compaction, Damage> {
    let [
        at,
        duration,
        actor,
        order,
        node_number,
        zone,
        direct,
        sync,
        proactive,
        result,
        moved,
        failed,
        cpu,
    ] = row;
    Ok(Compaction {
        at: Nanos(at),
        duration: Nanos(duration),
        actor: some(tables.task(actor))?,
        order: less_one(order).map(|order| narrow(order).map(Order)).transpose()?,
        node: node(node_number)?,
        zone: some(tables.string(zone))?,
        direct: direct != 0,
        sync: sync != 0,
        proactive: proactive != 0,
        result: some(tables.string(result))?,
        moved,
        failed,
        cpu: narrow(cpu)?,
    })
}
