//! Folios that a call could not move: problems are kept by folio, and reported when the call ends. Exact backend.
//! Input: the other probes; fexit of the functions that find the target of a move, or that refuse one.

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    helpers::{bpf_get_smp_processor_id, bpf_loop},
    macros::{btf_map, fexit},
    programs::FExitContext,
};
use tracer_common::{
    arch,
    counter::Counter,
    event::{FAILED_MAPPINGS, FolioFailed, Place, failure_flags},
    task::Call,
};

use crate::{
    counters, emit, filter,
    kernel::{self, config},
    owner, rmap, state,
    turn::twice,
};

/// Most folios of one call that are reported; a call with more is counted as cut off.
const MOST: u32 = 1 << 16;

/// The problems that were seen with a folio that did not move at once.
#[repr(C)]
#[derive(Clone, Copy)]
struct Trouble {
    /// When the call began: an entry of an earlier call is stale.
    call: u64,
    places: [Place; FAILED_MAPPINGS],
    attempts: u32,
    errno: i32,
    refs: i32,
    expected_refs: i32,
    /// Bits of `failure_flags`.
    seen: u32,
    /// The folio's order at that time: the rest of it after a split is another folio.
    order: u32,
    /// One of its mappings is wanted.
    wanted: u32,
}

/// An empty entry. It is not on the stack, which has 512 bytes for all calls together.
static NOTHING: Trouble = Trouble {
    call: 0,
    places: [Place {
        vaddr: 0,
        owner_tgid: 0,
        inferred: 0,
    }; FAILED_MAPPINGS],
    attempts: 0,
    errno: 0,
    refs: 0,
    expected_refs: 0,
    seen: 0,
    order: 0,
    wanted: 0,
};

/// Key: `struct folio *`, which only the task that isolated it can try to move.
#[btf_map]
static TROUBLE: LruHashMap<u64, Trouble, 16384> = LruHashMap::new();

/// 1 if `migrate_enter` is attached, so that failures can be reported; user space sets it.
#[btf_map]
static LISTS_SEEN: Array<u32, 1> = Array::new();

#[inline(always)]
fn lists_are_seen() -> bool {
    // SAFETY: a u32 of the map, read once.
    LISTS_SEEN.get_ptr(0).is_some_and(|seen| unsafe { *seen } != 0)
}

#[inline(always)]
fn trouble(call: &mut Call, folio: u64) -> Option<&'static mut Trouble> {
    call.troubled = 1;
    if TROUBLE.get_ptr(folio).is_none() {
        // By value it would be copied to the stack.
        let nothing: &Trouble = &NOTHING;
        TROUBLE.insert(folio, nothing, 0).ok()?;
    }
    // SAFETY: a live value of the map; the folio is this task's.
    let trouble = unsafe { &mut *TROUBLE.get_ptr_mut(folio)? };
    let order = u32::from(kernel::folio_order(folio));
    if trouble.call != call.begun || trouble.order != order {
        *trouble = Trouble {
            call: call.begun,
            order,
            ..NOTHING
        };
    }
    Some(trouble)
}

/// Records that `move_to_new_folio` returned an error.
#[inline(always)]
pub fn not_copied(call: &mut Call, src: u64, errno: i32) {
    if let Some(trouble) = trouble(call, src) {
        trouble.attempts += 1;
        trouble.errno = errno;
        trouble.refs = references(src);
        trouble.expected_refs = expected_refs(src);
    }
}

/// Forgets the problems of a folio that moved after all.
#[inline(always)]
pub fn moved_after_all(call: &Call, folio: u64) {
    if call.troubled != 0 {
        let _ = TROUBLE.remove(folio);
    }
}

/// Records that `try_to_migrate_one` could not unmap the folio from the VMA, where it begins at that address.
#[inline(always)]
pub fn still_mapped(call: &mut Call, folio: u64, vma: u64, vaddr: u64) {
    let owner = owner::of_mm(kernel::vma_mm(vma));
    let (wanted, end) = (owner.is_wanted(), rmap::end_in(folio, vma));
    mapped_by(call, folio, owner.tgid, wanted, vaddr, end);
    if let Some(trouble) = trouble(call, folio) {
        trouble.seen |= u32::from(failure_flags::STILL_MAPPED);
    }
}

