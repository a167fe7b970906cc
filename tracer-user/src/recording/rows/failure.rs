//! The columns of a folio that could not be moved and of its mappings, and back.
//! Input: such an event; its row, and those of its mappings.

use tracer_common::event::FAILED_MAPPINGS;

use super::numbers::{less_one, node, of, plus_one, turned};
use crate::{
    event::failure::{Cause, FailedPlace, Failure, Refs},
    recording::{
        Damage,
        columns::{
            Codec::{self, Delta, Runs},
            Rows,
        },
        tables::{Filling, Role, Tables, narrow, some},
    },
    units::{Nanos, Order, PAGE_SHIFT, Pfn, VirtAddr},
};

/// The most mappings that are recorded of a folio that could not be moved. The kernel side sends fewer.
pub(super) const MAX_PLACES: usize = 16;
const _: () = assert!(FAILED_MAPPINGS <= MAX_PLACES);

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

/// Its mappings that are recorded.
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
        reason: some(tables.reason(reason))?,
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
