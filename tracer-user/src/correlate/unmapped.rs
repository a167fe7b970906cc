//! Folios that moved without a mapping: nodes, and the name of the file.
//! Input: raw events from `decode`.

use std::{collections::HashMap, sync::Arc};

use tracer_common::event::{FileSeen, UnmappedMoved};

use crate::{
    correlate::{
        machine::{Machine, frame},
        processes::Processes,
        strings::Strings,
    },
    event::unmapped::{Device, FilePlace, UnmappedMove},
    units::{Nanos, Order, PAGE_SHIFT, Tgid, Tid},
};

/// The limit of kept names. When it is reached, all are forgotten.
const MAX_FILES: usize = 1 << 16;

/// Names of files, by device and inode.
#[derive(Default)]
pub(super) struct Files {
    by_inode: HashMap<(Device, u64), Arc<str>>,
    strings: Strings,
}

impl Files {
    /// Takes in a name.
    pub fn add(&mut self, seen: &FileSeen) {
        if self.by_inode.len() >= MAX_FILES {
            self.by_inode.clear();
        }
        if let Some(name) = self.strings.share_padded(&seen.name) {
            self.by_inode.insert((Device(seen.dev), seen.ino), name);
        }
    }

    fn name(&self, dev: Device, inode: u64) -> Option<Arc<str>> {
        self.by_inode.get(&(dev, inode)).cloned()
    }
}

/// The event of a folio that moved without a mapping.
pub(super) fn event(
    raw: &UnmappedMoved,
    processes: &mut Processes,
    machine: Machine<'_>,
    files: &Files,
) -> UnmappedMove {
    let (old_pfn, new_pfn) = (frame(raw.old_pfn, 0), frame(raw.new_pfn, 0));
    let dev = Device(raw.dev);
    UnmappedMove {
        at: Nanos(raw.at),
        order: Order(raw.order),
        old_pfn,
        new_pfn,
        old_node: machine.node(old_pfn),
        new_node: machine.node(new_pfn),
        reason: machine.names.reason(raw.reason),
        actor: processes.thread(Tgid(raw.actor_tgid), Tid(raw.actor_tid)),
        file: (raw.of_file != 0).then(|| FilePlace {
            dev,
            inode: raw.ino,
            offset: raw.index << PAGE_SHIFT,
            name: files.name(dev, raw.ino),
        }),
        cpu: raw.cpu,
    }
}
