//! The line of a folio that moved without a mapping.
//! Input: such an event.

use serde::Serialize;

use crate::{
    event::unmapped::UnmappedMove,
    sink::json::objects::{Hex, name},
};

#[derive(Serialize)]
struct FileObject<'a> {
    dev: String,
    inode: u64,
    offset: u64,
    name: Option<&'a str>,
}

#[derive(Serialize)]
pub(super) struct UnmappedLine<'a> {
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
