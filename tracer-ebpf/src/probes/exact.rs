//! The exact backend: every folio and every mapping, with its owner, from the kernel itself.
//! Input: fentry and fexit of mm/migrate.c and mm/rmap.c, and the tracepoints inside them.

use aya_ebpf::{
    btf_maps::LruHashMap,
    macros::{btf_map, fentry, fexit, raw_tracepoint},
    programs::{FEntryContext, FExitContext, RawTracePointContext},
};
use tracer_common::{
    arch,
    event::MappingMoved,
    task::{Folio, Task, Window},
};

use crate::{
    emit, filter,
    kernel::{self, config},
    owner,
    probes::{failure, unmapped},
    rmap, state,
    turn::twice,
};

/// A folio being unmapped from a VMA.
#[repr(C)]
#[derive(Clone, Copy)]
struct Unmapping {
    folio: u64,
    vma: u64,
}

/// When each unmapping began. The map evicts the least recently used entry: some restores never come, because the VMA
/// was unmapped or moved meanwhile.
#[btf_map]
static UNMAPPED_AT: LruHashMap<Unmapping, u64, 32768> = LruHashMap::new();

/// `bool try_to_migrate_one(struct folio *folio, struct vm_area_struct *vma, unsigned long address, void *arg)`, 6.1 to
/// 7.3, mm/rmap.c. Called once per folio and VMA, before its entries are cleared. `arg`: `enum ttu_flags`.
#[inline(never)]
fn unmapping(ctx: &FEntryContext) {
    // A split outside migrate_pages reaches this hook too; its entry would never be removed.
    let (_, tid) = kernel::current();
    if state::wanted_call(tid).is_none() {
        return;
    }
    // A split inside migrate_pages begins no move: the rest of the folio may move later, or never be tried.
    if kernel::arg(ctx, 3) as u32 & config!(ttu_sync) != 0 {
        return;
    }
    if !filter::wants_every_order() && !filter::wants_order(kernel::folio_order(kernel::arg(ctx, 0))) {
        return;
    }
    if !filter::wants_everybody() && !owner::of_mm(kernel::vma_mm(kernel::arg(ctx, 1))).is_wanted() {
        return;
    }
    let key = Unmapping {
        folio: kernel::arg(ctx, 0),
        vma: kernel::arg(ctx, 1),
    };
    let _ = UNMAPPED_AT.insert(key, kernel::now(), 0);
}
twice!(#[fentry(function = "try_to_migrate_one")] unmapping, unmapping_again: FEntryContext);

/// The return of the same function. False: the mapping stays, and the folio stays where it is, since the walk ends
/// there (`rmap_walk`, mm/rmap.c). The folio may be pinned, or the mapping's lock be held (hugetlb).
#[inline(never)]
fn unmapping_ended(ctx: &FExitContext) {
    let (folio, vma) = (kernel::arg(ctx, 0), kernel::arg(ctx, 1));
    let (_, tid) = kernel::current();
    if let Some(call) = state::wanted_call(tid) {
        take_unmapped_at(Unmapping { folio, vma });
        failure::still_mapped(call, folio, vma, kernel::arg(ctx, 2));
    }
}
twice!(#[fexit(function = "try_to_migrate_one")] unmapping_ended, unmapping_ended_again: FExitContext, if |ctx| {
    kernel::arg(ctx, 4) as u8 == 0 && kernel::arg(ctx, 3) as u32 & config!(ttu_sync) == 0
});

