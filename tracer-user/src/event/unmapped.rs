//! A folio that moved without a mapping: page cache that nobody maps, or memory whose process was going.
//! Made by `correlate`; read by every sink.

use std::{fmt, sync::Arc};

use crate::{
    event::task::Task,
    kernel::names::Reason,
    units::{Nanos, NodeId, Order, Pfn},
};

/// A folio that no process maps went to another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmappedMove {
    /// When it was done.
    pub at: Nanos,
    /// The folio's order.
    pub order: Order,
    /// First frame before; None: the machine does not tell.
    pub old_pfn: Option<Pfn>,
    /// First frame now; None: the machine does not tell.
    pub new_pfn: Option<Pfn>,
    /// Node of the old frame.
    pub old_node: Option<NodeId>,
    /// Node of the new frame.
    pub new_node: Option<NodeId>,
    /// Why.
    pub reason: Reason,
    /// Who did it.
    pub actor: Task,
    /// The file; None: anonymous memory that was unmapped meanwhile, or before 6.17 a driver's (zram, balloon).
    pub file: Option<FilePlace>,
    /// Where it was done.
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
    /// Last part of its path; None: it has none, or its name was not caught.
    pub name: Option<Arc<str>>,
}

/// A device as the kernel keeps it: 12 bits of major, 20 bits of minor number (include/linux/kdev_t.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device(pub u32);

impl fmt::Display for Device {
    /// `08:01`, as in /proc/PID/maps.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}", self.0 >> 20, self.0 & 0xf_ffff)
    }
}
