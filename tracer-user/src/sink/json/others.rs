//! The lines of what is not a page's move: folios nobody maps, folios that could not be moved, runs of compaction.
//! Input: events.

use serde::Serialize;

use super::{Hex, VmaObject, name};
use crate::event::{
    compaction::Compaction,
    failure::{self, Failure},
    unmapped::UnmappedMove,
};

#[derive(Serialize)]
struct FileObject<'a> {
    dev: String,
    inode: u64,
    offset: u64,
    name: Option<&'a str>,
}

#[derive(Serialize)]
pub struct UnmappedLine<'a> {
    kind: &'static str,
    ts_ns: u64,
    pages: u64,
    order: u8,
    old_pfn: Option<Hex>,
    new_pfn: Option<Hex>,
    old_node: Option<u32>,
    new_node: Option<u32>,
    reason: String,
    actor_pid: u32,
    actor_tid: u32,
    actor_comm: Option<&'a str>,
    file: Option<FileObject<'a>>,
    cpu: u16,
}

impl<'a> From<&'a UnmappedMove> for UnmappedLine<'a> {
    fn from(event: &'a UnmappedMove) -> Self {
        Self {
            kind: "unmapped_move",
            ts_ns: event.at.0,
            pages: event.order.pages(),
            order: event.order.0,
            old_pfn: event.old_pfn.map(|pfn| Hex(pfn.0)),
            new_pfn: event.new_pfn.map(|pfn| Hex(pfn.0)),
            old_node: event.old_node.map(|node| node.0),
            new_node: event.new_node.map(|node| node.0),
            reason: event.reason.to_string(),
            actor_pid: event.actor.tgid.0,
            actor_tid: event.actor.tid.0,
            actor_comm: name(&event.actor),
            file: event.file.as_ref().map(|file| FileObject {
                dev: file.dev.to_string(),
                inode: file.inode,
                offset: file.offset,
                name: file.name.as_deref(),
            }),
            cpu: event.cpu,
        }
    }
}

#[derive(Serialize)]
struct PlaceObject<'a> {
    pid: u32,
    comm: Option<&'a str>,
    vaddr: Hex,
    vma: Option<VmaObject<'a>>,
    inferred: bool,
}

#[derive(Serialize)]
pub struct FailureLine<'a> {
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

#[derive(Serialize)]
pub struct CompactionLine<'a> {
    kind: &'static str,
    ts_ns: u64,
    duration_ns: u64,
    order: Option<u8>,
    node: Option<u32>,
    zone: &'a str,
    direct: bool,
    sync: bool,
    proactive: bool,
    result: &'a str,
    moved_pages: u64,
    failed_pages: u64,
    actor_pid: u32,
    actor_tid: u32,
    actor_comm: Option<&'a str>,
    cpu: u16,
}

impl<'a> From<&'a Compaction> for CompactionLine<'a> {
    fn from(event: &'a Compaction) -> Self {
        Self {
            kind: "compaction",
            ts_ns: event.at.0,
            duration_ns: event.duration.0,
            order: event.order.map(|order| order.0),
            node: event.node.map(|node| node.0),
            zone: &event.zone,
            direct: event.direct,
            sync: event.sync,
            proactive: event.proactive,
            result: &event.result,
            moved_pages: event.moved,
            failed_pages: event.failed,
            actor_pid: event.actor.tgid.0,
            actor_tid: event.actor.tid.0,
            actor_comm: name(&event.actor),
            cpu: event.cpu,
        }
    }
}
