//! The configuration that user space gives the programs before they load: offsets of the running kernel.
//! Written by `kernel::types` from the kernel's BTF, read by every probe.

/// Bits of [`Config::kinds`].
pub mod kinds {
    /// Moves by migrate_pages.
    pub const MOVE: u32 = 1;
    /// Base pages copied into a huge page.
    pub const COLLAPSE: u32 = 2;
    /// Pages merged with an identical page, and unmerged.
    pub const KSM: u32 = 4;
    /// Pages copied on write.
    pub const COW: u32 = 8;
    /// Pages that leave for swap and come back.
    pub const SWAP: u32 = 16;
}

/// How the value of a field follows from the running kernel's types.
#[derive(Clone, Copy, Debug)]
pub enum Origin {
    /// The offset in bytes of the first of these members that the kernel has. Each is a path through structures.
    Offset(&'static [&'static str]),
    /// The offset of a member in bytes; 0 where the kernel has no such member.
    OffsetOrZero(&'static str),
    /// A constant of an enumeration: the enumeration's name, then the constant's.
    Constant(&'static str, &'static str),
    /// User space derives it by other means.
    Derived,
}

/// A field of [`Config`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its origin.
    pub origin: Origin,
    /// Sets its value.
    pub set: fn(&mut Config, u32),
}

/// Declares [`Config`], whose fields stand in one list: documentation, type and origin.
macro_rules! config {
    ($($(#[$doc:meta])* $field:ident: $ty:ty = $origin:expr),* $(,)?) => {
        /// The configuration. It is frozen into the object's `.rodata`: the verifier sees its fields as constants.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[$doc])* pub $field: $ty),*
        }

        const _: () = assert!(size_of::<Config>() == 0 $(+ size_of::<$ty>())*, "no padding");

        impl Config {
            /// All zero. The object holds it until user space overrides it.
            pub const UNSET: Self = Self { $($field: 0),* };

            /// Every field.
            pub const FIELDS: &'static [Field] = {
                use Origin::{Constant, Derived, Offset, OffsetOrZero};
                &[$(Field {
                    origin: $origin,
                    set: |config, value| config.$field = value.into(),
                }),*]
            };
        }
    };
}

