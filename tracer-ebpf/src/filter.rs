//! Decides which moves are wanted, and whose. A move that is filtered out takes no room in the ring.
//! Input: TARGETS from user space and from the hooks on processes; the frozen filter.

use core::arch::asm;

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use tracer_common::{
    arch,
    event::MappingMoved,
    filter::{Filter, MAX_ACTORS, MAX_CGROUP_LEVELS, MAX_CGROUPS, MAX_RANGES, MAX_SPANS, membership},
    names::{self, COMM_LEN, Names},
};

use crate::kernel::{self, config};

/// Most processes that can be followed at once; any more are not followed.
const MAX_TARGETS: usize = 1 << 16;

/// The conditions that each process fulfils, bits of `membership`, by thread group id. A process that fulfils none is
/// not in the map. The hooks keep it up to date, so that the owner of a move costs one look-up.
#[btf_map]
static TARGETS: HashMap<u32, u32, MAX_TARGETS> = HashMap::new();

/// User space overrides it before loading; then it is frozen.
#[unsafe(no_mangle)]
static FILTER: Filter = Filter::EVERYTHING;

/// A field of [`FILTER`]. The read is volatile: otherwise the compiler would use the zeros of the object.
macro_rules! filter {
    ($($field:tt)+) => {
        // SAFETY: a valid static; indices are within the arrays' lengths.
        unsafe { core::ptr::read_volatile(&raw const FILTER.$($field)+) }
    };
}

/// Whether moves of this owner are wanted.
#[inline(always)]
pub fn wants(tgid: u32) -> bool {
    filter!(need) == 0 || is_enough(fulfils(tgid))
}

/// Whether an owner who fulfils this is wanted.
#[inline(always)]
pub fn is_enough(fulfilled: u32) -> bool {
    let need = filter!(need);
    fulfilled & need == need
}

/// Whether moves of memory without an owner are wanted: no filter requires an owner or an address.
#[inline(always)]
pub fn wants_unowned() -> bool {
    wants_everybody() && filter!(range_count) == 0
}

/// Whether moves away from this frame's node are wanted, to any node.
#[inline(always)]
pub fn wants_from(pfn: u64) -> bool {
    filter!(by_nodes) == 0 || pairs_of(pfn).0 != 0
}

/// Whether every owner is wanted, known or not.
#[inline(always)]
pub fn wants_everybody() -> bool {
    filter!(need) == 0
}

/// The conditions that a process fulfils, bits of `membership`.
#[inline(always)]
pub fn fulfils(tgid: u32) -> u32 {
    // SAFETY: a u32 of the map, read once.
    TARGETS.get_ptr(tgid).map_or(0, |bits| unsafe { *bits })
}

/// Sets the conditions that the process fulfils from now on. Returns false if there is no room.
#[inline(always)]
pub fn set(tgid: u32, bits: u32) -> bool {
    if bits == 0 {
        forget(tgid);
        return true;
    }
    TARGETS.insert(tgid, bits, 0).is_ok()
}

#[inline(always)]
fn forget(tgid: u32) {
    let _ = TARGETS.remove(tgid);
}

/// Marks the process as exiting. The conditions that it fulfils hold for its pages until [`bury`].
#[inline(always)]
pub fn exits(tgid: u32) {
    if let Some(bits) = TARGETS.get_ptr_mut(tgid) {
        // SAFETY: a live u32 of the map. Only the process itself, and user space before it has exited, write it.
        unsafe { *bits |= membership::EXITED };
    }
}

/// Forgets the process that had this number and is gone. Another process with this number was judged anew when it was
/// forked: its bits do not say that it exits, and it is kept. If it exits already, it is forgotten too, and its last
/// pages are missed.
#[inline(always)]
pub fn bury(tgid: u32) {
    if fulfils(tgid) & membership::EXITED != 0 {
        forget(tgid);
    }
}

/// The lineage that a child inherits from its parent.
#[inline(always)]
pub fn inherited(parent_tgid: u32) -> u32 {
    if filter!(need) & membership::LINEAGE == 0 || filter!(follow) == 0 {
        return 0;
    }
    fulfils(parent_tgid) & membership::LINEAGE
}

/// Judges a process: keeps `lineage` as it is, and checks its leader's name and cgroup.
#[inline(always)]
pub fn judge(lineage: u32, leader: u64, comm: [u8; COMM_LEN]) -> u32 {
    let need = filter!(need);
    let mut bits = lineage;
    if need & membership::COMM != 0 && matches(&raw const FILTER.comms, comm) {
        bits |= membership::COMM;
    }
    if need & membership::CGROUP != 0 && in_wanted_cgroup(leader) {
        bits |= membership::CGROUP;
    }
    bits
}

/// Whether moves by this task are wanted. The task's state caches the result.
#[inline(always)]
pub fn wants_actor(tgid: u32, comm: [u8; COMM_LEN]) -> bool {
    if filter!(by_actor) == 0 {
        return true;
    }
    let mut i = 0;
    while i < MAX_ACTORS && i < filter!(actor_count) as usize {
        if filter!(actor_tgids[i]) == tgid {
            return true;
        }
        i += 1;
    }
    matches(&raw const FILTER.actors, comm)
}

