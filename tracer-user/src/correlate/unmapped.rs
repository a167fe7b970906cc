//! Folios that moved without a mapping: nodes, and the name of the file.
//! Input: raw events from `decode`.

use std::{collections::HashMap, sync::Arc};

use tracer_common::event::{FileSeen, FolioMoved};

use crate::{
    correlate::{Correlator, processes},
    event::{
        Event,
        unmapped::{Device, FilePlace, UnmappedMove},
    },
    units::{Nanos, Order, PAGE_SHIFT, Pfn, Tgid, Tid},
};

/// Names kept; beyond it all are forgotten.
const MAX_FILES: usize = 1 << 16;

/// Names of files, by device and inode.
#[derive(Default)]
pub struct Files(HashMap<(Device, u64), Arc<str>>);

impl Files {
    /// Takes in a name.
    pub fn add(&mut self, seen: &FileSeen) {
        if self.0.len() >= MAX_FILES {
            self.0.clear();
        }
        if let Some(name) = processes::text(&seen.name) {
            self.0.insert((Device(seen.dev), seen.ino), name);
        }
    }

    fn name(&self, dev: Device, inode: u64) -> Option<Arc<str>> {
        self.0.get(&(dev, inode)).cloned()
    }
}

impl Correlator {
    /// The event of a folio that moved without a mapping.
    pub(super) fn unmapped(&mut self, raw: &FolioMoved) -> Event {
        let pfn = |raw: u64| (raw != 0).then_some(Pfn(raw));
        let (old_pfn, new_pfn) = (pfn(raw.old_pfn), pfn(raw.new_pfn));
        let node = |pfn: Option<Pfn>| pfn.and_then(|pfn| self.topology.node_of(pfn));
        let dev = Device(raw.dev);
        Event::Unmapped(UnmappedMove {
            at: Nanos(raw.at),
            order: Order(raw.order),
            old_pfn,
            new_pfn,
            old_node: node(old_pfn),
            new_node: node(new_pfn),
            reason: self.names.reason(raw.reason),
            actor: self.processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid)),
            file: (raw.of_file != 0).then(|| FilePlace {
                dev,
                inode: raw.ino,
                offset: raw.index << PAGE_SHIFT,
                name: self.files.name(dev, raw.ino),
            }),
            cpu: raw.cpu,
        })
    }
}
