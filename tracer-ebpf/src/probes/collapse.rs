//! Base pages that become part of a huge page: khugepaged and MADV_COLLAPSE, anonymous memory.
//! Input: mm/khugepaged.c's `collapse_huge_page` and the tracepoints inside it; the page table that it replaces.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::HashMap,
    helpers::{bpf_loop, bpf_probe_read_kernel_buf},
    macros::{btf_map, fentry, raw_tracepoint},
    programs::{FEntryContext, RawTracePointContext},
};
use tracer_common::{
    arch::{self, PAGE_SHIFT, PMD_ORDER, TABLE_ENTRIES},
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

/// Most tasks that collapse at the same time; the collapse of one more is counted as lost.
const MAX_TASKS: usize = 1024;

/// A task's collapse. The page table is read when the pages are isolated: by then it is cut off from the address space,
/// its pages are locked, and the kernel copies the pages in its entries.
#[repr(C)]
struct Collapse {
    mm: u64,
    /// First address.
    address: u64,
    /// Kernel address of the page table.
    table: u64,
    /// `CLOCK_MONOTONIC` nanoseconds; 0: the entries were not read.
    isolated_at: u64,
    owner_tgid: u32,
    order: u32,
    flags: u32,
    /// 1: the page table that the kernel put aside is not `table`.
    other_table: u32,
    /// The extent of neighbouring old frames that is being gathered; its first page is counted from `address`.
    extent_first: u64,
    extent_pfn: u64,
    extent_pages: u64,
    entries: [u64; TABLE_ENTRIES],
}

/// Key: tid.
#[btf_map]
static COLLAPSES: HashMap<u32, Collapse, MAX_TASKS, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// A `Collapse` is larger than a BPF stack. It has a plain name, as `state::EMPTY_TASK` has.
#[unsafe(no_mangle)]
static EMPTY_COLLAPSE: Collapse = Collapse {
    mm: 0,
    address: 0,
    table: 0,
    isolated_at: 0,
    owner_tgid: 0,
    order: 0,
    flags: 0,
    other_table: 0,
    extent_first: 0,
    extent_pfn: 0,
    extent_pages: 0,
    entries: [0; TABLE_ENTRIES],
};

#[inline(always)]
fn get(tid: u32) -> Option<&'static mut Collapse> {
    // SAFETY: a live value of the map. Only the task itself uses its entry; its programs do not nest.
    COLLAPSES.get_ptr_mut(tid).map(|p| unsafe { &mut *p })
}

