//! What is wanted, as the programs check it: whose events, and which of them.
//! Written by `cli::filters`, frozen into the object's `.rodata`, read by `filter` of the programs.

use crate::names::Names;

/// What a process can fulfil: the bits of a value of the map `TARGETS`, and of `Filter::need`.
pub mod membership {
    /// It was asked for by its number, or descends from one that was.
    pub const LINEAGE: u32 = 1;
    /// It is in a wanted cgroup, or below one.
    pub const CGROUP: u32 = 2;
    /// Its name matches.
    pub const COMM: u32 = 4;
    /// Nothing to fulfil: its last thread exits, and the number may be somebody else's soon.
    pub const EXITED: u32 = 1 << 31;
}

/// Cgroups that can be asked for.
pub const MAX_CGROUPS: usize = 8;
/// Levels of cgroups that are looked at, the root's included.
pub const MAX_CGROUP_LEVELS: usize = 32;
/// Address ranges that can be asked for.
pub const MAX_RANGES: usize = 4;
/// Ranges of frames that can be told apart.
pub const MAX_SPANS: usize = 32;
/// Pairs of nodes that can be asked for: bits of [`Span::from`].
pub const MAX_NODE_PAIRS: usize = 32;
/// Processes that can be asked for as actors.
pub const MAX_ACTORS: usize = 8;

/// Frames whose node takes part in wanted pairs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First frame.
    pub start: u64,
    /// First frame behind it.
    pub end: u64,
    /// The pairs of which this is the old node, one bit each.
    pub from: u32,
    /// The pairs of which this is the new node.
    pub to: u32,
}

/// Frozen; the verifier sees its fields as constants, and what is not asked for costs nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Bits of [`membership`] that a wanted owner has all of; 0: every owner is wanted.
    pub need: u32,
    /// 1: the children of a process that has `LINEAGE` have it too.
    pub follow: u32,
    /// 1: only the reasons in `reasons`.
    pub by_reason: u32,
    /// 1: only the actors in `actors` and `actor_tgids`.
    pub by_actor: u32,
    /// Least order of a folio; in the tracepoint backend, of a mapping.
    pub min_order: u32,
    /// How many of `ranges` there are; 0: every address.
    pub range_count: u32,
    /// 1: only the pairs of nodes in `spans`.
    pub by_nodes: u32,
    /// How many of `spans` there are.
    pub span_count: u32,
    /// How many of `cgroups` there are.
    pub cgroup_count: u32,
    /// How many of `actor_tgids` there are.
    pub actor_count: u32,
    /// The pairs that frames outside of `spans` are the old and the new node of.
    pub elsewhere: [u32; 2],
    /// By reason, as numbered on the wire: a bit.
    pub reasons: [u64; 4],
    /// Virtual addresses, from the first to before the second.
    pub ranges: [[u64; 2]; MAX_RANGES],
    /// By frame.
    pub spans: [Span; MAX_SPANS],
    /// `kernfs_node.id` of each.
    pub cgroups: [u64; MAX_CGROUPS],
    /// Processes that move.
    pub actor_tgids: [u32; MAX_ACTORS],
    /// Names of owners, the group leader's.
    pub comms: Names,
    /// Names of threads that move.
    pub actors: Names,
}

const _: () = assert!(
    size_of::<Filter>()
        == 12 * 4
            + 4 * 8
            + MAX_RANGES * 16
            + MAX_SPANS * 24
            + MAX_CGROUPS * 8
            + MAX_ACTORS * 4
            + 2 * size_of::<Names>()
);

impl Filter {
    /// Nothing is filtered: what the object holds until user space overrides it.
    pub const EVERYTHING: Self = Self {
        need: 0,
        follow: 0,
        by_reason: 0,
        by_actor: 0,
        min_order: 0,
        range_count: 0,
        by_nodes: 0,
        span_count: 0,
        cgroup_count: 0,
        actor_count: 0,
        elsewhere: [0; 2],
        reasons: [0; 4],
        ranges: [[0; 2]; MAX_RANGES],
        spans: [Span {
            start: 0,
            end: 0,
            from: 0,
            to: 0,
        }; MAX_SPANS],
        cgroups: [0; MAX_CGROUPS],
        actor_tgids: [0; MAX_ACTORS],
        comms: Names::NONE,
        actors: Names::NONE,
    };

    /// The bytes to override the object's global with.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `repr(C)`, integers only, no padding (size asserted above).
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}