/// `int move_to_new_folio(struct folio *dst, struct folio *src, enum migrate_mode mode)`, 6.1 to 7.3,
/// mm/migrate.c. Returns 0 exactly once per folio that moved.
#[inline(never)]
fn folio_moved(ctx: &FExitContext) {
    let (dst, src) = (kernel::arg(ctx, 0), kernel::arg(ctx, 1));
    let ret = kernel::arg(ctx, 3) as i32;
    let (_, tid) = kernel::current();
    let Some(call) = state::wanted_call(tid) else {
        return;
    };
    if ret != 0 {
        failure::not_copied(call, src, ret);
        return;
    }
    unmapped::finish_folio(call);
    failure::moved_after_all(call, src);
    // The order is the copy's: the source may have lost it already.
    let order = kernel::folio_order(dst);
    call.folio = Folio {
        src,
        dst,
        pages: 1 << (order & 31),
        file: unmapped::file_of(dst),
        order,
        mapped: 0,
        reported: 0,
        unowned: 0,
        pad: [0; 4],
    };
}
twice!(#[fexit(function = "move_to_new_folio")] folio_moved, folio_moved_again: FExitContext);

/// `bool remove_migration_pte(struct folio *dst, struct vm_area_struct *vma, unsigned long addr, void *arg)`, 6.1 to
/// 7.3, mm/migrate.c. Called once per VMA that may map the folio; opens the window. If source and destination are the
/// same, a failed or split folio is put back: this is no move, but shows a place at which the folio is mapped.
#[inline(never)]
fn restoring(ctx: &FEntryContext) {
    let (_, tid) = kernel::current();
    let Some(task) = state::get(tid) else {
        return;
    };
    task.window.open = 0;
    let Some(call) = state::innermost(task) else {
        return;
    };
    if call.wanted == 0 {
        return;
    }
    let (begun, order) = (call.begun, call.folio.order);
    let dst = kernel::arg(ctx, 0);
    let src = kernel::migration_source(kernel::arg(ctx, 3));
    let vma = kernel::arg(ctx, 1);
    if src == dst {
        take_unmapped_at(Unmapping { folio: src, vma });
        let owner = owner::of_mm(kernel::vma_mm(vma));
        task.window = Window {
            open: Window::PUT_BACK,
            owner_tgid: owner.tgid,
            wanted: u8::from(owner.is_wanted()),
            folio: src,
            end: rmap::end_in(src, vma),
            ..Window::CLOSED
        };
        return;
    }
    let owner = owner::of_mm(kernel::vma_mm(vma));
    let wanted_folio = filter::wants_order(order);
    let wanted = wanted_folio && owner.is_wanted();
    let mut unmapped_at = 0;
    if wanted {
        unmapped_at = take_unmapped_at(Unmapping { folio: src, vma });
        if unmapped_at < begun {
            unmapped_at = 0; // left over from an earlier folio at the same place
        }
    }
    task.window = Window {
        open: Window::MOVED,
        owner_tgid: owner.tgid,
        folio: src,
        frame_delta: ((dst.wrapping_sub(src) as i64) >> (config!(page_struct_shift) & 63)) as u64,
        unmapped_at,
        end: 0,
        vaddr: 0,
        new_pfn: 0,
        at: 0,
        pages: 0,
        wanted: u8::from(wanted),
        flags: owner.flags(),
        unowned: u8::from(wanted_folio && owner.tgid == 0),
        pad: 0,
    };
}
twice!(#[fentry(function = "remove_migration_pte")] restoring, restoring_again: FEntryContext);

/// Takes the time at which the unmapping of the folio from the VMA began; 0: not seen.
#[inline(always)]
fn take_unmapped_at(key: Unmapping) -> u64 {
    // SAFETY: a u64 of the map, read once.
    let at = UNMAPPED_AT.get_ptr(key).map_or(0, |at| unsafe { *at });
    if at != 0 {
        let _ = UNMAPPED_AT.remove(key);
    }
    at
}

/// `TP_PROTO(unsigned long addr, unsigned long pte, int order)`, 6.1 to 7.3,
/// include/trace/events/migrate.h. `order` is the folio's at its first page and 0 after it, whatever
/// is mapped: only a huge entry (hugetlb) maps all of it.
#[inline(never)]
fn mapping_restored(ctx: &RawTracePointContext) {
    let (addr, pte): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let (_, tid) = kernel::current();
    if let Some(task) = state::get(tid) {
        let order = if arch::maps_huge(pte) { ctx.arg::<u32>(2) } else { 0 };
        extend(
            task,
            tid,
            addr,
            arch::present_pfn(pte, order & 31, config!(pfn_bits)),
            1 << (order & 31),
        );
    }
}
twice!(#[raw_tracepoint(tracepoint = "remove_migration_pte")] mapping_restored, mapping_restored_again: RawTracePointContext);

/// `TP_PROTO(unsigned long addr, unsigned long pmd)`, 6.1 to 7.3, include/trace/events/thp.h.
#[inline(never)]
fn huge_mapping_restored(ctx: &RawTracePointContext) {
    let (addr, pmd): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let (_, tid) = kernel::current();
    if let Some(task) = state::get(tid) {
        let pfn = arch::present_pfn(pmd, arch::PMD_ORDER, config!(pfn_bits));
        extend(task, tid, addr, pfn, 1 << arch::PMD_ORDER);
    }
}
twice!(#[raw_tracepoint(tracepoint = "remove_migration_pmd")] huge_mapping_restored, huge_mapping_restored_again: RawTracePointContext);

/// Closes the window, and sends its extent.
#[inline(never)]
fn restored(_ctx: &FExitContext) {
    let (_, tid) = kernel::current();
    if let Some(task) = state::get(tid) {
        if task.window.open == Window::MOVED {
            flush(task, tid);
        }
        task.window.open = 0;
    }
}
twice!(#[fexit(function = "remove_migration_pte")] restored, restored_again: FExitContext);

/// `void migrate_folio_done(struct folio *src, enum migrate_reason reason)`, 6.1 to 7.3, mm/migrate.c. Also called for
/// a folio that was freed before its turn came; the kernel counts it as a success.
#[inline(never)]
fn folio_done(ctx: &FEntryContext) {
    let src = kernel::arg(ctx, 0);
    let (_, tid) = kernel::current();
    let Some(call) = state::wanted_call(tid) else {
        return;
    };
    let order = if call.folio.src == src {
        let order = call.folio.order;
        unmapped::finish_folio(call);
        order
    } else {
        let order = kernel::folio_order(src);
        call.released += 1 << (order & 31);
        order
    };
    // The kernel does not call it for hugetlb, which it does not count as THP either.
    call.thps += u64::from(u32::from(order) >= config!(thp_order));
}
twice!(#[fentry(function = "migrate_folio_done")] folio_done, folio_done_again: FEntryContext);

/// Adds one mapping to the extent, or sends the extent and begins another.
#[inline(always)]
fn extend(task: &mut Task, tid: u32, addr: u64, new_pfn: u64, pages: u32) {
    match task.window.open {
        Window::MOVED => {}
        Window::PUT_BACK => {
            let Window {
                folio,
                owner_tgid,
                wanted,
                end,
                ..
            } = task.window;
            // One mapping of a VMA is enough.
            task.window.open = 0;
            if let Some(call) = state::innermost(task) {
                failure::mapped_by(call, folio, owner_tgid, wanted != 0, addr, end);
            }
            return;
        }
        _ => return,
    }
    let unowned = if filter::wants_address(addr, pages) {
        task.window.unowned
    } else {
        0
    };
    if let Some(call) = state::innermost(task) {
        call.folio.mapped = 1;
        call.folio.unowned |= unowned;
    }
    // This follows the counts: a mapping that is filtered out is counted too.
    if task.window.wanted == 0 || !filter::wants_address(addr, pages) {
        return;
    }
    let have = u64::from(task.window.pages);
    if have != 0 && (addr != task.window.vaddr + arch::bytes(have) || new_pfn != task.window.new_pfn + have) {
        flush(task, tid);
    }
    let window = &mut task.window;
    if window.pages == 0 {
        window.vaddr = addr;
        window.new_pfn = new_pfn;
    }
    window.pages += pages;
    window.at = kernel::now();
}

#[inline(always)]
fn flush(task: &mut Task, tid: u32) {
    let window = task.window;
    task.window.pages = 0;
    let old_pfn = window.new_pfn.wrapping_sub(window.frame_delta);
    if window.pages == 0 || !filter::wants_frames(old_pfn, window.new_pfn) {
        return;
    }
    let Some(call) = state::innermost(task) else {
        return;
    };
    call.folio.reported = call.folio.reported.saturating_add(1);
    emit::mapping(MappingMoved {
        reason: call.reason,
        nth: call.folio.reported,
        order: call.folio.order,
        flags: window.flags,
        at: window.at,
        vaddr: window.vaddr,
        old_pfn,
        new_pfn: window.new_pfn,
        unmapped_at: window.unmapped_at,
        owner_tgid: window.owner_tgid,
        actor_tgid: kernel::current().0,
        actor_tid: tid,
        pages: window.pages,
        ..MappingMoved::default()
    });
}
