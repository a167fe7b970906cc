//! The differences between processor architectures: page size, page tables and their entries. Each has one file.
//! Input: none. The programs run on the architecture that user space is built for.

mod x86_64;

pub use x86_64::{
    P4D_SHIFT, PAGE_SHIFT, PGDIR_SHIFT, PMD_ORDER, PMD_SHIFT, PUD_SHIFT, TABLE_ENTRIES, bytes, direct_address,
    entry_address, five_levels, maps_huge, migration_entry_pfn, page_pfn, page_start, pages, present, present_pfn,
    swap_entry, table_index, table_pfn,
};
