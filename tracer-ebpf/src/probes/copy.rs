//! Pages copied because they are written to while others share them: copy on write, and KSM pages unmerged.
//! Input: mm/memory.c's `do_wp_page`, hugetlb's copying, and the mapping of the copy.
//! The programs are on the path of page faults: they take few instructions where there is nothing to copy.

use aya_ebpf::{
    btf_maps::HashMap,
    macros::{btf_map, fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use tracer_common::{
    arch::{self, PMD_ORDER, PMD_SHIFT},
    config::kinds,
    counter::Counter,
    event::{MappingMoved, outside},
};

use crate::{
    counters, emit,
    kernel::{self, config},
    owner,
    turn::twice,
    walk,
};

/// Most tasks in a write fault at the same time; the fault of one more is counted as lost.
const MAX_TASKS: usize = 1 << 13;

/// A write fault on a page that may have to be copied.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fault {
    vma: u64,
    address: u64,
    old_pfn: u64,
    /// For hugetlb the folio of the copy, which was made before; [`SPLITTING`]; else 0.
    copy: u64,
    begun: u64,
    owner_tgid: u32,
    flags: u8,
    reason: u8,
    order: u8,
    pad: u8,
}

/// [`Fault::copy`] while the huge page that maps the address is split, which comes before the copy. No folio has this
/// address.
const SPLITTING: u64 = 1;

/// `VM_FAULT_FALLBACK`, include/linux/mm_types.h, 6.1 to 7.3: the fault goes on with base pages.
const FALLBACK: u32 = 0x800;

/// Key: tid.
#[btf_map]
static FAULTS: HashMap<u32, Fault, MAX_TASKS> = HashMap::new();

/// `vm_fault_t do_huge_pmd_wp_page(struct vm_fault *vmf)`, 6.1 to 7.3, mm/huge_memory.c: a huge page without write
/// permission is written to. If others share it, it is split, and the same fault goes on with `do_wp_page`
/// (`__handle_mm_fault`, mm/memory.c): the write waits from here on.
#[inline(never)]
fn split_begin(ctx: &FEntryContext) {
    let vmf = kernel::arg(ctx, 0);
    let vma = kernel::read(vmf, config!(fault_vma));
    if !owner::of_mm(kernel::vma_mm(vma)).is_wanted_outside() {
        return;
    }
    let splitting = Fault {
        vma,
        address: arch::page_start(kernel::read(vmf, config!(fault_address))),
        old_pfn: 0,
        copy: SPLITTING,
        begun: kernel::now(),
        owner_tgid: 0,
        flags: 0,
        reason: 0,
        order: 0,
        pad: 0,
    };
    let (_, tid) = kernel::current();
    // Without room here, the copy finds none either, and is counted as lost.
    let _ = FAULTS.insert(tid, splitting, 0);
}
twice!(#[fentry(function = "do_huge_pmd_wp_page")] split_begin, split_begin_again: FEntryContext);

/// The huge page was not split: the fault is over, or begins anew.
#[inline(never)]
fn split_end(_ctx: &FExitContext) {
    let (_, tid) = kernel::current();
    let _ = FAULTS.remove(tid);
}
twice!(#[fexit(function = "do_huge_pmd_wp_page")] split_end, split_end_again: FExitContext, if |ctx| {
    kernel::arg(ctx, 1) as u32 & FALLBACK == 0
});

/// When the write to this page began to wait: at the split of a huge page, or now.
#[inline(always)]
fn begun(vma: u64, address: u64) -> u64 {
    let (_, tid) = kernel::current();
    // SAFETY: a live value of the map, which only this task writes.
    match FAULTS.get_ptr(tid).map(|fault| unsafe { *fault }) {
        Some(fault) if fault.copy == SPLITTING && fault.vma == vma && fault.address == address => fault.begun,
        _ => kernel::now(),
    }
}

/// `vm_fault_t do_wp_page(struct vm_fault *vmf)`, 6.1 to 7.3, mm/memory.c: a present entry without write permission
/// is written to, or is to become exclusive.
#[inline(never)]
fn copy_begin(ctx: &FEntryContext) {
    let vmf = kernel::arg(ctx, 0);
    let vma = kernel::read(vmf, config!(fault_vma));
    let owner = owner::of_mm(kernel::vma_mm(vma));
    if !owner.is_wanted_outside() {
        return;
    }
    let entry: u64 = kernel::read(vmf, config!(fault_pte));
    let old_pfn = arch::present_pfn(entry, 0, config!(pfn_bits));
    let (reason, kind) = if kernel::is_ksm(old_pfn) {
        (outside::KSM_UNMERGE, kinds::KSM)
    } else {
        (outside::COW, kinds::COW)
    };
    if config!(kinds) & kind == 0 {
        return;
    }
    let address = arch::page_start(kernel::read(vmf, config!(fault_address)));
    remember(Fault {
        vma,
        address,
        old_pfn,
        copy: 0,
        begun: begun(vma, address),
        owner_tgid: owner.tgid,
        flags: owner.flags(),
        reason,
        order: 0,
        pad: 0,
    });
}
twice!(#[fentry(function = "do_wp_page")] copy_begin, copy_begin_again: FEntryContext);

/// `int copy_user_large_folio(struct folio *dst, struct folio *src, unsigned long addr_hint,
/// struct vm_area_struct *vma)`, 6.12 to 7.3, mm/memory.c; `copy_user_huge_page` with pages on 6.1. Only hugetlb calls
/// it. It also copies for fork and userfaultfd, but then nothing is mapped there yet.
#[inline(never)]
fn huge_copy_begin(ctx: &FEntryContext) {
    let (dst, src, vma) = (kernel::arg(ctx, 0), kernel::arg(ctx, 1), kernel::arg(ctx, 3));
    let mm = kernel::vma_mm(vma);
    let owner = owner::of_mm(mm);
    if !owner.is_wanted_outside() {
        return;
    }
    let address = kernel::arg(ctx, 2) >> PMD_SHIFT << PMD_SHIFT;
    let (entry, old_pfn) = (walk::pmd_entry(mm, address), kernel::folio_pfn(src));
    let mapped = arch::present(entry)
        && arch::maps_huge(entry)
        && arch::present_pfn(entry, PMD_ORDER, config!(pfn_bits)) == old_pfn;
    if !mapped {
        return;
    }
    remember(Fault {
        vma,
        address,
        old_pfn,
        copy: dst,
        begun: kernel::now(),
        owner_tgid: owner.tgid,
        flags: owner.flags(),
        reason: outside::COW,
        order: PMD_ORDER as u8,
        pad: 0,
    });
}
twice!(#[fentry(function = "copy_user_large_folio")] huge_copy_begin, huge_copy_begin_again: FEntryContext);

/// `void hugetlb_add_new_anon_rmap(struct folio *folio, struct vm_area_struct *vma, unsigned long address)`, 6.12 to
/// 7.3, mm/rmap.c; `hugepage_add_new_anon_rmap` with a page on 6.1. It reports as `copy_mapped` does.
#[inline(never)]
fn huge_copy_mapped(ctx: &FEntryContext) {
    report(
        kernel::arg(ctx, 0),
        kernel::arg(ctx, 0),
        kernel::arg(ctx, 1),
        kernel::arg(ctx, 2),
    );
}
twice!(#[fentry(function = "hugetlb_add_new_anon_rmap")] huge_copy_mapped, huge_copy_mapped_again: FEntryContext);

#[inline(always)]
fn remember(fault: Fault) {
    let (_, tid) = kernel::current();
    if FAULTS.insert(tid, fault, 0).is_err() {
        counters::add(Counter::LostCalls, 1);
    }
}

/// Forgets a task that is gone, perhaps after a copy of a hugetlb page that came too late to be mapped.
#[inline(always)]
pub fn forget(tid: u32) {
    if config!(kinds) & kinds::COW != 0 {
        let _ = FAULTS.remove(tid);
    }
}

/// `void folio_add_new_anon_rmap(struct folio *folio, struct vm_area_struct *vma, unsigned long address, ...)`, 6.12 to
/// 7.3, mm/rmap.c; `page_add_new_anon_rmap` with a page on 6.1. Within a write fault it maps the copy: the entry was
/// compared before, under its lock, and is set right after. A fault that need not copy, or comes too late, does
/// not reach this hook.
#[inline(never)]
fn copy_mapped(ctx: &FEntryContext) {
    report(kernel::arg(ctx, 0), 0, kernel::arg(ctx, 1), kernel::arg(ctx, 2));
}
twice!(#[fentry(function = "folio_add_new_anon_rmap")] copy_mapped, copy_mapped_again: FEntryContext);

/// The fault is over: a copy that is not mapped by now never will be.
#[inline(never)]
fn copy_end(_ctx: &FExitContext) {
    let (_, tid) = kernel::current();
    let _ = FAULTS.remove(tid);
}
twice!(#[fexit(function = "do_wp_page")] copy_end, copy_end_again: FExitContext);

/// Reports the folio, if it is the copy that the fault of this task waits for.
#[inline(always)]
fn report(folio: u64, copy: u64, vma: u64, address: u64) {
    let (tgid, tid) = kernel::current();
    let Some(fault) = FAULTS.get_ptr(tid) else {
        return;
    };
    // SAFETY: a live value of the map, which only this task writes.
    let fault = unsafe { *fault };
    if fault.copy != copy || fault.vma != vma || fault.address != arch::page_start(address) {
        return;
    }
    let _ = FAULTS.remove(tid);
    emit::outside(MappingMoved {
        reason: fault.reason,
        order: fault.order,
        flags: fault.flags,
        at: kernel::now(),
        vaddr: fault.address,
        old_pfn: fault.old_pfn,
        new_pfn: kernel::folio_pfn(folio),
        unmapped_at: fault.begun,
        owner_tgid: fault.owner_tgid,
        actor_tgid: tgid,
        actor_tid: tid,
        pages: 1 << (fault.order & 31),
        ..MappingMoved::default()
    });
}
