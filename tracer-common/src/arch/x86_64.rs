//! Page tables of x86-64: their levels, and how their entries hold frame numbers.
//! Input: the `pte` and `pmd` arguments of the migrate and thp tracepoints; entries that the programs read.
#![expect(
    clippy::inline_always,
    reason = "a call costs a BPF program more than the shift it saves"
)]

/// Widest frame number that a migration entry can hold below 64 TiB of memory.
///
/// The young and dirty bits (`SWP_MIG_YOUNG_BIT`, include/linux/swapops.h) stand above it, at
/// `MAX_PHYSMEM_BITS - PAGE_SHIFT`: 34 with 4-level paging, 40 with 5-level paging.
const MIGRATION_PFN_MASK: u64 = (1 << 34) - 1;

/// Bytes of a base page, log2.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes of an entry of a page table, log2.
const ENTRY_SHIFT: u32 = 3;
/// Entries of a page table of any level.
pub const TABLE_ENTRIES: usize = 1 << (PAGE_SHIFT - ENTRY_SHIFT);
/// Bytes that an entry of a PMD table covers, log2. The levels have the names of
/// arch/x86/include/asm/pgtable_64_types.h.
pub const PMD_SHIFT: u32 = 21;
/// Bytes that an entry of a PUD table covers, log2.
pub const PUD_SHIFT: u32 = 30;
/// Bytes that an entry of a P4D table covers, log2. It is the highest level where page tables have four.
pub const P4D_SHIFT: u32 = 39;
/// Bytes that an entry of a PGD covers where page tables have five levels, log2.
pub const PGDIR_SHIFT: u32 = 48;
/// Base pages of a PMD mapping, log2.
pub const PMD_ORDER: u32 = PMD_SHIFT - PAGE_SHIFT;

/// The address at which the page of an address begins.
#[inline(always)]
#[must_use]
pub const fn page_start(address: u64) -> u64 {
    address >> PAGE_SHIFT << PAGE_SHIFT
}

/// Bytes of a number of base pages.
#[inline(always)]
#[must_use]
pub const fn bytes(pages: u64) -> u64 {
    pages << PAGE_SHIFT
}

/// Whole base pages in a number of bytes.
#[inline(always)]
#[must_use]
pub const fn pages(bytes: u64) -> u64 {
    bytes >> PAGE_SHIFT
}

/// The index of an address's entry in a table whose entries cover `1 << shift` bytes each.
#[inline(always)]
#[must_use]
pub const fn table_index(address: u64, shift: u32) -> u64 {
    address >> shift & (TABLE_ENTRIES as u64 - 1)
}

/// The address of that entry of the table.
#[inline(always)]
#[must_use]
pub const fn entry_address(table: u64, address: u64, shift: u32) -> u64 {
    table + (table_index(address, shift) << ENTRY_SHIFT)
}

/// The address of a frame in the direct map, which begins at `page_offset_base`.
#[inline(always)]
#[must_use]
pub const fn direct_address(page_offset_base: u64, pfn: u64) -> u64 {
    page_offset_base + (pfn << PAGE_SHIFT)
}

/// `_PAGE_PSE`: the entry maps a huge page. In a 4K entry this bit selects a memory type that
/// memory which can migrate never has.
const PAGE_PSE: u64 = 1 << 7;

/// `_PAGE_PRESENT`.
const PAGE_PRESENT: u64 = 1;
/// `_PAGE_PROTNONE`: mapped, but not to be accessed (NUMA hints).
const PAGE_PROTNONE: u64 = 1 << 8;
/// `_PAGE_SPECIAL` of a 4K entry: it maps the zero page, or a frame that nobody may move.
const PAGE_SPECIAL: u64 = 1 << 9;
/// The lowest address of the kernel's half with 4-level paging; with 5-level paging the direct map is below it
/// (Documentation/arch/x86/x86_64/mm.rst).
const KERNEL_HALF_L4: u64 = 0xffff_8000_0000_0000;

/// Whether page tables have five levels, judged by the address at which the direct map begins.
#[inline(always)]
#[must_use]
pub const fn five_levels(page_offset_base: u64) -> bool {
    page_offset_base < KERNEL_HALF_L4
}

/// Whether an entry of any level is present.
#[inline(always)]
#[must_use]
pub const fn present(entry: u64) -> bool {
    entry & PAGE_PRESENT != 0
}

/// Frame of a present 4K entry that maps a page which can move; 0 for every other entry.
#[inline(always)]
#[must_use]
pub const fn page_pfn(entry: u64, pfn_bits: u32) -> u64 {
    if entry & (PAGE_PRESENT | PAGE_PROTNONE) != 0 && entry & PAGE_SPECIAL == 0 {
        present_pfn(entry, 0, pfn_bits)
    } else {
        0
    }
}

/// Types of swap entries from this one on are the kernel's own: migration, device memory, poison, markers
/// (`MAX_SWAPFILES`, include/linux/swap.h: at most 9 of the 32 are taken, 6.1 to 7.3).
const SWAP_TYPES: u64 = 32 - 9;

/// Lowest bit of the type of an entry that is not present; the type has the highest five bits (`__swp_type`,
/// arch/x86/include/asm/pgtable_64.h).
const SWAP_TYPE_SHIFT: u32 = 59;
/// Lowest bit of the type in the kernel's own form (`SWP_TYPE_SHIFT`, include/linux/swapops.h), 6.1 to 7.3.
const KERNEL_SWAP_TYPE_SHIFT: u32 = 58;

