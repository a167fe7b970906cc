//! Pages that KSM replaces by an identical one. Unmerging is a copy: see `copy`.
//! Input: mm/ksm.c's `try_to_merge_one_page`.

use aya_ebpf::{macros::fexit, programs::FExitContext};
use tracer_common::event::{MappingMoved, outside};

use crate::{
    emit,
    kernel::{self, config},
    owner,
    turn::twice,
};

/// `int try_to_merge_one_page(struct vm_area_struct *vma, struct page *page, struct page *kpage)`, 6.1 to 7.3,
/// mm/ksm.c. Returns 0 if `vma` maps `kpage` (the zero page with `use_zero_pages`) in place of `page`. Without `kpage`,
/// `page` itself has become a KSM page in place. The caller still holds `page`, which is a base page by then and keeps
/// its index.
#[inline(never)]
fn ksm_merged(ctx: &FExitContext) {
    let (vma, page, kpage) = (kernel::arg(ctx, 0), kernel::arg(ctx, 1), kernel::arg(ctx, 2));
    let ret = kernel::arg(ctx, 3) as i32;
    if ret != 0 || kpage == 0 || kpage == page {
        return;
    }
    let owner = owner::of_mm(kernel::vma_mm(vma));
    if !owner.is_wanted_outside() {
        return;
    }
    let (tgid, tid) = kernel::current();
    emit::outside(MappingMoved {
        reason: outside::KSM_MERGE,
        flags: owner.flags(),
        at: kernel::now(),
        vaddr: kernel::address_in(vma, kernel::read(page, config!(folio_index))),
        old_pfn: kernel::folio_pfn(page),
        new_pfn: kernel::folio_pfn(kpage),
        owner_tgid: owner.tgid,
        actor_tgid: tgid,
        actor_tid: tid,
        pages: 1,
        ..MappingMoved::default()
    });
}
twice!(#[fexit(function = "try_to_merge_one_page")] ksm_merged, ksm_merged_again: FExitContext);
