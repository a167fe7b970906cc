//! Finds who maps a folio in its reverse mapping, read without its locks: a result is likely, and has to be checked.
//! Input: folios and VMAs from the probes.

use core::ffi::c_void;

use aya_ebpf::{btf_maps::LruHashMap, helpers::bpf_loop, macros::btf_map};
use tracer_common::{arch, event::Place};

use crate::{
    filter,
    kernel::{self, config},
    owner, walk,
};

/// Most steps in one reverse mapping; it may have as many VMAs as there are processes.
pub const MOST_STEPS: u32 = 256;

/// `PAGE_MAPPING_ANON` and `PAGE_MAPPING_FLAGS`, include/linux/page-flags.h, 6.1 to 7.3.
const ANON: u64 = 1;
const FLAGS: u64 = 3;

/// Whether the folio is anonymous; KSM folios are too.
#[inline(always)]
pub fn is_anon(folio: u64) -> bool {
    kernel::read::<u64>(folio, config!(folio_mapping)) & ANON != 0
}

/// A mapping of a folio, according to its reverse mapping.
#[derive(Clone, Copy, Default)]
pub struct Found {
    pub place: Place,
    /// Base pages of the folio from there on that lie in the VMA.
    pub pages: u32,
}

impl Found {
    /// Whether a known process maps it, and is wanted.
    #[inline(always)]
    pub fn is_wanted(self) -> bool {
        let Place { vaddr, owner_tgid, .. } = self.place;
        owner_tgid != 0 && filter::wants(owner_tgid) && filter::wants_address(vaddr, self.pages)
    }
}

/// The shift that turns the index of a folio into base pages: before 6.7 the index of a hugetlb folio counts huge pages
/// (`linear_page_index`, include/linux/pagemap.h). `vma`: one that maps the folio.
#[inline(always)]
pub fn index_shift(vma: u64, order: u8) -> u32 {
    /// include/linux/mm.h, 6.1 to 6.6.
    const VM_HUGETLB: u64 = 0x0040_0000;
    if config!(huge_index) != 0 && kernel::peek(vma, config!(vma_flags)) & VM_HUGETLB != 0 {
        u32::from(order & 31)
    } else {
        0
    }
}

/// Base pages from an address to the end of a folio that begins there, or to the end of its VMA if that is nearer.
#[inline(always)]
fn pages_to(end: u64, vaddr: u64, order: u8) -> u32 {
    let (folio, vma) = (1 << (order & 31), arch::pages(end.wrapping_sub(vaddr)) as u32);
    if vma < folio { vma } else { folio }
}

/// The place at which the VMA maps the folio; empty if the VMA does not cover the folio's first page.
#[inline(always)]
pub fn place_in(folio: u64, vma: u64) -> Found {
    let order = kernel::folio_order(folio);
    let index = kernel::read::<u64>(folio, config!(folio_index)) << index_shift(vma, order);
    let first = kernel::first_index(vma, is_anon(folio));
    let (start, end): (u64, u64) = (
        kernel::read(vma, config!(vma_start)),
        kernel::read(vma, config!(vma_end)),
    );
    let vaddr = start.wrapping_add(arch::bytes(index.wrapping_sub(first)));
    if vma == 0 || vaddr < start || vaddr >= end {
        return Found::default();
    }
    Found {
        place: Place {
            vaddr,
            owner_tgid: owner::of_mm(kernel::vma_mm(vma)).tgid,
            inferred: 1,
        },
        pages: pages_to(end, vaddr, order),
    }
}

/// The address after the last page of the folio that the VMA may map. `vma`: one that maps some of it.
#[inline(always)]
pub fn end_in(folio: u64, vma: u64) -> u64 {
    let order = kernel::folio_order(folio);
    let index = kernel::peek(folio, config!(folio_index)) << index_shift(vma, order);
    let pages = index
        .wrapping_add(1 << (order & 31))
        .wrapping_sub(kernel::first_index(vma, is_anon(folio)));
    let (of_folio, of_vma) = (
        kernel::peek(vma, config!(vma_start)).wrapping_add(arch::bytes(pages)),
        kernel::peek(vma, config!(vma_end)),
    );
    if of_folio < of_vma { of_folio } else { of_vma }
}

/// The VMAs of a reverse mapping: an interval tree, given by its root node.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tree {
    /// `struct rb_node *`; 0: none.
    pub root: u64,
    /// 1: the tree is of anonymous memory.
    pub anon: u32,
    pub order: u32,
}

impl Tree {
    /// The reverse mapping of a folio. A KSM page has none of this kind.
    #[inline(always)]
    pub fn of(folio: u64) -> Self {
        let mapping: u64 = kernel::read(folio, config!(folio_mapping));
        let (root, anon) = match mapping & FLAGS {
            // address_space.i_mmap, of VMAs.
            0 if mapping != 0 => (kernel::read(mapping, config!(mapping_i_mmap)), 0),
            // anon_vma.rb_root, of anon_vma_chains.
            ANON => (kernel::read(mapping & !FLAGS, config!(anon_vma_root)), 1),
            _ => (0, 0),
        };
        Self {
            root,
            anon,
            order: kernel::folio_order(folio).into(),
        }
    }

