//! The columns of a folio that moved without a mapping, and back.
//! Input: such an event; its row.

use super::numbers::{less_one, node, plus_one, turned};
use crate::{
    event::unmapped::{Device, FilePlace, UnmappedMove},
    recording::{
        Damage,
        columns::Codec::{self, Delta, Runs},
        tables::{Filling, Role, Tables, narrow, some},
    },
    units::{Nanos, Order, PAGE_SHIFT, Pfn},
};

/// The columns of a folio that moved without a mapping. An optional value is stored plus one, and as 0 if missing.
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
        reason: some(tables.reason(reason))?,
        actor: some(tables.task(actor))?,
        file: (has_file != 0).then(file).transpose()?,
        cpu: narrow(cpu)?,
    })
}
