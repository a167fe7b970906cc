//! The line of a folio that could not be moved.
//! Input: such an event.

use serde::Serialize;

use crate::{
    event::failure::{self, Failure},
    sink::json::objects::{Hex, VmaObject, name},
};

#[derive(Serialize)]
struct PlaceObject<'a> {
    pid: u32,
    comm: Option<&'a str>,
    vaddr: Hex,
    vma: Option<VmaObject<'a>>,
    inferred: bool,
}

#[derive(Serialize)]
pub(super) struct FailureLine<'a> {
    kind: &'static str,
    ts_ns: u64,
    pages: u64,
    order: u8,
    pfn: Option<Hex>,
    node: Option<u32>,
    reason: String,
    mode: &'a str,
    cause: &'static str,
    inferred: bool,
    errno: Option<u32>,
    attempts: u32,
    refs: Option<u32>,
    expected_refs: Option<u32>,
    map_count: Option<u32>,
    flags: Vec<&'a str>,
    owners: Vec<PlaceObject<'a>>,
    actor_pid: u32,
    actor_tid: u32,
    actor_comm: Option<&'a str>,
    cpu: u16,
}

impl<'a> From<&'a Failure> for FailureLine<'a> {
    fn from(event: &'a Failure) -> Self {
        Self {
            kind: "failure",
            ts_ns: event.at.0,
            pages: event.order.pages(),
            order: event.order.0,
            pfn: event.pfn.map(|pfn| Hex(pfn.0)),
            node: event.node.map(|node| node.0),
            reason: event.reason.to_string(),
            mode: &event.mode,
            cause: failure::cause_name(event.cause),
            inferred: event.inferred,
            errno: event.errno,
            attempts: event.attempts,
            refs: event.refs.map(|refs| refs.held),
            expected_refs: event.refs.map(|refs| refs.expected),
            map_count: event.map_count,
            flags: event.flag_names().collect(),
            owners: event
                .places
                .iter()
                .map(|place| PlaceObject {
                    pid: place.owner.tgid.0,
                    comm: name(&place.owner),
                    vaddr: Hex(place.vaddr.0),
                    vma: place.vma.as_deref().map(VmaObject::from),
                    inferred: place.inferred,
                })
                .collect(),
            actor_pid: event.actor.tgid.0,
            actor_tid: event.actor.tid.0,
            actor_comm: name(&event.actor),
            cpu: event.cpu,
        }
    }
}
