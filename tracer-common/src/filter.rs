//! The filter as the BPF programs check it: whose events are wanted, and which of them.
//! Written by `cli::filters`, frozen into the object's `.rodata`, read by `filter` of the programs.

use crate::names::Names;

/// Conditions that a process can fulfil: the bits of a value of the map `TARGETS`, and of `Filter::need`.
pub mod membership {
    /// It was requested by its number, or descends from a process that was.
    pub const LINEAGE: u32 = 1;
    /// It is in a wanted cgroup, or below one.
    pub const CGROUP: u32 = 2;
    /// Its name matches a wanted one.
    pub const COMM: u32 = 4;
    /// Not a condition: the last thread of the process exits, and another process may get its number soon.
    pub const EXITED: u32 = 1 << 31;
}

/// Most cgroups that can be requested.
pub const MAX_CGROUPS: usize = 8;
/// Most levels of cgroups that are checked, the root's included.
pub const MAX_CGROUP_LEVELS: usize = 32;
/// Most address ranges that can be requested.
pub const MAX_RANGES: usize = 4;
/// Most ranges of frames that can be distinguished.
pub const MAX_SPANS: usize = 32;
/// Most pairs of nodes that can be requested: bits of [`Span::from`].
pub const MAX_NODE_PAIRS: usize = 32;
/// Most processes that can be requested as actors.
pub const MAX_ACTORS: usize = 8;

/// Frames whose node takes part in wanted pairs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First frame.
    pub start: u64,
    /// First frame after the span.
    pub end: u64,
    /// The pairs whose old node holds these frames, one bit each.
    pub from: u32,
    /// The pairs whose new node holds these frames.
    pub to: u32,
}

/// The filter. It is frozen: the verifier sees its fields as constants, so a filter that is not requested costs
/// nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Bits of [`membership`], all of which a wanted owner has; 0: every owner is wanted.
    pub need: u32,
    /// 1: the children of a process that has `LINEAGE` have it too.
    pub follow: u32,
    /// 1: only the reasons in `reasons` are wanted.
    pub by_reason: u32,
    /// 1: only the actors in `actors` and `actor_tgids` are wanted.
    pub by_actor: u32,
    /// Smallest wanted order of a folio; in the tracepoint backend, of a mapping.
    pub min_order: u32,
    /// Number of `ranges`; 0: every address is wanted.
    pub range_count: u32,
    /// 1: only the pairs of nodes in `spans` are wanted.
    pub by_nodes: u32,
    /// Number of `spans`.
    pub span_count: u32,
    /// Number of `cgroups`.
    pub cgroup_count: u32,
    /// Number of `actor_tgids`.
    pub actor_count: u32,
    /// The pairs whose old node holds the frames outside of `spans`, and those whose new node does.
    pub elsewhere: [u32; 2],
    /// The wanted reasons, one bit each, as numbered on the wire.
    pub reasons: [u64; 4],
    /// Wanted ranges of virtual addresses: the first address, and the first one after the range.
    pub ranges: [[u64; 2]; MAX_RANGES],
    /// The frames whose nodes take part in wanted pairs.
    pub spans: [Span; MAX_SPANS],
    /// The wanted cgroups, by `kernfs_node.id`.
    pub cgroups: [u64; MAX_CGROUPS],
    /// The wanted actors: processes that move pages.
    pub actor_tgids: [u32; MAX_ACTORS],
    /// Names of the wanted owners' group leaders.
    pub comms: Names,
    /// Names of the wanted actors: threads that move pages.
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
    /// The filter that lets everything through. The object holds it until user space overrides it.
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

    /// The bytes that override the object's global.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `repr(C)`, integers only, no padding (size asserted above).
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}
