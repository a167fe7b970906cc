//! Pages that leave for swap, and those that come back: anonymous memory, which has an entry in the page table.
//! Input: mm/rmap.c's `try_to_unmap_one` and mm/memory.c's `do_swap_page`, and the mappings that change within them.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_EXIST, BPF_F_NO_PREALLOC},
    btf_maps::HashMap,
    helpers::bpf_loop,
    macros::{btf_map, fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use tracer_common::{
    arch,
    counter::Counter,
    event::{MappingMoved, outside},
};

use crate::{
    counters, emit,
    kernel::{self, config},
    owner,
    turn::twice,
};

/// Most tasks that unmap, or fault, at the same time; one more is counted as lost.
const MAX_TASKS: usize = 1 << 13;

/// Swap entries whose departure is remembered; user space sets the map's size where swap is requested. A slot that is
/// used again is overwritten, whichever process uses it, so that no entry is stale. Without room the page comes back
/// from an unknown frame.
const MAX_SWAPPED: usize = 1;

/// A folio being unmapped from a VMA.
#[repr(C)]
#[derive(Clone, Copy)]
struct Leaving {
    folio: u64,
    vma: u64,
    address: u64,
    owner_tgid: u32,
    flags: u8,
    order: u8,
    /// 0: it is not reported.
    wanted: u8,
    /// 0: its owner is not wanted. It only takes slots that another page had.
    owner_wanted: u8,
}

/// A page fault on a swap entry.
#[repr(C)]
#[derive(Clone, Copy)]
struct Returning {
    vma: u64,
    address: u64,
    /// `swp_entry_t.val` at `address`.
    entry: u64,
    begun: u64,
    owner_tgid: u32,
    flags: u8,
    pad: [u8; 3],
}

/// Key: tid.
#[btf_map]
static LEAVING: HashMap<u32, Leaving, MAX_TASKS> = HashMap::new();

/// Key: tid.
#[btf_map]
static RETURNING: HashMap<u32, Returning, MAX_TASKS> = HashMap::new();

/// The frame that a page had when it left. Key: `swp_entry_t.val`; shared by all processes that map the page.
#[btf_map]
static SWAPPED: HashMap<u64, u64, MAX_SWAPPED, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// `bool try_to_unmap_one(struct folio *folio, struct vm_area_struct *vma, unsigned long address, void *arg)`, 6.1 to
/// 7.3, mm/rmap.c. Only a folio with a place on swap leaves for it: the others are dropped, or are file pages.
#[inline(never)]
fn swap_out_begin(ctx: &FEntryContext) {
    let (folio, vma) = (kernel::arg(ctx, 0), kernel::arg(ctx, 1));
    if !kernel::is_swapped_anon(folio) {
        return;
    }
    let owner = owner::of_mm(kernel::vma_mm(vma));
    let leaving = Leaving {
        folio,
        vma,
        address: kernel::arg(ctx, 2),
        owner_tgid: owner.tgid,
        flags: owner.flags(),
        order: kernel::folio_order(folio),
        wanted: u8::from(owner.is_wanted_outside()),
        owner_wanted: u8::from(owner.is_wanted()),
    };
    let (_, tid) = kernel::current();
    if LEAVING.insert(tid, leaving, 0).is_err() && leaving.wanted != 0 {
        counters::add(Counter::LostCalls, 1);
    }
}
twice!(#[fentry(function = "try_to_unmap_one")] swap_out_begin, swap_out_begin_again: FEntryContext);

/// `void folio_remove_rmap_ptes(struct folio *folio, struct page *page, int nr_pages, struct vm_area_struct *vma)`,
/// 6.12 to 7.3, mm/rmap.c; `page_remove_rmap(struct page *page, struct vm_area_struct *vma, bool compound)` on 6.1.
/// Called within `try_to_unmap_one`: the entries of these pages have just become swap entries.
#[inline(never)]
fn swap_out_unmapped(ctx: &FEntryContext) {
    let (tgid, tid) = kernel::current();
    let Some(leaving) = LEAVING.get_ptr(tid) else {
        return;
    };
    // SAFETY: a live value of the map, which only this task writes.
    let leaving = unsafe { *leaving };
    let single = kernel::arg_count(ctx) == 3;
    // A huge page is split before it leaves: it does not leave yet.
    if single && kernel::arg(ctx, 2) as u8 != 0 {
        return;
    }
    let (page, pages, vma) = if single {
        (kernel::arg(ctx, 0), 1, kernel::arg(ctx, 1))
    } else {
        (kernel::arg(ctx, 1), kernel::arg(ctx, 2) as u32, kernel::arg(ctx, 3))
    };
    let index = page.wrapping_sub(leaving.folio) >> (config!(page_struct_shift) & 63);
    if vma != leaving.vma || index >> (leaving.order & 31) != 0 {
        return;
    }
    // A KSM page does not lie where its index says, but is always a base page.
    let vaddr = if leaving.order == 0 {
        leaving.address
    } else {
        let first: u64 = kernel::read(leaving.folio, config!(folio_index));
        kernel::address_in(vma, first + index)
    };
    let old_pfn = kernel::folio_pfn(page);
    let mut departure = Departure {
        entry: kernel::read::<u64>(leaving.folio, config!(folio_swap)) + index,
        old_pfn,
        // With BPF_EXIST it takes no room from processes that are wanted.
        flags: if leaving.owner_wanted != 0 {
            0
        } else {
            u64::from(BPF_EXIST)
        },
    };
    // SAFETY: `remember` has the signature that the helper wants, and `departure` outlives the call.
    unsafe { bpf_loop(pages, remember as *mut c_void, (&raw mut departure).cast(), 0) };
    if leaving.wanted == 0 {
        return;
    }
    emit::outside(MappingMoved {
        reason: outside::SWAP_OUT,
        order: leaving.order,
        flags: leaving.flags,
        at: kernel::now(),
        vaddr,
        old_pfn,
        owner_tgid: leaving.owner_tgid,
        actor_tgid: tgid,
        actor_tid: tid,
        pages,
        ..MappingMoved::default()
    });
}
twice!(#[fentry(function = "folio_remove_rmap_ptes")] swap_out_unmapped, swap_out_unmapped_again: FEntryContext);

#[inline(never)]
fn swap_out_end(_ctx: &FExitContext) {
    let (_, tid) = kernel::current();
    let _ = LEAVING.remove(tid);
}
twice!(#[fexit(function = "try_to_unmap_one")] swap_out_end, swap_out_end_again: FExitContext);

/// The first of an extent of pages and of their entries.
struct Departure {
    entry: u64,
    old_pfn: u64,
    /// Flags of `bpf_map_update_elem`.
    flags: u64,
}

#[inline(never)]
extern "C" fn remember(page: u32, departure: &mut Departure) -> i64 {
    let page = u64::from(page);
    let entry = departure.entry + page;
    if SWAPPED
        .insert(entry, departure.old_pfn + page, departure.flags)
        .is_err()
    {
        // There was no entry, or there is no memory for the new one: no frame is better than that of the page before.
        let _ = SWAPPED.remove(entry);
    }
    0
}

/// `vm_fault_t do_swap_page(struct vm_fault *vmf)`, 6.1 to 7.3, mm/memory.c: an entry that is not present is accessed.
#[inline(never)]
fn swap_in_begin(ctx: &FEntryContext) {
    let vmf = kernel::arg(ctx, 0);
    let vma = kernel::read(vmf, config!(fault_vma));
    let owner = owner::of_mm(kernel::vma_mm(vma));
    // 0: a migration entry, or another one that is not swap's.
    let entry = arch::swap_entry(kernel::read(vmf, config!(fault_pte)));
    if entry == 0 || !owner.is_wanted_outside() {
        return;
    }
    let returning = Returning {
        vma,
        address: arch::page_start(kernel::read(vmf, config!(fault_address))),
        entry,
        begun: kernel::now(),
        owner_tgid: owner.tgid,
        flags: owner.flags(),
        pad: [0; 3],
    };
    let (_, tid) = kernel::current();
    if RETURNING.insert(tid, returning, 0).is_err() {
        counters::add(Counter::LostCalls, 1);
    }
}
twice!(#[fentry(function = "do_swap_page")] swap_in_begin, swap_in_begin_again: FEntryContext);

/// `void folio_add_anon_rmap_ptes(struct folio *folio, struct page *page, int nr_pages, struct vm_area_struct *vma,
/// unsigned long address, rmap_t flags)`, 6.12 to 7.3, mm/rmap.c; `page_add_anon_rmap(struct page *page,
/// struct vm_area_struct *vma, unsigned long address, rmap_t flags)` on 6.1. Within a swap fault it maps pages of the
/// swap cache; their entries were compared before, under their lock, and are set right after.
#[inline(never)]
fn swap_in_mapped(ctx: &FEntryContext) {
    if kernel::arg_count(ctx) == 4 {
        let (page, vma, address) = (kernel::arg(ctx, 0), kernel::arg(ctx, 1), kernel::arg(ctx, 2));
        came_back(page, 1, vma, address);
    } else {
        let (page, pages) = (kernel::arg(ctx, 1), kernel::arg(ctx, 2) as u32);
        came_back(page, pages, kernel::arg(ctx, 3), kernel::arg(ctx, 4));
    }
}
twice!(#[fentry(function = "folio_add_anon_rmap_ptes")] swap_in_mapped, swap_in_mapped_again: FEntryContext);

/// `void folio_add_new_anon_rmap(struct folio *folio, struct vm_area_struct *vma, unsigned long address, ...)`, as in
/// `copy`. Within a swap fault it maps pages that were read for this process alone, or the copy of a KSM page.
#[inline(never)]
fn swap_in_mapped_new(ctx: &FEntryContext) {
    let folio = kernel::arg(ctx, 0);
    let pages = 1 << (kernel::folio_order(folio) & 31);
    came_back(folio, pages, kernel::arg(ctx, 1), kernel::arg(ctx, 2));
}
twice!(#[fentry(function = "folio_add_new_anon_rmap")] swap_in_mapped_new, swap_in_mapped_new_again: FEntryContext);

#[inline(never)]
fn swap_in_end(_ctx: &FExitContext) {
    let (_, tid) = kernel::current();
    let _ = RETURNING.remove(tid);
}
twice!(#[fexit(function = "do_swap_page")] swap_in_end, swap_in_end_again: FExitContext);

/// Pages that come back, from the first on.
struct Arrival {
    returning: Returning,
    address: u64,
    new_pfn: u64,
    at: u64,
    order: u8,
}

/// Reports the pages that a swap fault of this task maps, unless they are of another VMA.
#[inline(always)]
fn came_back(page: u64, pages: u32, vma: u64, address: u64) {
    let (_, tid) = kernel::current();
    let Some(returning) = RETURNING.get_ptr(tid) else {
        return;
    };
    // SAFETY: a live value of the map, which only this task writes.
    let returning = unsafe { *returning };
    // To make room, the fault may have moved other pages of the VMA.
    let ahead = arch::pages(returning.address.wrapping_sub(address));
    if returning.vma != vma || ahead >= u64::from(pages) {
        return;
    }
    // A fault maps once; a copy of the page right after that is no arrival.
    let _ = RETURNING.remove(tid);
    let mut arrival = Arrival {
        returning,
        address,
        new_pfn: kernel::folio_pfn(page),
        at: kernel::now(),
        order: if pages == 1 {
            0
        } else {
            kernel::folio_order(kernel::head_of(page))
        },
    };
    // SAFETY: `report` has the signature that the helper wants, and `arrival` outlives the call.
    unsafe { bpf_loop(pages, report as *mut c_void, (&raw mut arrival).cast(), 0) };
}

/// Reports a page that came back. A page that is still in its old frame, in the swap cache, has not moved.
#[inline(never)]
extern "C" fn report(page: u32, arrival: &mut Arrival) -> i64 {
    let page = u64::from(page);
    let returning = &arrival.returning;
    let vaddr = arrival.address + arch::bytes(page);
    // The entries of neighbours that come back together are neighbours too.
    let entry = returning
        .entry
        .wrapping_add((vaddr.wrapping_sub(returning.address) as i64 >> arch::PAGE_SHIFT) as u64);
    // SAFETY: a u64 of the map, read once.
    let old_pfn = SWAPPED.get_ptr(entry).map_or(0, |pfn| unsafe { *pfn });
    let new_pfn = arrival.new_pfn + page;
    if old_pfn == new_pfn {
        return 0;
    }
    let (tgid, tid) = kernel::current();
    emit::outside(MappingMoved {
        reason: outside::SWAP_IN,
        order: arrival.order,
        flags: returning.flags,
        at: arrival.at,
        vaddr,
        old_pfn,
        new_pfn,
        unmapped_at: returning.begun,
        owner_tgid: returning.owner_tgid,
        actor_tgid: tgid,
        actor_tid: tid,
        pages: 1,
        ..MappingMoved::default()
    });
    0
}
