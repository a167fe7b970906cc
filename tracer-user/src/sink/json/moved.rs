//! The line of a move of mapped pages.
//! Input: such an event.

use serde::Serialize;

use crate::{
    event::{Move, Reason},
    sink::json::objects::{Hex, VmaObject, name},
};

#[derive(Serialize)]
pub(super) struct MoveLine<'a> {
    kind: &'static str,
    ts_ns: u64,
    pid: Option<u32>,
    comm: Option<&'a str>,
    vaddr: Hex,
    pages: u64,
    order: u8,
    old_pfn: Option<Hex>,
    new_pfn: Option<Hex>,
    old_node: Option<u32>,
    new_node: Option<u32>,
    reason: Option<String>,
    actor_pid: Option<u32>,
    actor_tid: Option<u32>,
    actor_comm: Option<&'a str>,
    blackout_ns: Option<u64>,
    vma: Option<VmaObject<'a>>,
    verdict: &'static str,
    owner_source: Option<&'static str>,
    cpu: u16,
    flags: Option<Vec<&'static str>>,
    map_count: Option<u64>,
    ambiguous: bool,
    nth: Option<u8>,
}

impl<'a> From<&'a Move> for MoveLine<'a> {
    fn from(moved: &'a Move) -> Self {
        Self {
            kind: "move",
            ts_ns: moved.at.0,
            pid: moved.owner.as_ref().map(|owner| owner.tgid.0),
            comm: moved.owner.as_ref().and_then(name),
            vaddr: Hex(moved.vaddr.0),
            pages: moved.pages,
            order: moved.order.0,
            old_pfn: moved.old_pfn.map(|pfn| Hex(pfn.0)),
            new_pfn: moved.new_pfn.map(|pfn| Hex(pfn.0)),
            old_node: moved.old_node.map(|node| node.0),
            new_node: moved.new_node.map(|node| node.0),
            reason: moved.reason.as_ref().map(Reason::to_string),
            actor_pid: moved.actor.as_ref().map(|actor| actor.tgid.0),
            actor_tid: moved.actor.as_ref().map(|actor| actor.tid.0),
            actor_comm: moved.actor.as_ref().and_then(name),
            blackout_ns: moved.blackout.map(|blackout| blackout.0),
            vma: moved.vma.as_deref().map(VmaObject::from),
            verdict: moved.verdict.name(),
            owner_source: moved.owner_source.name(),
            cpu: moved.cpu,
            flags: moved.flags.map(|flags| flags.names().collect()),
            map_count: moved.map_count,
            ambiguous: moved.ambiguous,
            nth: moved.nth,
        }
    }
}