/// The offset of an entry that is not present, kept inverted against L1TF in bits 9 to 58 (`__swp_offset`,
/// arch/x86/include/asm/pgtable_64.h).
#[inline(always)]
const fn swap_offset(entry: u64) -> u64 {
    !entry << (u64::BITS - SWAP_TYPE_SHIFT) >> (u64::BITS - SWAP_TYPE_SHIFT + SWAP_OFFSET_FIRST_BIT)
}

/// `SWP_OFFSET_FIRST_BIT`.
const SWAP_OFFSET_FIRST_BIT: u32 = 9;

/// `swp_entry_t.val` of an entry whose page is on swap; 0 for every other entry (slot 0 of an area is its header).
#[inline(always)]
#[must_use]
pub const fn swap_entry(entry: u64) -> u64 {
    let kind = entry >> SWAP_TYPE_SHIFT;
    if entry == 0 || present(entry) || entry & PAGE_PROTNONE != 0 || kind >= SWAP_TYPES {
        return 0;
    }
    (kind << KERNEL_SWAP_TYPE_SHIFT) | swap_offset(entry)
}

/// Frame of a migration entry, pte or pmd, with or without its young and dirty bits.
#[inline(always)]
#[must_use]
pub const fn migration_entry_pfn(entry: u64) -> u64 {
    swap_offset(entry) & MIGRATION_PFN_MASK
}

/// Frame of a present pte, or of a present huge pte or pmd of `order`, whose low frame bits hold
/// attributes (`_PAGE_PAT_LARGE` is bit 12). `pfn_bits`: how many bits a frame number of this machine
/// has at most; above them memory encryption may keep its own bit (`sme_me_mask`, arch/x86/mm/mem_encrypt.c).
#[inline(always)]
#[must_use]
pub const fn present_pfn(entry: u64, order: u32, pfn_bits: u32) -> u64 {
    // An entry that protects against every access keeps its frame inverted (`protnone_mask`,
    // arch/x86/include/asm/pgtable-invert.h).
    let entry = if entry & PAGE_PRESENT == 0 { !entry } else { entry };
    ((entry >> PAGE_SHIFT) & ((1 << (pfn_bits & 63)) - 1)) >> order << order
}

/// Frame of the table that a present entry points to. For another entry the result has no meaning.
#[inline(always)]
#[must_use]
pub const fn table_pfn(entry: u64, pfn_bits: u32) -> u64 {
    (entry >> PAGE_SHIFT) & ((1 << (pfn_bits & 63)) - 1)
}

/// Whether a present entry maps a huge page (hugetlb, or a PMD).
#[inline(always)]
#[must_use]
pub const fn maps_huge(entry: u64) -> bool {
    entry & PAGE_PSE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inverse of [`migration_entry_pfn`], as `swp_entry` and `swp_entry_to_pte` build it.
    fn migration_entry(ty: u64, offset: u64) -> u64 {
        (ty << 59) | ((!offset << 14) >> 5)
    }

    #[test]
    fn migration_entry_gives_back_its_frame() {
        for pfn in [1, 0x2a_4200, MIGRATION_PFN_MASK] {
            for flags in [0, 1 << 34, 3 << 34, 1 << 40, 3 << 40] {
                assert_eq!(migration_entry_pfn(migration_entry(29, pfn | flags)), pfn);
            }
        }
    }

    #[test]
    fn swap_entry_has_the_kernels_own_form() {
        assert_eq!(swap_entry(migration_entry(2, 0x1234)), 2 << 58 | 0x1234);
        assert_eq!(swap_entry(migration_entry(0, 1)), 1);
        assert_eq!(swap_entry(migration_entry(29, 0x1234)), 0, "a migration entry");
        assert_eq!(swap_entry(0x867), 0);
        assert_eq!(swap_entry(0), 0);
    }

    #[test]
    fn present_entry_without_its_attributes() {
        let nx = 1 << 63;
        assert_eq!(present_pfn(nx | (0x2a_4201 << 12) | 0x867, 0, 30), 0x2a_4201);
        let encrypted = 1 << 47;
        assert_eq!(
            present_pfn(nx | encrypted | (0x2a_4201 << 12) | 0x867, 0, 30),
            0x2a_4201
        );
        let pat_large = 1 << 12;
        assert_eq!(
            present_pfn(nx | (0x2a_4200 << 12) | pat_large | 0x8e7, PMD_ORDER, 30),
            0x2a_4200
        );
        assert_eq!(page_pfn((0x2a_4201 << 12) | 0x867, 30), 0x2a_4201);
        assert_eq!(page_pfn((0x2a_4201 << 12) | 0xa67, 30), 0, "the zero page");
        assert_eq!(page_pfn(migration_entry(29, 1), 30), 0);
        // mprotect(PROT_NONE), or a NUMA hint.
        let frame_bits = ((1 << 52) - 1) & !0xfff;
        let inverted = |pfn: u64| (!(pfn << 12) & frame_bits) | 0x160;
        assert_eq!(present_pfn(inverted(0x2a_4201), 0, 30), 0x2a_4201);
        assert_eq!(page_pfn(inverted(0x2a_4201), 30), 0x2a_4201);
        assert!(maps_huge(0x8e7));
        assert!(!maps_huge(0x867));
    }
}
