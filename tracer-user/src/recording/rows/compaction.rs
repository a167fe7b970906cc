//! The columns of a pass of compaction over a zone, and back.
//! Input: such an event; its row.

use super::numbers::{less_one, node, plus_one};
use crate::{
    event::compaction::Compaction,
    recording::{
        Damage,
        columns::Codec::{self, Delta, Plain, Runs},
        tables::{Filling, Role, Tables, narrow, some},
    },
    units::{Nanos, Order},
};

/// The columns of a pass of compaction.
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

pub(super) fn compaction_row(pass: &Compaction, tables: &mut Filling) -> [u64; 13] {
    [
        pass.at.0,
        pass.duration.0,
        tables.task(&pass.actor, Role::Actor),
        plus_one(pass.order.map(|order| order.0.into())),
        plus_one(pass.node.map(|node| node.0.into())),
        tables.string(Some(&pass.zone)),
        pass.direct.into(),
        pass.sync.into(),
        pass.proactive.into(),
        tables.string(Some(&pass.result)),
        pass.moved,
        pass.failed,
        pass.cpu.into(),
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