/// Records a mapping of the folio that stays, or was put back where it was: from that address on, up to `end` at most.
/// `wanted`: its owner is wanted.
#[inline(always)]
pub fn mapped_by(call: &mut Call, folio: u64, owner_tgid: u32, wanted: bool, vaddr: u64, end: u64) {
    let Some(trouble) = trouble(call, folio) else {
        return;
    };
    // A KSM page does not lie where its index says, but is always a base page.
    let pages = if trouble.order == 0 {
        1
    } else {
        arch::pages(end.wrapping_sub(vaddr)) as u32
    };
    // There is no room for the mappings of every process.
    if !wanted || !filter::wants_address(vaddr, pages) {
        return;
    }
    trouble.wanted = 1;
    // The process is being forked or torn down: there is no owner to report, and 0 marks a free place.
    if owner_tgid == 0 {
        return;
    }
    let mut i = 0;
    while i < FAILED_MAPPINGS {
        let place = &mut trouble.places[i];
        if place.owner_tgid == 0 {
            *place = Place {
                vaddr,
                owner_tgid,
                inferred: 0,
            };
            return;
        }
        // The mapping was put back after an earlier attempt too.
        if place.owner_tgid == owner_tgid && place.vaddr == vaddr {
            return;
        }
        i += 1;
    }
}

/// References to a folio that is isolated and unmapped, as `folio_expected_refs` counts them (mm/migrate.c): the
/// caller's, one for each page in the page cache or the swap cache, one for private data. Before 6.7 a hugetlb folio
/// has one in the page cache (`migrate_huge_page_move_mapping`, the same file).
#[inline(always)]
fn expected_refs(folio: u64) -> i32 {
    let flags: u64 = kernel::read(folio, config!(folio_flags));
    let has = |bit: u32| flags >> (bit & 63) & 1 != 0;
    let anon = rmap::is_anon(folio);
    let mut refs = 1;
    if !anon || has(config!(pg_swapcache)) {
        let one = config!(huge_index) != 0 && !anon && of_hugetlbfs(folio);
        refs += if one { 1 } else { 1 << (kernel::folio_order(folio) & 31) };
    }
    if !anon && has(config!(pg_private)) {
        refs += 1;
    }
    refs
}

#[inline(always)]
fn references(folio: u64) -> i32 {
    kernel::read::<u32>(folio, config!(folio_refcount)) as i32
}

/// Whether a folio of the page cache belongs to hugetlbfs.
#[inline(always)]
fn of_hugetlbfs(folio: u64) -> bool {
    let mapping: u64 = kernel::read(folio, config!(folio_mapping));
    let inode: u64 = kernel::read(mapping, config!(mapping_host));
    kernel::is_hugetlbfs(kernel::read(inode, config!(inode_sb)))
}

/// Handles the return of the function that finds a page for the copy.
#[inline(always)]
fn target(src: u64, found: u64) {
    let (_, tid) = kernel::current();
    let Some(call) = state::wanted_call(tid) else {
        return;
    };
    if found != 0 {
        // This was the second search, on other nodes, or is for the next folio: the call goes on.
        if call.no_memory != 0 {
            call.no_memory = 0;
            if let Some(trouble) = trouble(call, src)
                && trouble.seen & NO_TARGET != 0
            {
                trouble.seen &= !NO_TARGET;
                trouble.attempts -= 1;
                trouble.errno = 0;
            }
        }
        return;
    }
    call.no_memory = 1;
    if let Some(trouble) = trouble(call, src) {
        trouble.seen |= NO_TARGET;
        trouble.attempts += 1;
        trouble.errno = -ENOMEM;
    }
}

const ENOMEM: i32 = 12;
const NO_TARGET: u32 = failure_flags::NO_TARGET as u32;

