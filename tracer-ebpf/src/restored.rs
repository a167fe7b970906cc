//! Finds the address space whose mapping the kernel restored just now, by following the kernel's own walk.
//! Input: folios, addresses and frames from the tracepoint backend.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use tracer_common::{arch, task::Walk};

use crate::{
    kernel::{self, config},
    rmap::{self, Tree},
    state, walk,
};

/// Most steps from one mapping to the next, two for each VMA. It bounds the time in which the page table is locked to a few
/// milliseconds; the kernel's own walk through these VMAs takes about as long.
const MOST_STEPS: u32 = 1 << 15;

/// The mm whose mapping of this page the current task restored just now; 0: not known.
///
/// `rmap_walk` (mm/rmap.c, 6.1 to 7.3) goes through the VMAs of the reverse mapping in the order of the tree, whose lock
/// it holds, and `remove_migration_pte` restores the mappings of a VMA in the order of their addresses. Before the walk
/// the copy is mapped nowhere, and it is locked, so that no fault maps it meanwhile. So the mapping is that of the first
/// VMA behind the mapping before whose page table has the page at the address. A fork may copy a restored mapping into a
/// VMA that lies ahead: a process that began during the walk is no answer, and the walk is lost.
#[inline(never)]
pub fn mm_of(mut tid: u32, pfn: u64, vaddr: u64) -> u64 {
    let page = kernel::page_of(pfn);
    let Some(task) = state::entry(tid) else {
        return 0;
    };
    if page == 0 {
        return 0;
    }
    let folio = kernel::head_of(page);
    let tree = Tree::of(folio);
    if tree.root == 0 {
        return 0;
    }
    let vma = rmap::vma_of(tree.root, tree.anon != 0);
    if kernel::peek(tree.root, RIGHT) | kernel::peek(tree.root, LEFT) == 0 {
        // There is no other VMA.
        return kernel::vma_mm(vma);
    }
    if config!(page_offset_base) == 0 {
        return 0; // page tables cannot be read
    }
    let walk = &mut task.walk;
    let begins = walk.folio != folio;
    if begins {
        walk.folio = folio;
        walk.since = kernel::now();
        walk.anon = tree.anon.into();
        (walk.at, walk.from) = (tree.root, Walk::ABOVE);
    } else {
        walk.at = walk.node;
        // A higher address may be that of the next page in the same VMA.
        walk.from = if vaddr > walk.vaddr { Walk::BESIDE } else { Walk::BEHIND };
    }
    walk.node = 0;
    walk.vaddr = vaddr;
    walk.pfn = pfn;
    let first = kernel::peek(folio, config!(folio_index)) << rmap::index_shift(vma, tree.order as u8);
    walk.index = first.wrapping_add((page - folio) >> (config!(page_struct_shift) & 63));
    // SAFETY: the callback has the signature that the helper calls, and the context outlives the loop.
    unsafe { bpf_loop(MOST_STEPS, step as *mut c_void, (&raw mut tid).cast(), 0) };
    let Some(Walk { node, since, anon, .. }) = state::entry(tid).map(|task| &mut task.walk) else {
        return 0;
    };
    if *node == 0 {
        return 0;
    }
    let mm = kernel::vma_mm(rmap::vma_of(*node, *anon != 0));
    if !begins && began_after(mm, *since) {
        *node = 0;
        return 0;
    }
    mm
}

/// Whether the process of an mm began after that time, or may have: it is being forked, or has left the mm.
#[inline(always)]
fn began_after(mm: u64, time: u64) -> bool {
    /// include/linux/sched.h, 6.1 to 7.3. It is set before the mm is copied, and cleared after `start_time` is set
    /// (`copy_process`, `wake_up_new_task`).
    const TASK_NEW: u64 = 0x800;
    let task = kernel::peek(mm, config!(mm_owner));
    task == 0
        || kernel::peek(task, config!(task_state)) & TASK_NEW != 0
        || kernel::peek(task, config!(task_start_time)) > time
}

/// `struct rb_node` (include/linux/rbtree_types.h, 6.1 to 7.3): its members, bytes; and the size of it, behind which VMAs
/// and anon_vma_chains have `rb_subtree_last` (include/linux/mm_types.h, include/linux/rmap.h, 6.1 to 7.3).
const PARENT: u32 = 0;
const RIGHT: u32 = 8;
const LEFT: u32 = 16;
const SUBTREE_LAST: u32 = 24;

/// Makes one step through the tree, in the order of its nodes, and leaves out subtrees that end before the page.
#[inline(never)]
extern "C" fn step(_index: u64, tid: &mut u32) -> i64 {
    let Some(task) = state::entry(*tid) else {
        return 1;
    };
    let walk = &mut task.walk;
    let (node, from) = (walk.at, walk.from);
    if node == 0 {
        return 1;
    }
    let (right, left) = (kernel::peek(node, RIGHT), kernel::peek(node, LEFT));
    let last = walk.index;
    let reaches = |child: u64| child != 0 && kernel::peek(child, SUBTREE_LAST) >= last;
    if from == Walk::ABOVE && reaches(left) {
        walk.at = left;
        return 0;
    }
    let is_behind = from == Walk::BEHIND || from == right;
    if !is_behind && ends_at(walk, node) {
        return 1;
    }
    if from != right && reaches(right) {
        (walk.at, walk.from) = (right, Walk::ABOVE);
    } else {
        /// The lowest bits are the node's colour.
        const COLOUR: u64 = 3;
        (walk.at, walk.from) = (kernel::peek(node, PARENT) & !COLOUR, node);
    }
    0
}

/// Whether the search ends at a node: its VMA maps the page at the address, or it begins behind the page, as all that
/// follow do.
#[inline(always)]
fn ends_at(walk: &mut Walk, node: u64) -> bool {
    let anon = walk.anon != 0;
    let vma = rmap::vma_of(node, anon);
    let first = kernel::first_index(vma, anon);
    if first > walk.index {
        return true;
    }
    let start = kernel::peek(vma, config!(vma_start));
    if start.wrapping_add(arch::bytes(walk.index - first)) != walk.vaddr
        || walk.vaddr >= kernel::peek(vma, config!(vma_end))
        || !walk::maps(kernel::peek(vma, config!(vma_mm)), walk.vaddr, walk.pfn)
    {
        return false;
    }
    walk.node = node;
    true
}