/// `int collapse_huge_page(struct mm_struct *mm, unsigned long address, int referenced, int unmapped,
/// struct collapse_control *cc)`, 6.1 to 6.18, mm/khugepaged.c; since 7.2 with `unsigned int order`. It is called with
/// the mmap lock held, so that no page table goes away.
#[inline(never)]
fn collapse_begin(ctx: &FEntryContext) {
    let (mm, address) = (kernel::arg(ctx, 0), kernel::arg(ctx, 1));
    let owner = owner::of_mm(mm);
    if !owner.is_wanted_outside() {
        return;
    }
    let (_, tid) = kernel::current();
    if COLLAPSES.insert(tid, &EMPTY_COLLAPSE, 0).is_err() {
        counters::add(Counter::LostCalls, 1);
        return;
    }
    if let Some(collapse) = get(tid) {
        collapse.mm = mm;
        collapse.address = address;
        collapse.table = walk::table_of(walk::pmd_entry(mm, address));
        collapse.owner_tgid = owner.tgid;
        collapse.order = if kernel::arg_count(ctx) > 5 {
            kernel::arg(ctx, 5) as u32
        } else {
            PMD_ORDER
        };
        collapse.flags = owner.flags().into();
    }
}
twice!(#[fentry(function = "collapse_huge_page")] collapse_begin, collapse_begin_again: FEntryContext);

/// `TP_PROTO(struct page *page, int none_or_zero, ...)`, 6.1 to 7.3, include/trace/events/huge_memory.h. It is also
/// called if isolation failed: then the collapse fails, and its end drops the entries read here.
#[inline(never)]
fn collapse_isolated(_ctx: &RawTracePointContext) {
    let (_, tid) = kernel::current();
    let Some(collapse) = get(tid) else {
        return;
    };
    if collapse.table == 0 {
        return;
    }
    // SAFETY: the array's own bytes; any bytes are a value of it.
    let bytes = unsafe { core::slice::from_raw_parts_mut((&raw mut collapse.entries).cast::<u8>(), TABLE_ENTRIES * 8) };
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    if unsafe { bpf_probe_read_kernel_buf(collapse.table as *const u8, bytes) }.is_ok() {
        collapse.isolated_at = kernel::now();
    }
}
twice!(#[raw_tracepoint(tracepoint = "mm_collapse_huge_page_isolate")] collapse_isolated, collapse_isolated_again: RawTracePointContext);

/// `void pgtable_trans_huge_deposit(struct mm_struct *mm, pmd_t *pmdp, pgtable_t pgtable)`, 6.1 to 7.3,
/// mm/pgtable-generic.c. In a collapse `pgtable` is the page of the table whose pages were copied: it is compared with
/// the table that was read, because the mmap lock was released in between.
#[inline(never)]
fn collapse_deposits(ctx: &FEntryContext) {
    let (_, tid) = kernel::current();
    if let Some(collapse) = get(tid)
        && collapse.mm == kernel::arg(ctx, 0)
    {
        let table = arch::direct_address(config!(page_offset_base), kernel::folio_pfn(kernel::arg(ctx, 2)));
        collapse.other_table = u32::from(table != collapse.table);
    }
}
twice!(#[fentry(function = "pgtable_trans_huge_deposit")] collapse_deposits, collapse_deposits_again: FEntryContext);

/// `TP_PROTO(struct mm_struct *mm, int isolated, int status)`, with `unsigned int order` since 7.2,
/// include/trace/events/huge_memory.h. The end of `collapse_huge_page`; `isolated` is 1 where it succeeded.
#[inline(never)]
fn collapse_end(ctx: &RawTracePointContext) {
    let succeeded: u32 = ctx.arg(1);
    let (tgid, tid) = kernel::current();
    let Some(collapse) = get(tid) else {
        return;
    };
    if succeeded != 0 && !report(collapse, tgid, tid) {
        counters::add(Counter::LostCalls, 1);
    }
    let _ = COLLAPSES.remove(tid);
}
twice!(#[raw_tracepoint(tracepoint = "mm_collapse_huge_page")] collapse_end, collapse_end_again: RawTracePointContext);

/// Sends the extents of old frames. Returns false if the old or the new frames are not known for certain.
#[inline(always)]
fn report(collapse: &mut Collapse, tgid: u32, tid: u32) -> bool {
    let new_pfn = new_frame(collapse);
    if new_pfn == 0 || collapse.isolated_at == 0 || collapse.other_table != 0 {
        return false;
    }
    let mut report = Report {
        at: kernel::now(),
        new_pfn,
        collapse,
        tgid,
        tid,
    };
    // There is one more step than pages, in which the last extent ends.
    let steps = (1 << (report.collapse.order & 15)) + 1;
    // SAFETY: `step` has the signature that the helper wants, and `report` outlives the call.
    unsafe { bpf_loop(steps, step as *mut c_void, (&raw mut report).cast(), 0) };
    true
}

/// The context of a step of the loop.
struct Report<'a> {
    at: u64,
    new_pfn: u64,
    collapse: &'a mut Collapse,
    tgid: u32,
    tid: u32,
}

/// Adds one page to the extent, or sends the extent and begins another. The kernel calls it: the verifier
/// would follow all 513 turns of a loop in the program.
#[inline(never)]
extern "C" fn step(page: u32, report: &mut Report) -> i64 {
    let page = u64::from(page);
    let collapse = &mut *report.collapse;
    let mut index = arch::pages(collapse.address) + page;
    // SAFETY: masks a register; in assembly because the compiler might leave it out, and the verifier needs it.
    unsafe { asm!("{index} &= {mask}", index = inout(reg) index, mask = const TABLE_ENTRIES - 1) };
    let pfn = if page >> (collapse.order & 15) == 0 {
        // SAFETY: the mask keeps the index below the array's length.
        arch::page_pfn(
            unsafe { *collapse.entries.get_unchecked(index as usize) },
            config!(pfn_bits),
        )
    } else {
        0
    };
    let pages = collapse.extent_pages;
    if pages != 0 && pfn != collapse.extent_pfn + pages {
        emit::outside(MappingMoved {
            reason: outside::COLLAPSE,
            order: collapse.order as u8,
            flags: collapse.flags as u8,
            at: report.at,
            vaddr: collapse.address + arch::bytes(collapse.extent_first),
            old_pfn: collapse.extent_pfn,
            new_pfn: report.new_pfn + collapse.extent_first,
            unmapped_at: collapse.isolated_at,
            owner_tgid: collapse.owner_tgid,
            actor_tgid: report.tgid,
            actor_tid: report.tid,
            pages: pages as u32,
            ..MappingMoved::default()
        });
        collapse.extent_pages = 0;
    }
    if pfn != 0 {
        if collapse.extent_pages == 0 {
            collapse.extent_first = page;
            collapse.extent_pfn = pfn;
        }
        collapse.extent_pages += 1;
    }
    0
}

/// First frame of the new folio, from the entry that maps it now; 0 where something else is mapped there already.
#[inline(always)]
fn new_frame(collapse: &Collapse) -> u64 {
    let entry = walk::pmd_entry(collapse.mm, collapse.address);
    if arch::present(entry) && arch::maps_huge(entry) {
        return arch::present_pfn(entry, PMD_ORDER, config!(pfn_bits));
    }
    // A folio smaller than a PMD is mapped by the same table again; a huge one may have been split meanwhile.
    let table = walk::table_of(entry);
    if table == 0 || (collapse.order != PMD_ORDER && table != collapse.table) {
        return 0;
    }
    let entry = kernel::read(arch::entry_address(table, collapse.address, PAGE_SHIFT), 0);
    arch::page_pfn(entry, config!(pfn_bits))
}
