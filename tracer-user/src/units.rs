//! Kernel quantities as types, so that a frame number is never taken for an address.
//! Input: numbers from the wire, from /proc and from the command line.

use std::fmt;

use serde::{Deserialize, Serialize};

/// log2 of the size of a base page in bytes; every PFN and page count here is in base pages.
pub const PAGE_SHIFT: u32 = 12;
/// `1 << PAGE_SHIFT`, bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $repr);
    };
}

quantity!(
    /// A page frame number: physical address >> `PAGE_SHIFT`.
    Pfn(u64)
);
quantity!(
    /// A virtual address of a process, bytes.
    VirtAddr(u64)
);
quantity!(
    /// A NUMA node's id.
    NodeId(u32)
);
quantity!(
    /// A process: the thread group id in the initial PID namespace.
    Tgid(u32)
);
quantity!(
    /// A thread, which the kernel calls `pid`: its id in the initial PID namespace.
    Tid(u32)
);
quantity!(
    /// log2 of a folio's size in base pages.
    Order(u8)
);
quantity!(
    /// A time or a duration on `CLOCK_MONOTONIC`, nanoseconds.
    Nanos(u64)
);

impl Pfn {
    /// The frame `pages` further on.
    #[must_use]
    pub fn plus(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages))
    }
}

impl VirtAddr {
    /// The address `pages` base pages further on.
    #[must_use]
    pub fn plus_pages(self, pages: u64) -> Self {
        Self(self.0.wrapping_add(pages << PAGE_SHIFT))
    }

    /// The number of the page that holds this address: its index in pagemap.
    #[must_use]
    pub fn page(self) -> u64 {
        self.0 >> PAGE_SHIFT
    }
}

impl Order {
    /// Base pages of a folio of this order.
    #[must_use]
    pub fn pages(self) -> u64 {
        1u64.checked_shl(u32::from(self.0)).unwrap_or(u64::MAX)
    }
}

impl Nanos {
    /// `self - earlier`; zero if the clock readings are out of order.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

macro_rules! plain_display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
plain_display!(NodeId, Tgid, Tid, Order);
