//! Walks through page tables, from the address space down, without their locks.
//! Input: an mm and an address from a hook.

use tracer_common::arch;

use crate::kernel::{config, peek, read};

/// The PMD entry of an address; 0: there is no such page table. Only the kernel code that the hook is in keeps the
/// tables from changing meanwhile.
#[inline(always)]
pub fn pmd_entry(mm: u64, address: u64) -> u64 {
    let base = config!(page_offset_base);
    if base == 0 {
        return 0;
    }
    let mut table: u64 = read(mm, config!(mm_pgd));
    if arch::five_levels(base) {
        table = table_below(table, address, arch::PGDIR_SHIFT);
    }
    table = table_below(table, address, arch::P4D_SHIFT);
    table = table_below(table, address, arch::PUD_SHIFT);
    if table == 0 {
        return 0;
    }
    read(arch::entry_address(table, address, arch::PMD_SHIFT), 0)
}

/// Whether the address is mapped to this frame, by a PTE or a PMD.
#[inline(always)]
pub fn maps(mm: u64, address: u64, pfn: u64) -> bool {
    frame(config!(page_offset_base), peek(mm, config!(mm_pgd)), address) == pfn
}

/// The frame that the address is mapped to, by a PTE or a PMD. The walk takes no lock and has no branch on the way: if a
/// table is missing, the value read in its place is a certain frame only by an unlikely chance. `base` is where the direct
/// map begins.
#[inline(always)]
pub fn frame(base: u64, pgd: u64, address: u64) -> u64 {
    let below = |table: u64, shift: u32| peek(arch::entry_address(table, address, shift), 0);
    let table = |entry: u64| arch::direct_address(base, arch::table_pfn(entry, config!(pfn_bits)));
    let mut top = pgd;
    if arch::five_levels(base) {
        top = table(below(top, arch::PGDIR_SHIFT));
    }
    let pmd = below(
        table(below(table(below(top, arch::P4D_SHIFT)), arch::PUD_SHIFT)),
        arch::PMD_SHIFT,
    );
    if arch::maps_huge(pmd) {
        arch::present_pfn(pmd, arch::PMD_ORDER, config!(pfn_bits)) + arch::table_index(address, arch::PAGE_SHIFT)
    } else {
        arch::page_pfn(below(table(pmd), arch::PAGE_SHIFT), config!(pfn_bits))
    }
}

/// The table that the address's entry of a table points to; 0 for none.
#[inline(always)]
fn table_below(table: u64, address: u64, shift: u32) -> u64 {
    if table == 0 {
        return 0;
    }
    table_of(read(arch::entry_address(table, address, shift), 0))
}

/// Kernel address of the table that an entry points to; 0 where it points to none.
#[inline(always)]
pub fn table_of(entry: u64) -> u64 {
    if !arch::present(entry) || arch::maps_huge(entry) {
        return 0;
    }
    arch::direct_address(
        config!(page_offset_base),
        arch::present_pfn(entry, 0, config!(pfn_bits)),
    )
}
