//! Whose events are wanted. Input: TARGETS from user space and from forks; the frozen config.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};

use crate::kernel::config;

/// Most processes that can be followed at once; a fork beyond it is not followed.
const MAX_TARGETS: usize = 1 << 16;

/// Thread group ids of the wanted owners; the value is unused.
#[btf_map]
static TARGETS: HashMap<u32, u32, MAX_TARGETS> = HashMap::new();

/// Whether events of this owner are wanted.
#[inline(always)]
pub fn wants(tgid: u32) -> bool {
    config!(all) != 0 || TARGETS.get_ptr(tgid).is_some()
}

/// Whether events of memory that is nobody's are wanted.
#[inline(always)]
pub fn wants_unowned() -> bool {
    config!(all) != 0
}

/// Whether this very process was asked for, or descends from one that was.
#[inline(always)]
pub fn is_target(tgid: u32) -> bool {
    TARGETS.get_ptr(tgid).is_some()
}

/// A target's child becomes one too. False when there is no room.
#[inline(always)]
pub fn follow(tgid: u32) -> bool {
    TARGETS.insert(tgid, 1, 0).is_ok()
}

/// The process is gone; its number may come back as somebody else.
#[inline(always)]
pub fn forget(tgid: u32) {
    let _ = TARGETS.remove(tgid);
}
