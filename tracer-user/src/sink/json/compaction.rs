//! The line of a pass of compaction over a zone.
//! Input: such an event.

use serde::Serialize;

use crate::{event::compaction::Compaction, sink::json::objects::name};

#[derive(Serialize)]
pub(super) struct CompactionLine<'a> {
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