    #[inline(always)]
    fn vma(self, node: u64) -> u64 {
        vma_of(node, self.anon != 0)
    }
}

/// The VMA of a node, in a tree of anonymous memory or of a file.
#[inline(always)]
pub fn vma_of(node: u64, anon: bool) -> u64 {
    if anon {
        kernel::peek(node.wrapping_sub(u64::from(config!(chain_rb))), config!(chain_vma))
    } else {
        node.wrapping_sub(u64::from(config!(vma_shared)))
    }
}

/// The place at which the VMA at the root of the folio's reverse mapping maps it. Most folios have no other VMA.
#[inline(always)]
pub fn first_place(folio: u64) -> Found {
    let tree = Tree::of(folio);
    if tree.root == 0 {
        return Found::default();
    }
    place_in(folio, tree.vma(tree.root))
}

/// A walk through a reverse mapping. Nothing keeps the tree from changing meanwhile: the walk may miss VMAs, or leave
/// the tree, but it ends.
#[repr(C)]
#[derive(Clone, Copy)]
struct Search {
    index: u64,
    pfn: u64,
    tree: Tree,
    node: u64,
    /// The previous node.
    from: u64,
    found: Found,
}

/// Key: `struct folio *`. If a search were on the stack, the verifier would check every combination of the values that
/// a step may leave behind.
#[btf_map]
static SEARCHES: LruHashMap<u64, Search, 1024> = LruHashMap::new();

/// A place at which a wanted process maps the folio, empty if none was found; and the number of steps taken, two or
/// three for each VMA.
#[inline(always)]
pub fn search(mut folio: u64) -> (Found, u64) {
    /// An empty search. It is not on the stack, which has 512 bytes for all calls together.
    static BEGIN: Search = Search {
        index: 0,
        pfn: 0,
        tree: Tree {
            root: 0,
            anon: 0,
            order: 0,
        },
        node: 0,
        from: 0,
        found: Found {
            place: Place {
                vaddr: 0,
                owner_tgid: 0,
                inferred: 0,
            },
            pages: 0,
        },
    };
    // By value it would be copied to the stack.
    let begin: &Search = &BEGIN;
    let _ = SEARCHES.insert(folio, begin, 0);
    let Some(search) = SEARCHES.get_ptr_mut(folio) else {
        return (Found::default(), 0);
    };
    // SAFETY: a live value of the map, which nobody else changes.
    let search = unsafe { &mut *search };
    search.index = kernel::peek(folio, config!(folio_index));
    search.pfn = kernel::folio_pfn(folio);
    search.tree = Tree::of(folio);
    search.node = search.tree.root;
    // SAFETY: the callback has the signature that the helper calls, and the context outlives the loop.
    let made = unsafe { bpf_loop(MOST_STEPS, step as *mut c_void, (&raw mut folio).cast(), 0) };
    // SAFETY: a live value of the map, which nobody else changes.
    let found = SEARCHES.get_ptr(folio).map(|search| unsafe { (*search).found });
    let _ = SEARCHES.remove(folio);
    (found.unwrap_or_default(), made as u64)
}

/// Makes one step from node to node. `struct rb_node` (include/linux/rbtree_types.h, 6.1 to 7.3) holds the parent with
/// two bits of its own, the right child, and the left child.
#[inline(never)]
extern "C" fn step(_index: u64, folio: &mut u64) -> i64 {
    let Some(search) = SEARCHES.get_ptr_mut(*folio) else {
        return 1;
    };
    // SAFETY: a live value of the map, which nobody else changes.
    let search = unsafe { &mut *search };
    let (node, from) = (search.node, search.from);
    if node == 0 {
        return 1;
    }
    let parent = kernel::peek(node, 0) & !3;
    let (right, left) = (kernel::peek(node, 8), kernel::peek(node, 16));
    search.from = node;
    search.node = parent;
    if from == parent {
        if look(search, search.tree.vma(node)) {
            return 1;
        }
        if left != 0 {
            search.node = left;
            return 0;
        }
    }
    if from != right && right != 0 {
        search.node = right;
    }
    0
}

/// Whether a wanted process maps the folio through this VMA.
#[inline(always)]
fn look(search: &mut Search, vma: u64) -> bool {
    let (start, end) = (
        kernel::peek(vma, config!(vma_start)),
        kernel::peek(vma, config!(vma_end)),
    );
    let index = search.index << index_shift(vma, search.tree.order as u8);
    let ahead = index.wrapping_sub(kernel::first_index(vma, search.tree.anon != 0));
    let vaddr = start.wrapping_add(arch::bytes(ahead));
    if vaddr < start || vaddr >= end {
        return false;
    }
    let mm = kernel::peek(vma, config!(vma_mm));
    // Unlike `owner::of_mm`, this does not handle a process that is being forked or exits.
    let owner_tgid = kernel::peek(kernel::peek(mm, config!(mm_owner)), config!(task_tgid)) as u32;
    let pages = pages_to(end, vaddr, search.tree.order as u8);
    if !filter::wants(owner_tgid) || !filter::wants_address(vaddr, pages) || !walk::maps(mm, vaddr, search.pfn) {
        return false;
    }
    search.found = Found {
        place: Place {
            vaddr,
            owner_tgid,
            inferred: 1,
        },
        pages,
    };
    true
}
