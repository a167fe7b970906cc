//! The places of the kernel's direct map and of its array of `struct page`: both are chosen at random at boot.
//! Written by the BPF side's `bases` or read from /proc/kcore; user space puts them into the programs' configuration.

/// Kernel virtual addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bases {
    /// `page_offset_base`: physical address 0 in the direct map.
    pub page_offset: u64,
    /// `vmemmap_base`: the `struct page` of frame 0.
    pub vmemmap: u64,
}

const _: () = assert!(size_of::<Bases>() == 16);
