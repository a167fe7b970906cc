//! Stand-ins for frames. One frame has one stand-in, neighbours in a block of 2 MiB remain neighbours, and the node
//! remains the same. The block of a frame cannot be found out.
//! Input: frames; the frames of each node.

use std::collections::{BTreeSet, HashMap};

use crate::{
    run::header::NodeFrames,
    units::{NodeId, Pfn},
};

use super::key::Key;

/// A block has as many frames as the largest folio outside hugetlb. Folios are aligned, so that each lies in one block.
const BLOCK_BITS: u32 = 9;
/// A block's number: memory has at most 2^52 bytes (x86, arm64), so that 2^31 blocks are enough. It is split in halves.
const NUMBER_BITS: u32 = 32;
const HALF: u32 = NUMBER_BITS / 2;
/// Twice the number of rounds that is held to be enough for a Feistel network.
const ROUNDS: u8 = 8;
/// The stand-ins of each node's frames differ in the bits from here on, in which those of no node have 0.
const NODE_SHIFT: u32 = BLOCK_BITS + NUMBER_BITS;
/// No kernel has more nodes (`NODES_SHIFT` is at most 10).
const MAX_NODES: u32 = 1 << 10;
/// The most blocks that are remembered.
const MOST: usize = 1 << 16;

/// Finds stand-ins.
pub struct StandIns<'k> {
    key: &'k Key,
    nodes: Vec<NodeFrames>,
    /// Stand-ins that were found so far, so that most frames need no hash.
    known: HashMap<(u64, u64), u64>,
}

impl<'k> StandIns<'k> {
    /// Stand-ins for the frames of a machine with these nodes.
    pub fn new(key: &'k Key, nodes: &[NodeFrames]) -> Self {
        Self {
            key,
            nodes: nodes.iter().filter(|span| span.node.0 < MAX_NODES).copied().collect(),
            known: HashMap::new(),
        }
    }

    /// The range of stand-ins of each node.
    pub fn table(&self) -> Vec<NodeFrames> {
        let nodes: BTreeSet<NodeId> = self.nodes.iter().map(|span| span.node).collect();
        nodes.into_iter().map(stand_ins).collect()
    }

    /// The stand-in of a frame, or of a stand-in; None if no memory can have that number.
    pub fn stand_in(&mut self, pfn: Pfn) -> Option<Pfn> {
        let span = self.nodes.iter().find(|span| span.first <= pfn && pfn < span.end);
        let block = match pfn.0 >> NODE_SHIFT {
            0 => pfn.0 >> BLOCK_BITS,
            _ if span.is_some_and(|span| *span == stand_ins(span.node)) => {
                pfn.0 >> BLOCK_BITS & ((1 << NUMBER_BITS) - 1)
            }
            _ => return None,
        };
        let region = span.map_or(0, |span| region(span.node));
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let key = self.key;
        let block = *self
            .known
            .entry((region, block))
            .or_insert_with(|| permuted(key, region, block));
        let within = pfn.0 & ((1 << BLOCK_BITS) - 1);
        Some(Pfn(region << NODE_SHIFT | block << BLOCK_BITS | within))
    }
}

/// The range of all possible stand-ins for frames of a node.
fn stand_ins(node: NodeId) -> NodeFrames {
    NodeFrames {
        first: Pfn(region(node) << NODE_SHIFT),
        end: Pfn((region(node) + 1) << NODE_SHIFT),
        node,
    }
}

/// The region of a node. 0 is for frames of no node.
fn region(node: NodeId) -> u64 {
    u64::from(node.0) + 1
}

/// A permutation of all block numbers (a Feistel network), different for each region and key.
fn permuted(key: &Key, region: u64, block: u64) -> u64 {
    let low = (1 << HALF) - 1;
    let (mut left, mut right) = (block >> HALF, block & low);
    for round in 0..ROUNDS {
        let parts: [&[u8]; 3] = [&region.to_le_bytes(), &[round], &right.to_le_bytes()];
        (left, right) = (right, left ^ key.hash("frame", &parts) & low);
    }
    left << HALF | right
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes() -> [NodeFrames; 2] {
        // The borders are within blocks, which have frames of both nodes.
        [(0, 1, 0x10_0100), (1, 0x10_0100, 0x20_0001)].map(|(node, first, end)| NodeFrames {
            first: Pfn(first),
            end: Pfn(end),
            node: NodeId(node),
        })
    }

    fn node_of(table: &[NodeFrames], pfn: Pfn) -> Option<NodeId> {
        let span = table.iter().find(|span| span.first <= pfn && pfn < span.end);
        span.map(|span| span.node)
    }

    proptest! {
        #[test]
        fn frames_keep_identity_neighbours_and_node(one in 0u64..0x20_0400, other in 0u64..0x20_0400) {
            let (key, nodes) = (Key([7; 32]), nodes());
            let mut frames = StandIns::new(&key, &nodes);
            let stand_in = |frames: &mut StandIns<'_>, pfn| frames.stand_in(Pfn(pfn)).unwrap();
            let (a, b) = (stand_in(&mut frames, one), stand_in(&mut frames, other));
            prop_assert_eq!(a == b, one == other);
            prop_assert_eq!(a, stand_in(&mut frames, one));
            prop_assert_eq!(node_of(&frames.table(), a), node_of(&nodes, Pfn(one)));
            prop_assert_eq!(a.0 % 512, one % 512);
            let next = stand_in(&mut frames, one + 1);
            let same_node = node_of(&nodes, Pfn(one)) == node_of(&nodes, Pfn(one + 1));
            if (one + 1) % 512 != 0 && same_node {
                prop_assert_eq!(next, a.plus(1));
            }
        }

        #[test]
        fn no_frame_makes_it_panic(pfn in any::<u64>(), first in any::<u64>(), end in any::<u64>(), node in any::<u32>()) {
            let span = NodeFrames { first: Pfn(first), end: Pfn(end), node: NodeId(node) };
            let key = Key([7; 32]);
            let mut frames = StandIns::new(&key, &[span]);
            prop_assert_eq!(frames.stand_in(Pfn(pfn)).is_none(), pfn >= 1 << NODE_SHIFT);
            prop_assert!(frames.table().len() <= 1);
        }
    }

    #[test]
    fn blocks_are_permuted() {
        let key = Key([7; 32]);
        let found: BTreeSet<u64> = (0..1 << 14).map(|block| permuted(&key, 1, block)).collect();
        assert_eq!(found.len(), 1 << 14);
        // The stand-ins are spread over all numbers.
        let small = found.iter().filter(|block| **block < 1 << 14).count();
        assert!(
            small < 16,
            "{small} of 16,384 stayed below 16,384, where none is to be expected"
        );
    }
}