/// `struct folio *alloc_migration_target(struct folio *src, unsigned long private)`, 6.12 to 7.3; of pages on 6.1;
/// mm/migrate.c. Used by most system calls, offlining, soft offlining and longterm pins.
#[inline(never)]
fn target_found(ctx: &FExitContext) {
    target(kernel::arg(ctx, 0), kernel::arg(ctx, 2));
}
twice!(#[fexit(function = "alloc_migration_target")] target_found, target_found_again: FExitContext);

/// `struct folio *alloc_migration_target_by_mpol(struct folio *src, unsigned long private)`, 6.12 to 7.3; `new_page` on
/// 6.1; mm/mempolicy.c. Used by mbind.
#[inline(never)]
fn policy_target_found(ctx: &FExitContext) {
    target(kernel::arg(ctx, 0), kernel::arg(ctx, 2));
}
twice!(#[fexit(function = "alloc_migration_target_by_mpol")] policy_target_found, policy_target_found_again: FExitContext);

/// `struct folio *alloc_misplaced_dst_folio(struct folio *src, unsigned long data)`, 6.12 to 7.3;
/// `alloc_misplaced_dst_page` on 6.1; mm/migrate.c. Used by NUMA balancing.
#[inline(never)]
fn misplaced_target_found(ctx: &FExitContext) {
    target(kernel::arg(ctx, 0), kernel::arg(ctx, 2));
}
twice!(#[fexit(function = "alloc_misplaced_dst_folio")] misplaced_target_found, misplaced_target_found_again: FExitContext);

/// `struct folio *compaction_alloc(struct folio *src, unsigned long data)`, 6.12 to 7.3; of pages on 6.1;
/// mm/compaction.c. Used by compaction.
#[inline(never)]
fn compaction_target_found(ctx: &FExitContext) {
    target(kernel::arg(ctx, 0), kernel::arg(ctx, 2));
}
twice!(#[fexit(function = "compaction_alloc")] compaction_target_found, compaction_target_found_again: FExitContext);

/// `struct folio *alloc_demote_folio(struct folio *src, unsigned long private)`, 6.18 to 7.3; `alloc_migrate_folio` on
/// 6.12, `alloc_demote_page` on 6.1; mm/vmscan.c. Used by demotion.
#[inline(never)]
fn demotion_target_found(ctx: &FExitContext) {
    target(kernel::arg(ctx, 0), kernel::arg(ctx, 2));
}
twice!(#[fexit(function = "alloc_demote_folio")] demotion_target_found, demotion_target_found_again: FExitContext);

/// `int migrate_misplaced_folio_prepare(struct folio *folio, struct vm_area_struct *vma, int node)`, 6.12 to 7.3,
/// mm/migrate.c. It fails if a hint fault wanted to move the folio and could not even isolate it. On 6.1 this is part
/// of `int migrate_misplaced_page(struct page *page, struct vm_area_struct *vma, int node)`, which then returns 0, as
/// for a page that migrate_pages could not move.
#[inline(never)]
fn misplaced(ctx: &FExitContext) {
    let (folio, vma) = (kernel::arg(ctx, 0), kernel::arg(ctx, 1));
    let ret = kernel::arg(ctx, 3) as i32;
    let errno = if config!(misplaced_moves) == 0 {
        if ret == 0 {
            return;
        }
        ret
    } else {
        let (_, tid) = kernel::current();
        let told = state::get(tid).map_or(0, |task| core::mem::take(&mut task.told));
        if ret != 0 || told == folio {
            return;
        }
        0
    };
    let reason = config!(reason_numa) as u8;
    let (tgid, _) = kernel::current();
    if !filter::wants_reason(reason) || !filter::wants_actor(tgid, kernel::comm()) {
        counters::add(Counter::FilteredRefusedPages, 1 << (kernel::folio_order(folio) & 31));
        return;
    }
    let mut event = FolioFailed {
        seen: failure_flags::NUMA_REFUSED,
        errno,
        reason,
        ..FolioFailed::default()
    };
    // The kernel was about to move the folio for this VMA.
    let found = rmap::place_in(folio, vma);
    event.places[0] = Place {
        inferred: 0,
        ..found.place
    };
    send(folio, event, wants_place(found));
}
twice!(#[fexit(function = "migrate_misplaced_folio_prepare")] misplaced, misplaced_again: FExitContext);

/// A call that ends, as the loop over its list needs it.
struct Walk {
    next: u64,
    head: u64,
    begun: u64,
    pages: u64,
    /// Steps that may still be made through reverse mappings.
    steps: u32,
    /// The folio visited last.
    folio: u64,
    reason: u8,
    mode: u8,
    no_memory: bool,
}

/// Counts the base pages that a filtered-out call failed to move.
#[inline(always)]
pub fn filtered_out(call: &Call, failed: u64) {
    if failed != 0 && (call.from != 0 || lists_are_seen()) {
        counters::add(Counter::FailedPages, failed);
        counters::add(Counter::FilteredFailedPages, failed);
    }
}

/// Reports every folio that the call left on its list. Returns the last one. `failed`: base pages, by the kernel's
/// count.
#[inline(always)]
pub fn tell(call: &Call, failed: u64) -> u64 {
    if call.from == 0 {
        // The kernel skipped `migrate_enter`: it is not known which folios failed.
        if lists_are_seen() {
            counters::add(Counter::FailedPages, failed);
            counters::add(Counter::LostFailures, 1);
            counters::add(Counter::LostFailedPages, failed);
        }
        return 0;
    }
    let mut walk = Walk {
        next: kernel::read(call.from, 0),
        head: call.from,
        begun: call.begun,
        pages: 0,
        steps: MOST,
        folio: 0,
        reason: call.reason,
        mode: call.mode,
        no_memory: call.no_memory != 0,
    };
    // SAFETY: the callback has the signature that the helper calls, and the context outlives the loop.
    unsafe { bpf_loop(MOST, tell_next as *mut c_void, (&raw mut walk).cast(), 0) };
    counters::add(Counter::FailedPages, walk.pages);
    if walk.next != walk.head {
        counters::add(Counter::CutFailures, 1);
    }
    walk.folio
}

extern "C" fn tell_next(_index: u64, walk: *mut c_void) -> u64 {
    // SAFETY: the context that `tell` gave to the loop.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    if walk.next == walk.head || walk.next == 0 {
        return 1;
    }
    // `struct list_head lru` links folios through its first member, next.
    let folio = walk.next.wrapping_sub(u64::from(config!(folio_lru)));
    walk.next = kernel::read(walk.next, 0);
    walk.folio = folio;
    walk.pages += 1 << (kernel::folio_order(folio) & 31);
    let how = How {
        reason: walk.reason,
        mode: walk.mode,
        no_memory: walk.no_memory,
        may_search: walk.steps >= rmap::MOST_STEPS,
    };
    let steps = tell_folio(folio, walk.begun, how.into());
    walk.steps = walk.steps.wrapping_sub(steps as u32);
    0
}

/// The properties of a call that the failure of a folio needs, passed as one number: a global function takes no more
/// than five arguments.
struct How {
    reason: u8,
    mode: u8,
    no_memory: bool,
    /// Whether there are steps left to search its reverse mapping.
    may_search: bool,
}

impl From<How> for u64 {
    #[inline(always)]
    fn from(how: How) -> Self {
        Self::from(how.reason)
            | Self::from(how.mode) << 8
            | Self::from(how.no_memory) << 16
            | Self::from(how.may_search) << 17
    }
}

impl From<u64> for How {
    #[inline(always)]
    fn from(bits: u64) -> Self {
        Self {
            reason: bits as u8,
            mode: (bits >> 8) as u8,
            no_memory: bits >> 16 & 1 != 0,
            may_search: bits >> 17 & 1 != 0,
        }
    }
}

/// Reports a folio that the call that began at `begun` left on its list. Returns how many steps its reverse mapping
/// took.
///
/// Its plain name makes it a global function: the verifier checks it once, for any arguments. Otherwise it would check
/// it for each state in which the loop calls it: some 100,000 instructions more (Documentation/bpf/verifier.rst).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell_folio(folio: u64, begun: u64, how: u64) -> u64 {
    let how = How::from(how);
    let mut steps = 0;
    let mut event = FolioFailed {
        reason: how.reason,
        mode: how.mode,
        ..FolioFailed::default()
    };
    if how.no_memory {
        event.seen = failure_flags::NO_MEMORY;
    }
    let mut wanted = false;
    // SAFETY: a live value of the map; the folio is this task's.
    if let Some(trouble) = TROUBLE.get_ptr(folio).map(|trouble| unsafe { &*trouble })
        && trouble.call == begun
    {
        event.seen |= trouble.seen as u8;
        event.attempts = trouble.attempts;
        event.errno = trouble.errno;
        event.refs = trouble.refs;
        event.expected_refs = trouble.expected_refs;
        event.places = trouble.places;
        wanted = trouble.wanted != 0;
        let _ = TROUBLE.remove(folio);
    }
    if !wanted {
        let mut found = rmap::Found::default();
        if filter::wants_unowned() {
            found = rmap::first_place(folio);
        } else if how.may_search {
            (found, steps) = rmap::search(folio);
        }
        event.places[0] = found.place;
        wanted = wants_place(found);
    }
    send(folio, event, wanted);
    steps
}

/// Fills in the fields that all failures share, and sends the failure if the filter lets it through. `wanted`: its
/// mappings pass the filter.
#[inline(always)]
fn send(folio: u64, mut event: FolioFailed, wanted: bool) {
    event.order = kernel::folio_order(folio);
    event.pfn = kernel::folio_pfn(folio);
    if !wanted || !filter::wants_order(event.order) || !filter::wants_from(event.pfn) {
        let counter = if event.seen & failure_flags::NUMA_REFUSED == 0 {
            Counter::FilteredFailedPages
        } else {
            Counter::FilteredRefusedPages
        };
        counters::add(counter, 1 << (event.order & 31));
        return;
    }
    let (actor_tgid, actor_tid) = kernel::current();
    // SAFETY: the helper has no preconditions.
    event.cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    event.at = kernel::now();
    event.flags = kernel::read(folio, config!(folio_flags));
    // A large folio, or a page with a type, has something else in `_mapcount`, and a base page has no `_pincount`; user
    // space handles this. A check here would double the states that the verifier follows.
    event.mappings = kernel::read::<u32>(folio, config!(folio_mapcount)).wrapping_add(1);
    event.refs_left = references(folio);
    if config!(folio_pincount) != 0 {
        event.pins = kernel::read(folio, config!(folio_pincount));
    }
    event.actor_tgid = actor_tgid;
    event.actor_tid = actor_tid;
    emit::failure(event);
}

/// Whether a mapping is wanted, or memory without a known owner.
#[inline(always)]
fn wants_place(found: rmap::Found) -> bool {
    filter::wants_unowned() || found.is_wanted()
}