/// Whether moves for this reason are wanted.
#[inline(always)]
pub fn wants_reason(reason: u8) -> bool {
    filter!(by_reason) == 0 || filter!(reasons[(reason >> 6) as usize]) >> (reason & 63) & 1 != 0
}

/// Whether folios of this order are wanted.
#[inline(always)]
pub fn wants_order(order: u8) -> bool {
    u32::from(order) >= filter!(min_order)
}

/// Whether a move outside migrate_pages, whose owner and actor are wanted, passes the other filters. A page
/// that leaves for swap, or comes from there, counts as staying on the node of the frame it has.
#[inline(always)]
pub fn wants_outside(event: &MappingMoved) -> bool {
    let old_pfn = if event.old_pfn == 0 {
        event.new_pfn
    } else {
        event.old_pfn
    };
    let new_pfn = if event.new_pfn == 0 {
        event.old_pfn
    } else {
        event.new_pfn
    };
    wants_reason(event.reason)
        && wants_order(event.order)
        && wants_address(event.vaddr, event.pages)
        && wants_frames(old_pfn, new_pfn)
}

/// Whether folios of every order are wanted.
#[inline(always)]
pub fn wants_every_order() -> bool {
    filter!(min_order) == 0
}

/// Whether the address of at least one of these pages is wanted.
#[inline(always)]
pub fn wants_address(vaddr: u64, pages: u32) -> bool {
    let count = filter!(range_count) as usize;
    if count == 0 {
        return true;
    }
    let end = vaddr + arch::bytes(u64::from(pages));
    let mut i = 0;
    while i < MAX_RANGES && i < count {
        if vaddr < filter!(ranges[i][1]) && end > filter!(ranges[i][0]) {
            return true;
        }
        i += 1;
    }
    false
}

/// Whether a move from one frame to the other is wanted by their nodes.
#[inline(always)]
pub fn wants_frames(old_pfn: u64, new_pfn: u64) -> bool {
    filter!(by_nodes) == 0 || pairs_of(old_pfn).0 & pairs_of(new_pfn).1 != 0
}

/// The pairs whose old node holds the frame, and those whose new node does. A helper copies them, so that the verifier
/// does not know their values. If it knew them, it would decide [`wants_frames`] when the program is loaded; on 6.1 it
/// then decided for all frames as for those of one node, and no copy on write passed `--nodes 1:0`.
#[inline(always)]
fn pairs_of(pfn: u64) -> (u32, u32) {
    let mut pairs = (&raw const FILTER.elsewhere).cast::<u32>();
    let count = filter!(span_count) as usize;
    let mut i = 0;
    while i < MAX_SPANS && i < count {
        if pfn >= filter!(spans[i].start) && pfn < filter!(spans[i].end) {
            pairs = &raw const FILTER.spans[i].from;
            break;
        }
        i += 1;
    }
    let pairs = kernel::peek(pairs as u64, 0);
    (pairs as u32, (pairs >> 32) as u32)
}

/// Whether the task's v2 cgroup, or one above it, is wanted: `task->cgroups->dfl_cgrp->ancestors[..=level]`
/// (`struct cgroup`, include/linux/cgroup-defs.h, 6.1 to 7.3), by `kn->id`, the directory's inode number.
#[inline(always)]
fn in_wanted_cgroup(task: u64) -> bool {
    let css_set: u64 = kernel::read(task, config!(task_cgroups));
    let cgroup: u64 = kernel::read(css_set, config!(css_set_dfl_cgrp));
    let level: u32 = kernel::read(cgroup, config!(cgroup_level));
    let mut above = 0;
    while above < MAX_CGROUP_LEVELS && above <= level as usize {
        let ancestor: u64 = kernel::read(cgroup, config!(cgroup_ancestors) + 8 * above as u32);
        let node: u64 = kernel::read(ancestor, config!(cgroup_kn));
        let id: u64 = kernel::read(node, config!(kernfs_id));
        let mut i = 0;
        while i < MAX_CGROUPS && i < filter!(cgroup_count) as usize {
            if filter!(cgroups[i]) == id {
                return true;
            }
            i += 1;
        }
        above += 1;
    }
    false
}

#[inline(always)]
fn matches(names: *const Names, comm: [u8; COMM_LEN]) -> bool {
    let leaves = |byte: u8| {
        let mut index = u64::from(byte);
        // The verifier of 6.1 does not track the bounds of a byte that shares a register with others. The mask is in
        // assembly because the compiler knows a byte's bounds, and would drop it.
        // SAFETY: masks a register.
        unsafe { asm!("{index} &= 255", index = inout(reg) index) };
        // SAFETY: a valid static of 256 entries.
        unsafe { core::ptr::read_volatile((&raw const (*names).bytes).cast::<u64>().add(index as usize)) }
    };
    // SAFETY: a valid static.
    let (starts, stars, accepts) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*names).starts),
            core::ptr::read_volatile(&raw const (*names).stars),
            core::ptr::read_volatile(&raw const (*names).accepts),
        )
    };
    names::accepts(starts, stars, accepts, leaves, comm)
}
