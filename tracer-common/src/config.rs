//! What user space tells the programs before they load: offsets of the running kernel, the filter.
//! Written by `source::ring` from the kernel's BTF, read by every probe.

/// Bits of [`Config::kinds`].
pub mod kinds {
    /// Through migrate_pages.
    pub const MOVE: u32 = 1;
    /// Base pages copied into a huge page.
    pub const COLLAPSE: u32 = 2;
    /// Merged with an identical page, and unmerged.
    pub const KSM: u32 = 4;
    /// Copied on write.
    pub const COW: u32 = 8;
    /// To swap and back.
    pub const SWAP: u32 = 16;
}

/// Frozen into the object's `.rodata`; the verifier sees its fields as constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// `vm_area_struct.vm_mm`, bytes.
    pub vma_mm: u32,
    /// `mm_struct.owner` (CONFIG_MEMCG), bytes.
    pub mm_owner: u32,
    /// `task_struct.tgid`, bytes.
    pub task_tgid: u32,
    /// `task_struct.pid`, bytes.
    pub task_pid: u32,
    /// `task_struct.comm`, bytes.
    pub task_comm: u32,
    /// `task_struct.signal`, bytes.
    pub task_signal: u32,
    /// `signal_struct.live`, bytes: 0 once the last thread exits.
    pub signal_live: u32,
    /// `folio.flags`, bytes.
    pub folio_flags: u32,
    /// `PG_head` of `enum pageflags`: which bit marks a large folio.
    pub pg_head: u32,
    /// The byte that holds a large folio's order: `folio._folio_order`, or the low byte of
    /// `folio._flags_1` since 6.6.
    pub folio_order: u32,
    /// 1 where `remove_migration_pte`'s last argument is a `struct rmap_walk_arg *` (6.12 and
    /// later, S), 0 where it is the source folio itself (6.1).
    pub remove_arg_is_walk: u32,
    /// `rmap_walk_arg.folio`, bytes; unused where the argument is the folio.
    pub walk_folio: u32,
    /// log2 of `sizeof(struct page)`.
    pub page_struct_shift: u32,
    /// 1: report every owner; 0: only those in the map `TARGETS`.
    pub all: u32,
    /// 1: a target's children become targets.
    pub follow: u32,
    /// Bits of the highest frame number that this machine can have, with room for memory that is added.
    pub pfn_bits: u32,
    /// `task_struct.group_leader`, bytes.
    pub task_group_leader: u32,
    /// `mm_struct.pgd`, bytes.
    pub mm_pgd: u32,
    /// Bits of [`kinds`]: the kinds of moves that were asked for.
    pub kinds: u32,
    /// `vm_area_struct.vm_start`, bytes.
    pub vma_start: u32,
    /// `vm_area_struct.vm_pgoff`, bytes.
    pub vma_pgoff: u32,
    /// `folio.index`, bytes.
    pub folio_index: u32,
    /// `folio.mapping`, bytes.
    pub folio_mapping: u32,
    /// `vm_fault.vma`, bytes.
    pub fault_vma: u32,
    /// `vm_fault.address`, bytes.
    pub fault_address: u32,
    /// `vm_fault.orig_pte`, bytes.
    pub fault_pte: u32,
    /// `page.compound_head`, bytes: its lowest bit marks a page inside a large folio.
    pub page_head: u32,
    /// `folio.swap`, bytes: the swap entry of a folio in the swap cache. Before 6.6 `folio.private`.
    pub folio_swap: u32,
    /// `PG_swapbacked` of `enum pageflags`: a page that is written to swap, not dropped.
    pub pg_swapbacked: u32,
    /// `PG_swapcache` of `enum pageflags`: a page with a place on swap.
    pub pg_swapcache: u32,
    /// `vmemmap_base`: address of the `struct page` of frame 0; 0: not known.
    pub vmemmap_base: u64,
    /// `page_offset_base`: address of physical address 0 in the direct map; 0: not known.
    pub page_offset_base: u64,
}

const _: () = assert!(size_of::<Config>() == 30 * 4 + 2 * 8);

impl Config {
    /// All zero: what the object holds until user space overrides it.
    pub const UNSET: Self = Self {
        vma_mm: 0,
        mm_owner: 0,
        task_tgid: 0,
        task_pid: 0,
        task_comm: 0,
        task_signal: 0,
        signal_live: 0,
        folio_flags: 0,
        pg_head: 0,
        folio_order: 0,
        remove_arg_is_walk: 0,
        walk_folio: 0,
        page_struct_shift: 0,
        all: 0,
        follow: 0,
        pfn_bits: 0,
        task_group_leader: 0,
        mm_pgd: 0,
        kinds: 0,
        vma_start: 0,
        vma_pgoff: 0,
        folio_index: 0,
        folio_mapping: 0,
        fault_vma: 0,
        fault_address: 0,
        fault_pte: 0,
        page_head: 0,
        folio_swap: 0,
        pg_swapbacked: 0,
        pg_swapcache: 0,
        vmemmap_base: 0,
        page_offset_base: 0,
    };

    /// The bytes to override the object's global with.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `repr(C)`, integers only, no padding (size asserted above).
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}
