//! Finds where the kernel has its direct map and its array of `struct page`, for a kernel that has no /proc/kcore.
//! Input: the kernel stack of the current task: its pages are in a list, and in page tables.

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::Array,
    helpers::{bpf_get_current_task, bpf_loop},
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use tracer_common::{arch, bases::Bases};

use crate::{
    kernel::{self, config},
    walk,
};

/// The result. User space reads it.
#[btf_map]
static BASES: Array<Bases, 1> = Array::new();

/// Pages of the stack that are looked up: all of it on x86-64 (`THREAD_SIZE`).
const PAGES: u32 = 4;

/// The stack, and the page tables in which it is.
struct Stack {
    /// `mm_struct.pgd`, an address in the direct map.
    pgd: u64,
    /// Its first address.
    start: u64,
    /// `struct page **`.
    pages: u64,
}

/// It is attached to no hook: user space has the kernel run it (`BPF_PROG_TEST_RUN`). CONFIG_VMAP_STACK, the rule on
/// x86-64, keeps the stack of a task in a `vm_struct` of its own (`alloc_thread_stack_node`, kernel/fork.c, 6.1 to 7.3).
#[raw_tracepoint(tracepoint = "mm_page_alloc")]
pub fn find_bases(_context: RawTracePointContext) -> i32 {
    // SAFETY: the helper has no preconditions.
    let task = unsafe { bpf_get_current_task() };
    let area = kernel::peek(task, config!(task_stack_area));
    let mut stack = Stack {
        pgd: kernel::peek(kernel::peek(task, config!(task_mm)), config!(mm_pgd)),
        start: kernel::peek(area, config!(vm_addr)),
        pages: kernel::peek(area, config!(vm_pages)),
    };
    if config!(task_stack_area) == 0 || area == 0 || stack.pgd == 0 {
        return 0;
    }
    // The direct map begins where a gibibyte does, at or below the PGD and by at most this machine's memory.
    let gibibytes = 1u32 << ((config!(pfn_bits) + arch::PAGE_SHIFT - arch::PUD_SHIFT) & 31);
    // SAFETY: the callback has the signature that the helper calls, and the context outlives the loop.
    unsafe { bpf_loop(gibibytes, try_base as *mut c_void, (&raw mut stack).cast(), 0) };
    0
}

/// Tries one address for the direct map's begin. With the right one, the page tables lead to frames whose `struct page`s
/// are those of the stack's list: all of these give the same address for the first frame's.
#[inline(never)]
extern "C" fn try_base(nth: u64, stack: &mut Stack) -> i64 {
    const GIBIBYTE: u64 = 1 << arch::PUD_SHIFT;
    let page_offset = (stack.pgd & !(GIBIBYTE - 1)).wrapping_sub(nth * GIBIBYTE);
    let mut vmemmap = 0;
    let mut page = 0;
    while page < PAGES {
        let pfn = walk::frame(page_offset, stack.pgd, stack.start + arch::bytes(page.into()));
        let base = kernel::peek(stack.pages, page * size_of::<u64>() as u32)
            .wrapping_sub(pfn << (config!(page_struct_shift) & 63));
        // Both begin where a gibibyte does (`kernel_randomize_memory`, arch/x86/mm/kaslr.c, 6.1 to 7.3).
        if pfn == 0 || base & (GIBIBYTE - 1) != 0 || (page != 0 && base != vmemmap) {
            return 0;
        }
        vmemmap = base;
        page += 1;
    }
    let _ = BASES.set(0, Bases { page_offset, vmemmap }, 0);
    1
}