config! {
    /// `vm_area_struct.vm_mm`, bytes.
    vma_mm: u32 = Offset(&["vm_area_struct.vm_mm"]),
    /// `mm_struct.owner` (CONFIG_MEMCG), bytes.
    mm_owner: u32 = Offset(&["mm_struct.owner"]),
    /// `task_struct.tgid`, bytes.
    task_tgid: u32 = Offset(&["task_struct.tgid"]),
    /// `task_struct.pid`, bytes.
    task_pid: u32 = Offset(&["task_struct.pid"]),
    /// `task_struct.comm`, bytes.
    task_comm: u32 = Offset(&["task_struct.comm"]),
    /// `task_struct.signal`, bytes.
    task_signal: u32 = Offset(&["task_struct.signal"]),
    /// `signal_struct.live`, bytes: 0 once the last thread exits.
    signal_live: u32 = Offset(&["signal_struct.live"]),
    /// `folio.flags`, bytes.
    folio_flags: u32 = Offset(&["folio.flags"]),
    /// `PG_head` of `enum pageflags`: the bit that marks a large folio.
    pg_head: u32 = Constant("pageflags", "PG_head"),
    /// The byte that holds a large folio's order: `folio._folio_order`, or the low byte of
    /// `folio._flags_1` since 6.6.
    folio_order: u32 = Offset(&["folio._folio_order", "folio._flags_1"]),
    /// 1 where `remove_migration_pte`'s last argument is a `struct rmap_walk_arg *` (6.12 and
    /// later), 0 where it is the source folio itself (6.1).
    remove_arg_is_walk: u32 = Derived,
    /// `rmap_walk_arg.folio`, bytes; unused where the argument is the folio.
    walk_folio: u32 = OffsetOrZero("rmap_walk_arg.folio"),
    /// log2 of `sizeof(struct page)`.
    page_struct_shift: u32 = Derived,
    /// Bits of the highest frame number that this machine can have, with room for memory that is added.
    pfn_bits: u32 = Derived,
    /// `task_struct.group_leader`, bytes.
    task_group_leader: u32 = Offset(&["task_struct.group_leader"]),
    /// `folio.mapping`, bytes.
    folio_mapping: u32 = Offset(&["folio.mapping"]),
    /// `folio.index`, bytes.
    folio_index: u32 = Offset(&["folio.index"]),
    /// `folio.lru`, bytes.
    folio_lru: u32 = Offset(&["folio.lru"]),
    /// `folio._refcount`, bytes.
    folio_refcount: u32 = Offset(&["folio._refcount"]),
    /// `folio._mapcount`, bytes.
    folio_mapcount: u32 = Offset(&["folio._mapcount"]),
    /// `folio._pincount`, of large folios; 0: the kernel does not count pins separately.
    folio_pincount: u32 = OffsetOrZero("folio._pincount"),
    /// `PG_private` of `enum pageflags`.
    pg_private: u32 = Constant("pageflags", "PG_private"),
    /// `PG_swapcache` of `enum pageflags`.
    pg_swapcache: u32 = Constant("pageflags", "PG_swapcache"),
    /// `address_space.host`, bytes.
    mapping_host: u32 = Offset(&["address_space.host"]),
    /// `address_space.i_mmap`, bytes; its root is its first member.
    mapping_i_mmap: u32 = Offset(&["address_space.i_mmap"]),
    /// `inode.i_ino`, bytes.
    inode_ino: u32 = Offset(&["inode.i_ino"]),
    /// `inode.i_sb`, bytes.
    inode_sb: u32 = Offset(&["inode.i_sb"]),
    /// `inode.i_dentry`, bytes.
    inode_dentry: u32 = Offset(&["inode.i_dentry"]),
    /// `super_block.s_dev`, bytes.
    sb_dev: u32 = Offset(&["super_block.s_dev"]),
    /// `dentry.d_u.d_alias`, bytes.
    dentry_alias: u32 = Offset(&["dentry.d_alias", "dentry.d_u"]),
    /// The pointer in `dentry.d_name`, bytes.
    dentry_name: u32 = Offset(&["dentry.d_name.name"]),
    /// `anon_vma.rb_root`, bytes; its root is its first member.
    anon_vma_root: u32 = Offset(&["anon_vma.rb_root"]),
    /// `anon_vma_chain.rb`, bytes.
    chain_rb: u32 = Offset(&["anon_vma_chain.rb"]),
    /// `anon_vma_chain.vma`, bytes.
    chain_vma: u32 = Offset(&["anon_vma_chain.vma"]),
    /// `vm_area_struct.shared`, bytes; its node is its first member.
    vma_shared: u32 = Offset(&["vm_area_struct.shared"]),
    /// `vm_area_struct.vm_start`, bytes.
    vma_start: u32 = Offset(&["vm_area_struct.vm_start"]),
    /// `vm_area_struct.vm_end`, bytes.
    vma_end: u32 = Offset(&["vm_area_struct.vm_end"]),
    /// `vm_area_struct.vm_pgoff`, bytes.
    vma_pgoff: u32 = Offset(&["vm_area_struct.vm_pgoff"]),
    /// `compact_control.zone`, bytes.
    cc_zone: u32 = OffsetOrZero("compact_control.zone"),
    /// `compact_control.order`, bytes.
    cc_order: u32 = OffsetOrZero("compact_control.order"),
    /// `compact_control.mode`, bytes.
    cc_mode: u32 = OffsetOrZero("compact_control.mode"),
    /// `compact_control.direct_compaction`, bytes.
    cc_direct: u32 = OffsetOrZero("compact_control.direct_compaction"),
    /// `compact_control.proactive_compaction`, bytes.
    cc_proactive: u32 = OffsetOrZero("compact_control.proactive_compaction"),
    /// `zone.name`, bytes.
    zone_name: u32 = Offset(&["zone.name"]),
    /// 1 where the hook on NUMA balancing's moves is on `migrate_misplaced_page` (6.1), 0 where it is on
    /// `migrate_misplaced_folio_prepare`.
    misplaced_moves: u32 = Derived,
    /// The order from which the kernel counts a folio in `thp_migration_success`.
    thp_order: u32 = Derived,
    /// Index of the reason among the arguments of the tracepoint `mm_migrate_pages`, from 0.
    migrate_end_reason: u32 = Derived,
    /// `task_struct.cgroups`, bytes.
    task_cgroups: u32 = Offset(&["task_struct.cgroups"]),
    /// `css_set.dfl_cgrp`, bytes: the cgroup of the v2 hierarchy.
    css_set_dfl_cgrp: u32 = Offset(&["css_set.dfl_cgrp"]),
    /// `cgroup.kn`, bytes.
    cgroup_kn: u32 = Offset(&["cgroup.kn"]),
    /// `cgroup.level`, bytes: 0 for the root.
    cgroup_level: u32 = Offset(&["cgroup.level"]),
    /// `cgroup.ancestors`, bytes: a pointer for each level, the last one to itself.
    cgroup_ancestors: u32 = Offset(&["cgroup.ancestors"]),
    /// `kernfs_node.id`, bytes.
    kernfs_id: u32 = Offset(&["kernfs_node.id"]),
    /// `mm_struct.pgd`, bytes.
    mm_pgd: u32 = Offset(&["mm_struct.pgd"]),
    /// Bits of [`kinds`]: the kinds of moves that are requested.
    kinds: u32 = Derived,
    /// `vm_fault.vma`, bytes.
    fault_vma: u32 = Offset(&["vm_fault.vma"]),
    /// `vm_fault.address`, bytes.
    fault_address: u32 = Offset(&["vm_fault.address"]),
    /// `vm_fault.orig_pte`, bytes.
    fault_pte: u32 = Offset(&["vm_fault.orig_pte"]),
    /// `page.compound_head`, bytes: its lowest bit marks a page inside a large folio.
    page_head: u32 = Offset(&["page.compound_head", "page.compound_info"]),
    /// `folio.swap`, bytes: the swap entry of a folio in the swap cache. Before 6.6 `folio.private`.
    folio_swap: u32 = Offset(&["folio.swap", "folio.private"]),
    /// `PG_swapbacked` of `enum pageflags`: a page that is written to swap, not dropped.
    pg_swapbacked: u32 = Constant("pageflags", "PG_swapbacked"),
    /// 1 where this kernel may preempt a task inside a program, and two copies of each program are attached.
    twice: u32 = Derived,
    /// `dentry.d_name.hash_len`, bytes.
    dentry_hash: u32 = Offset(&["dentry.d_name.hash_len"]),
    /// `super_block.s_magic`, bytes.
    sb_magic: u32 = Offset(&["super_block.s_magic"]),
    /// 1 where hugetlb counts huge pages, not base pages: in `folio.index`, and in the references that the page cache
    /// holds (before 6.7).
    huge_index: u32 = Derived,
    /// `vm_area_struct.vm_flags`, bytes; read where `huge_index` is 1.
    vma_flags: u32 = Offset(&["vm_area_struct.vm_flags"]),
    /// `TTU_SYNC` of `enum ttu_flags`: a folio is unmapped with it to be split, never to be moved (`unmap_folio`,
    /// mm/huge_memory.c; `migrate_folio_unmap`, mm/migrate.c).
    ttu_sync: u32 = Constant("ttu_flags", "TTU_SYNC"),
    /// `vm_area_struct.__vm_anon_pgoff_lo`, bytes; 0: `vm_pgoff` is the offset of anonymous pages, too (before 7.3).
    vma_anon_pgoff_lo: u32 = OffsetOrZero("vm_area_struct.__vm_anon_pgoff_lo"),
    /// `vm_area_struct.__vm_anon_pgoff_hi`, bytes.
    vma_anon_pgoff_hi: u32 = OffsetOrZero("vm_area_struct.__vm_anon_pgoff_hi"),
    /// `MR_NUMA_MISPLACED` of `enum migrate_reason`.
    reason_numa: u32 = Derived,
    /// `task_struct.start_time`, bytes: CLOCK_MONOTONIC nanoseconds.
    task_start_time: u32 = Offset(&["task_struct.start_time"]),
    /// `task_struct.__state`, bytes.
    task_state: u32 = Offset(&["task_struct.__state"]),
    /// `task_struct.mm`, bytes.
    task_mm: u32 = Offset(&["task_struct.mm"]),
    /// `task_struct.stack_vm_area` (CONFIG_VMAP_STACK), bytes; 0: the kernel's stacks have no list of their pages.
    task_stack_area: u32 = OffsetOrZero("task_struct.stack_vm_area"),
    /// `vm_struct.addr`, bytes.
    vm_addr: u32 = Offset(&["vm_struct.addr"]),
    /// `vm_struct.pages`, bytes.
    vm_pages: u32 = Offset(&["vm_struct.pages"]),
    /// Address at which the memory map begins (`vmemmap_base`, arch/x86/mm/kaslr.c); 0: not known.
    vmemmap_base: u64 = Derived,
    /// `page_offset_base`: address of physical address 0 in the direct map; 0: not known.
    page_offset_base: u64 = Derived,
}

impl Config {
    /// The bytes that override the object's global.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `repr(C)`, integers only, no padding (size asserted above).
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}
