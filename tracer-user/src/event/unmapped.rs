//! A folio that moved without a mapping: page cache that no process maps, or memory of a process that was exiting.
//! Made by `correlate`; read by every sink.

use std::{fmt, sync::Arc};

use crate::{
    event::task::Task,
    kernel::names::Reason,
    units::{Nanos, NodeId, Order, Pfn},
};

/// A folio that no process maps, moved to other frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmappedMove {
    /// The time when the move was complete.
    pub at: Nanos,
    /// The folio's order.
    pub order: Order,
    /// The first frame before the move. None: the machine does not report it.
    pub old_pfn: Option<Pfn>,
    /// The first frame after the move. None: the machine does not report it.
    pub new_pfn: Option<Pfn>,
    /// Node of the old frame.
    pub old_node: Option<NodeId>,
    /// Node of the new frame.
    pub new_node: Option<NodeId>,
    /// The reason.
    pub reason: Reason,
    /// The task that moved it.
    pub actor: Task,
    /// The file. None: it is anonymous memory that was unmapped meanwhile, or before 6.17 a driver's page (zram,
    /// balloon).
    pub file: Option<FilePlace>,
    /// The CPU on which it was moved.
    pub cpu: u16,
}

/// A place in a file of the page cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePlace {
    /// The file system's device.
    pub dev: Device,
    /// Inode number.
    pub inode: u64,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// The last part of its path. None: it has no path, or its name was not recorded.
    pub name: Option<Arc<str>>,
}

/// A device in the kernel's form: 12 bits of major, 20 bits of minor number (include/linux/kdev_t.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device(pub u32);

impl fmt::Display for Device {
    /// `08:01`, as in /proc/PID/maps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}", self.0 >> 20, self.0 & 0xf_ffff)
    }
}
