//! What user space tells the programs before they load: offsets of the running kernel.
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
    /// Bits of the highest frame number that this machine can have, with room for memory that is added.
    pub pfn_bits: u32,
    /// `task_struct.group_leader`, bytes.
    pub task_group_leader: u32,
    /// `folio.mapping`, bytes.
    pub folio_mapping: u32,
    /// `folio.index`, bytes.
    pub folio_index: u32,
    /// `folio.lru`, bytes.
    pub folio_lru: u32,
    /// `folio._refcount`, bytes.
    pub folio_refcount: u32,
    /// `folio._mapcount`, bytes.
    pub folio_mapcount: u32,
    /// `folio._pincount`, of large folios; 0: the kernel does not count pins apart.
    pub folio_pincount: u32,
    /// `PG_private` of `enum pageflags`.
    pub pg_private: u32,
    /// `PG_swapcache` of `enum pageflags`.
    pub pg_swapcache: u32,
    /// `address_space.host`, bytes.
    pub mapping_host: u32,
    /// `address_space.i_mmap`, bytes; its root is its first member.
    pub mapping_i_mmap: u32,
    /// `inode.i_ino`, bytes.
    pub inode_ino: u32,
    /// `inode.i_sb`, bytes.
    pub inode_sb: u32,
    /// `inode.i_dentry`, bytes.
    pub inode_dentry: u32,
    /// `super_block.s_dev`, bytes.
    pub sb_dev: u32,
    /// `dentry.d_u.d_alias`, bytes.
    pub dentry_alias: u32,
    /// The pointer in `dentry.d_name`, bytes.
    pub dentry_name: u32,
    /// `anon_vma.rb_root`, bytes; its root is its first member.
    pub anon_vma_root: u32,
    /// `anon_vma_chain.rb`, bytes.
    pub chain_rb: u32,
    /// `anon_vma_chain.vma`, bytes.
    pub chain_vma: u32,
    /// `vm_area_struct.shared`, bytes; its node is its first member.
    pub vma_shared: u32,
    /// `vm_area_struct.vm_start`, bytes.
    pub vma_start: u32,
    /// `vm_area_struct.vm_end`, bytes.
    pub vma_end: u32,
    /// `vm_area_struct.vm_pgoff`, bytes.
    pub vma_pgoff: u32,
    /// `compact_control.zone`, bytes.
    pub cc_zone: u32,
    /// `compact_control.order`, bytes.
    pub cc_order: u32,
    /// `compact_control.mode`, bytes.
    pub cc_mode: u32,
    /// `compact_control.direct_compaction`, bytes.
    pub cc_direct: u32,
    /// `compact_control.proactive_compaction`, bytes.
    pub cc_proactive: u32,
    /// `zone.name`, bytes.
    pub zone_name: u32,
    /// 1 where the hook on NUMA balancing's moves is on `migrate_misplaced_page` (6.1), 0 where it is on
    /// `migrate_misplaced_folio_prepare`.
    pub misplaced_moves: u32,
    /// The order from which the kernel counts a folio in `thp_migration_success`.
    pub thp_order: u32,
    /// Which argument of the tracepoint `mm_migrate_pages` is the reason, counted from 0.
    pub migrate_end_reason: u32,
    /// `task_struct.cgroups`, bytes.
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`, bytes: the cgroup of the v2 hierarchy.
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`, bytes.
    pub cgroup_kn: u32,
    /// `cgroup.level`, bytes: 0 for the root.
    pub cgroup_level: u32,
    /// `cgroup.ancestors`, bytes: a pointer for each level, the last one to itself.
    pub cgroup_ancestors: u32,
    /// `kernfs_node.id`, bytes.
    pub kernfs_id: u32,
    /// `mm_struct.pgd`, bytes.
    pub mm_pgd: u32,
    /// Bits of [`kinds`]: the kinds of moves that were asked for.
    pub kinds: u32,
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
    /// 1 where this kernel may preempt a task inside a program, and two copies of each are attached.
    pub twice: u32,
    /// `dentry.d_name.hash_len`, bytes.
    pub dentry_hash: u32,
    /// `super_block.s_magic`, bytes.
    pub sb_magic: u32,
    /// 1 where hugetlb counts huge pages, not base pages: in `folio.index`, and in the references that the page cache holds
    /// (before 6.7).
    pub huge_index: u32,
    /// `vm_area_struct.vm_flags`, bytes; read where `huge_index` is 1.
    pub vma_flags: u32,
    /// `TTU_SYNC` of `enum ttu_flags`: a folio is unmapped with it to be split, never to be moved (`unmap_folio`,
    /// mm/huge_memory.c; `migrate_folio_unmap`, mm/migrate.c).
    pub ttu_sync: u32,
    /// `vm_area_struct.__vm_anon_pgoff_lo`, bytes; 0: `vm_pgoff` is the offset of anonymous pages, too (before 7.3).
    pub vma_anon_pgoff_lo: u32,
    /// `vm_area_struct.__vm_anon_pgoff_hi`, bytes.
    pub vma_anon_pgoff_hi: u32,
    /// `MR_NUMA_MISPLACED` of `enum migrate_reason`.
    pub reason_numa: u32,
    /// Where the memory map begins (`vmemmap_base`, arch/x86/mm/kaslr.c); 0: not known.
    pub vmemmap_base: u64,
    /// `page_offset_base`: address of physical address 0 in the direct map; 0: not known.
    pub page_offset_base: u64,
}

const _: () = assert!(size_of::<Config>() == 70 * 4 + 2 * 8);

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
        pfn_bits: 0,
        task_group_leader: 0,
        folio_mapping: 0,
        folio_index: 0,
        folio_lru: 0,
        folio_refcount: 0,
        folio_mapcount: 0,
        folio_pincount: 0,
        pg_private: 0,
        pg_swapcache: 0,
        mapping_host: 0,
        mapping_i_mmap: 0,
        inode_ino: 0,
        inode_sb: 0,
        inode_dentry: 0,
        sb_dev: 0,
        dentry_alias: 0,
        dentry_name: 0,
        anon_vma_root: 0,
        chain_rb: 0,
        chain_vma: 0,
        vma_shared: 0,
        vma_start: 0,
        vma_end: 0,
        vma_pgoff: 0,
        cc_zone: 0,
        cc_order: 0,
        cc_mode: 0,
        cc_direct: 0,
        cc_proactive: 0,
        zone_name: 0,
        misplaced_moves: 0,
        thp_order: 0,
        migrate_end_reason: 0,
        task_cgroups: 0,
        css_set_dfl_cgrp: 0,
        cgroup_kn: 0,
        cgroup_level: 0,
        cgroup_ancestors: 0,
        kernfs_id: 0,
        mm_pgd: 0,
        kinds: 0,
        fault_vma: 0,
        fault_address: 0,
        fault_pte: 0,
        page_head: 0,
        folio_swap: 0,
        pg_swapbacked: 0,
        twice: 0,
        dentry_hash: 0,
        sb_magic: 0,
        huge_index: 0,
        vma_flags: 0,
        ttu_sync: 0,
        vma_anon_pgoff_lo: 0,
        vma_anon_pgoff_hi: 0,
        reason_numa: 0,
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
