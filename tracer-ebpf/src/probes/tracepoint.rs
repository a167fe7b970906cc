//! The tracepoint backend: it reports mappings by address, leaves owners to user space, and needs no fentry.
//! Input: tracepoints `set_migration_pte`, `set_migration_pmd` and their `remove_` counterparts.

use aya_ebpf::{
    btf_maps::LruHashMap,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use tracer_common::{
    arch,
    counter::Counter,
    event::{MappingMoved, mapping_flags},
};

use crate::{
    counters, emit, filter,
    kernel::{self, config},
    owner::{self, Owner},
    restored, state,
    turn::twice,
};

/// Most frames in flight at one address of different address spaces, in one task.
const SLOTS: usize = 4;

/// A virtual address in one task.
#[repr(C)]
#[derive(Clone, Copy)]
struct FlightKey {
    addr: u64,
    tid: u32,
    pad: u32,
}

/// A frame that was unmapped at an address.
#[repr(C)]
#[derive(Clone, Copy)]
struct Unmapped {
    pfn: u64,
    at: u64,
    /// Mappings of it: a page shared by fork is unmapped once per process at the same address.
    /// 0: the slot is free.
    mappings: u64,
}

/// The frames in flight at an address, oldest first; slots empty from the front.
#[repr(C)]
#[derive(Clone, Copy)]
struct InFlight {
    slots: [Unmapped; SLOTS],
    /// 1: several frames have been in flight here since the entry was made. The old frame of each arrival is then a
    /// guess, even of the last one.
    contested: u64,
}

#[btf_map]
static IN_FLIGHT: LruHashMap<FlightKey, InFlight, 32768> = LruHashMap::new();

const FREE: Unmapped = Unmapped {
    pfn: 0,
    at: 0,
    mappings: 0,
};

/// `TP_PROTO(unsigned long addr, unsigned long pte, int order)`, 6.1 to 7.3.
#[inline(never)]
fn tp_unmapped(ctx: &RawTracePointContext) {
    remember(ctx.arg(0), arch::migration_entry_pfn(ctx.arg(1)));
}
twice!(#[raw_tracepoint(tracepoint = "set_migration_pte")] tp_unmapped, tp_unmapped_again: RawTracePointContext);

/// `TP_PROTO(unsigned long addr, unsigned long pmd)`, 6.1 to 7.3.
#[inline(never)]
fn tp_huge_unmapped(ctx: &RawTracePointContext) {
    remember(ctx.arg(0), arch::migration_entry_pfn(ctx.arg(1)));
}
twice!(#[raw_tracepoint(tracepoint = "set_migration_pmd")] tp_huge_unmapped, tp_huge_unmapped_again: RawTracePointContext);

/// `TP_PROTO(unsigned long addr, unsigned long pte, int order)`, 6.1 to 7.3. `order` is that of the
/// folio at its first page and 0 after it; only a huge entry (hugetlb) maps all of it.
#[inline(never)]
fn tp_restored(ctx: &RawTracePointContext) {
    let pte: u64 = ctx.arg(1);
    let order = if arch::maps_huge(pte) {
        ctx.arg::<u32>(2) & 31
    } else {
        0
    };
    restored(ctx.arg(0), arch::present_pfn(pte, order, config!(pfn_bits)), order, 0)
}
twice!(#[raw_tracepoint(tracepoint = "remove_migration_pte")] tp_restored, tp_restored_again: RawTracePointContext);

/// `TP_PROTO(unsigned long addr, unsigned long pmd)`, 6.1 to 7.3.
#[inline(never)]
fn tp_huge_restored(ctx: &RawTracePointContext) {
    restored(
        ctx.arg(0),
        arch::present_pfn(ctx.arg(1), arch::PMD_ORDER, config!(pfn_bits)),
        arch::PMD_ORDER,
        1,
    )
}
twice!(#[raw_tracepoint(tracepoint = "remove_migration_pmd")] tp_huge_restored, tp_huge_restored_again: RawTracePointContext);

#[inline(always)]
fn remember(addr: u64, pfn: u64) {
    let (_, tid) = kernel::current();
    let Some(task) = state::get(tid) else {
        return;
    };
    match state::innermost(task) {
        Some(call) if call.wanted != 0 => {}
        _ => return, // not migrate_pages, or filtered out
    }
    // The folio that is restored next is another one, even where it has the same memory.
    task.walk.folio = 0;
    let key = FlightKey { addr, tid, pad: 0 };
    let fresh = Unmapped {
        pfn,
        at: kernel::now(),
        mappings: 1,
    };
    let Some(found) = IN_FLIGHT.get_ptr_mut(key) else {
        let first = InFlight {
            slots: [fresh, FREE, FREE, FREE],
            contested: 0,
        };
        let _ = IN_FLIGHT.insert(key, first, 0);
        return;
    };
    // SAFETY: a live value of the map; the key holds the tid, so only this task uses it.
    let found = unsafe { &mut *found };
    let slots = &mut found.slots;
    if slots[0].at < task.began() {
        // Left over: the frames unmapped there in an earlier call never came back (munmap, exit).
        *slots = [fresh, FREE, FREE, FREE];
        found.contested = 0;
        return;
    }
    let mut i = 0;
    while i < SLOTS {
        if slots[i].mappings == 0 {
            slots[i] = fresh;
            found.contested |= u64::from(i > 0);
            return;
        }
        if slots[i].pfn == pfn {
            slots[i].mappings += 1;
            return;
        }
        i += 1;
    }
    found.contested = 1;
    // The restore of this mapping will find no start, or that of another.
}

#[inline(always)]
fn restored(addr: u64, new_pfn: u64, order: u32, thps: u64) {
    let (tgid, tid) = kernel::current();
    let Some(task) = state::get(tid) else {
        return;
    };
    let began = task.began();
    if state::innermost(task).is_none_or(|call| call.wanted == 0) {
        return;
    }
    let pages = 1u64 << order;
    let wanted = filter::wants_order(order as u8) && filter::wants_address(addr, pages as u32);
    let owner = match wanted.then(|| restored::mm_of(tid, new_pfn, addr)) {
        None | Some(0) => Owner::UNKNOWN,
        Some(mm) => owner::of_mm(mm),
    };
    let Some(call) = state::innermost(task) else {
        return;
    };
    let key = FlightKey { addr, tid, pad: 0 };
    let Some(found) = IN_FLIGHT.get_ptr_mut(key) else {
        // A split inside migrate_pages restores entries that no tracepoint announced.
        counters::add(Counter::UnpairedMappings, 1);
        return;
    };
    // SAFETY: as in `remember`.
    let found = unsafe { &mut *found };
    let slots = &mut found.slots;
    if slots[0].at < began {
        counters::add(Counter::UnpairedMappings, 1);
        let _ = IN_FLIGHT.remove(key);
        return;
    }

    // The same frame is restored: a move that failed was undone.
    let mut undone = false;
    let mut at = 0;
    while at < SLOTS {
        if slots[at].mappings != 0 && slots[at].pfn == new_pfn {
            undone = true;
            break;
        }
        at += 1;
    }
    if !undone {
        at = 0;
    }
    if at >= SLOTS {
        return;
    }
    let old = slots[at];
    let ambiguous = found.contested != 0;
    slots[at].mappings -= 1;
    if slots[at].mappings == 0 {
        let mut i = at;
        while i + 1 < SLOTS {
            slots[i] = slots[i + 1];
            i += 1;
        }
        slots[SLOTS - 1] = FREE;
        if slots[0].mappings == 0 {
            let _ = IN_FLIGHT.remove(key);
        }
    }
    if undone {
        return;
    }

    // User space looks for an owner that is not known.
    let wanted = wanted && (owner.tgid == 0 || owner.is_wanted()) && filter::wants_frames(old.pfn, new_pfn);
    // A page with several mappings is restored once for each: new frames already in the extent are not counted again.
    // The first wanted mapping makes the page count as reported.
    let [first, end] = call.frames;
    let mut is_first = new_pfn < first || new_pfn >= end;
    if is_first {
        call.moved += pages;
        call.thps += thps;
        if wanted {
            call.reported += pages;
        } else {
            call.filtered += pages;
        }
        call.last_filtered = u8::from(!wanted);
        call.frames = if new_pfn == end {
            [first, end + pages]
        } else {
            [new_pfn, new_pfn + pages]
        };
    } else if wanted && call.last_filtered != 0 && new_pfn + pages == end {
        call.filtered = call.filtered.wrapping_sub(pages);
        call.reported += pages;
        call.last_filtered = 0;
        is_first = true;
    }
    if !wanted {
        return;
    }
    let mut flags = if owner.tgid == 0 { 0 } else { owner.flags() };
    if ambiguous {
        counters::add(Counter::AmbiguousMappings, 1);
        flags |= mapping_flags::AMBIGUOUS;
    }
    emit::mapping(MappingMoved {
        reason: call.reason,
        nth: if is_first { 1 } else { 2 },
        order: order as u8,
        flags,
        at: kernel::now(),
        vaddr: addr,
        old_pfn: old.pfn,
        new_pfn,
        unmapped_at: old.at,
        owner_tgid: owner.tgid,
        actor_tgid: tgid,
        actor_tid: tid,
        pages: pages as u32,
        ..MappingMoved::default()
    });
}
