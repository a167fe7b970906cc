//! Passes of compaction over a zone: which zone of which node, and how each ended.
//! Input: raw events from `decode`.

use std::sync::Arc;

use tracer_common::event::{CompactionRan, compaction_flags};

use crate::{
    correlate::{machine::Machine, processes::Processes, strings::Strings},
    event::compaction::Compaction,
    units::{Nanos, Order, Pfn, Tgid, Tid},
};

/// The event of a pass.
pub(super) fn event(
    raw: &CompactionRan,
    processes: &mut Processes,
    machine: Machine<'_>,
    zones: &mut Strings,
) -> Compaction {
    let has = |flag| raw.flags & flag != 0;
    let result = machine.names.compact_results.get(raw.status).cloned();
    Compaction {
        at: Nanos(raw.at),
        duration: Nanos(raw.at).since(Nanos(raw.began)),
        actor: processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid)),
        order: u8::try_from(raw.order).ok().map(Order),
        node: machine.node(Some(Pfn(raw.zone_start))),
        zone: zones.share_padded(&raw.zone).unwrap_or_else(|| zones.share("?")),
        direct: has(compaction_flags::DIRECT),
        sync: has(compaction_flags::SYNC),
        proactive: has(compaction_flags::PROACTIVE),
        result: result.unwrap_or_else(|| Arc::from(format!("result_{}", raw.status))),
        moved: raw.moved,
        failed: raw.failed,
        cpu: raw.cpu,
    }
}
