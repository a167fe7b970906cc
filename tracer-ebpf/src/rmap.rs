//! Who maps a folio, by its reverse mapping, read without its locks: what is found is a likelihood to be checked.
//! Input: folios and VMAs from the probes.

use tracer_common::event::Place;

use crate::kernel::{self, config};

/// `PAGE_MAPPING_ANON` and `PAGE_MAPPING_FLAGS`, include/linux/page-flags.h, 6.1 to 7.3.
const ANON: u64 = 1;
const FLAGS: u64 = 3;

/// Whether the folio is anonymous; KSM folios are too.
#[inline(always)]
pub fn is_anon(folio: u64) -> bool {
    kernel::read::<u64>(folio, config!(folio_mapping)) & ANON != 0
}

/// Where the VMA maps the folio; nobody where it does not cover it.
#[inline(always)]
pub fn place_in(folio: u64, vma: u64) -> Place {
    let index: u64 = kernel::read(folio, config!(folio_index));
    let first: u64 = kernel::read(vma, config!(vma_pgoff));
    let (start, end): (u64, u64) = (
        kernel::read(vma, config!(vma_start)),
        kernel::read(vma, config!(vma_end)),
    );
    let vaddr = start.wrapping_add(index.wrapping_sub(first) << 12);
    if vma == 0 || vaddr < start || vaddr >= end {
        return Place::default();
    }
    Place {
        vaddr,
        owner_tgid: kernel::mm_owner(kernel::vma_mm(vma)).tgid,
        inferred: 1,
    }
}

/// Where the VMA at the root of the folio's reverse mapping maps it: the only one, for most folios.
#[inline(always)]
pub fn first_place(folio: u64) -> Place {
    let mapping: u64 = kernel::read(folio, config!(folio_mapping));
    let vma = match mapping & FLAGS {
        // address_space.i_mmap: an interval tree of VMAs.
        0 if mapping != 0 => match kernel::read::<u64>(mapping, config!(mapping_i_mmap)) {
            0 => 0,
            node => node.wrapping_sub(u64::from(config!(vma_shared))),
        },
        // anon_vma.rb_root: an interval tree of anon_vma_chains.
        ANON => match kernel::read::<u64>(mapping & !FLAGS, config!(anon_vma_root)) {
            0 => 0,
            node => kernel::read(node.wrapping_sub(u64::from(config!(chain_rb))), config!(chain_vma)),
        },
        _ => 0,
    };
    if vma == 0 {
        return Place::default();
    }
    place_in(folio, vma)
}
