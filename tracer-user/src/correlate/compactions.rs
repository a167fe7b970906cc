//! Runs of compaction: which zone of which node, and how it ended.
//! Input: raw events from `decode`.

use std::sync::Arc;

use tracer_common::event::{CompactionRan, compaction_flags};

use crate::{
    correlate::{Correlator, processes},
    event::{Event, compaction::Compaction},
    units::{Nanos, Order, Pfn, Tgid, Tid},
};

impl Correlator {
    /// The event of a run.
    pub(super) fn compaction(&mut self, raw: &CompactionRan) -> Event {
        let has = |flag| raw.flags & flag != 0;
        Event::Compaction(Compaction {
            at: Nanos(raw.at),
            duration: Nanos(raw.at).since(Nanos(raw.began)),
            actor: self.processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid)),
            order: u8::try_from(raw.order).ok().map(Order),
            node: self.topology.node_of(Pfn(raw.zone_start)),
            zone: processes::text(&raw.zone).unwrap_or_else(|| Arc::from("?")),
            direct: has(compaction_flags::DIRECT),
            sync: has(compaction_flags::SYNC),
            proactive: has(compaction_flags::PROACTIVE),
            result: self
                .names
                .compact_results
                .get(raw.status)
                .cloned()
                .unwrap_or_else(|| Arc::from(format!("result_{}", raw.status))),
            moved: raw.moved,
            failed: raw.failed,
            cpu: raw.cpu,
        })
    }
}
