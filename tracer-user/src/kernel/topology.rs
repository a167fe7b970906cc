//! The NUMA node of each page frame.
//! Input: /sys/devices/system/{node,memory,cpu} and /proc/zoneinfo.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use thiserror::Error;

use crate::units::{NodeId, PAGE_SHIFT, PAGE_SIZE, Pfn};

const ZONEINFO: &str = "/proc/zoneinfo";
const NODES: &str = "/sys/devices/system/node";
const MEMORY: &str = "/sys/devices/system/memory";
const ONLINE_CPUS: &str = "/sys/devices/system/cpu/online";

/// Why the topology is not known.
#[derive(Debug, Error)]
pub enum TopologyError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// Neither source names a node with memory.
    #[error("neither /proc/zoneinfo nor /sys/devices/system/node names a node with memory")]
    NoMemory,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// Its CPUs as the kernel lists them ("0-3,8-11"); empty without any.
    pub cpus: String,
    /// Memory of the node in bytes, with the kernel's own and without holes; 0 for a node of CPUs only.
    pub bytes: u64,
}

/// One zone, as /proc/zoneinfo describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its node.
    pub node: NodeId,
    /// Its first frame.
    pub start: Pfn,
    /// Frames from the first to the last, holes included.
    pub spanned: u64,
    /// Frames that have memory.
    pub present: u64,
}

/// A node as sysfs lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDir {
    /// The N of nodeN.
    pub id: NodeId,
    /// Content of `cpulist`.
    pub cpus: String,
    /// The M of each link memoryM.
    pub blocks: Vec<u64>,
}

/// The readings that a topology is built from, so that tests can build one without the machine.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The zones, from [`parse_zoneinfo`].
    pub zones: Vec<Zone>,
    /// Frames in a memory block; 0 without memory blocks.
    pub block_pages: u64,
    /// Empty on a kernel without NUMA.
    pub nodes: Vec<NodeDir>,
    /// CPUs for a kernel without NUMA, which has one node.
    pub online_cpus: String,
}

/// Frames of one node, from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeSpan {
    start: u64,
    end: u64,
    node: NodeId,
}

/// The counts of sysfs entries that change when memory is added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listing {
    blocks: Option<usize>,
    nodes: Option<usize>,
}

/// The nodes of the machine and the frames of each.
#[derive(Clone, Debug)]
pub struct Topology {
    nodes: Vec<Node>,
    spans: Vec<NodeSpan>,
    listing: Listing,
}

impl Topology {
    /// Reads the machine's topology. Without sysfs, or on a kernel without NUMA, /proc/zoneinfo alone is enough.
    ///
    /// # Errors
    /// [`TopologyError`] when /proc/zoneinfo cannot be read or no node with memory is found.
    pub fn read() -> Result<Self, TopologyError> {
        let listing = Listing::read();
        let zoneinfo = fs::read(ZONEINFO).map_err(|source| TopologyError::Read { path: ZONEINFO, source })?;
        let block_size = fs::read(format!("{MEMORY}/block_size_bytes")).unwrap_or_default();
        let sources = Sources {
            zones: parse_zoneinfo(&zoneinfo),
            block_pages: parse_block_size(&block_size).unwrap_or(0) >> PAGE_SHIFT,
            nodes: read_nodes(),
            online_cpus: fs::read_to_string(ONLINE_CPUS).unwrap_or_default(),
        };
        let mut topology = Self::from_sources(&sources)?;
        topology.listing = listing;
        Ok(topology)
    }

    /// Builds the topology. A memory block that exactly one node has belongs to that node. If several nodes share a
    /// block, or none has it, the zone that spans its frames decides. Frames that zones of several nodes span remain
    /// unknown.
    ///
    /// # Errors
    /// [`TopologyError::NoMemory`].
    pub fn from_sources(sources: &Sources) -> Result<Self, TopologyError> {
        let spans = resolve(&sources.zones, &sources.nodes, sources.block_pages);
        if spans.is_empty() {
            return Err(TopologyError::NoMemory);
        }
        let mut nodes = BTreeMap::new();
        for dir in &sources.nodes {
            nodes.insert(dir.id, (dir.cpus.trim(), 0u64));
        }
        for zone in &sources.zones {
            // The node is not in sysfs: the kernel has no NUMA.
            let node = nodes.entry(zone.node).or_insert((sources.online_cpus.trim(), 0));
            node.1 = node.1.saturating_add(zone.present.saturating_mul(PAGE_SIZE));
        }
        let nodes = nodes.into_iter().map(|(id, (cpus, bytes))| Node {
            id,
            cpus: cpus.to_owned(),
            bytes,
        });
        Ok(Self {
            nodes: nodes.collect(),
            spans,
            listing: Listing {
                blocks: None,
                nodes: None,
            },
        })
    }

    /// The node of a frame; `None` outside of all memory, and if the node is not known.
    pub fn node_of(&self, pfn: Pfn) -> Option<NodeId> {
        let behind = self.spans.partition_point(|span| span.start <= pfn.0);
        let span = self.spans.get(behind.checked_sub(1)?)?;
        (pfn.0 < span.end).then_some(span.node)
    }

    /// The frames whose node is known, in ascending order.
    pub fn frames(&self) -> impl Iterator<Item = (std::ops::Range<Pfn>, NodeId)> {
        self.spans
            .iter()
            .map(|span| (Pfn(span.start)..Pfn(span.end), span.node))
    }

    /// The number of bits of a frame number, with room for four times this machine's memory.
    pub fn pfn_bits(&self) -> u32 {
        let end = self.spans.iter().map(|span| span.end).max().unwrap_or(0);
        (u64::BITS - end.leading_zeros() + 2).clamp(30, 40)
    }

    /// All nodes by number, also those without memory or without CPUs.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether memory or nodes were added or removed since [`read`](Self::read): then read again.
    ///
    /// It counts the entries of two directories, which takes 25 us with 200 memory blocks. It misses a change that adds
    /// as many as it removes. Blocks that go online or offline keep their node and are not a change. Without sysfs it
    /// is always false.
    pub fn changed(&self) -> bool {
        self.listing != Listing::read()
    }
}

impl Listing {
    fn read() -> Self {
        let count = |directory| fs::read_dir(directory).ok().map(Iterator::count);
        Self {
            blocks: count(MEMORY),
            nodes: count(NODES),
        }
    }
}

/// The nodes under sysfs. Nodes that cannot be read are left out; their zones replace them.
fn read_nodes() -> Vec<NodeDir> {
    let mut nodes: Vec<NodeDir> = numbered(NODES, "node")
        .into_iter()
        .filter_map(|number| {
            let path = format!("{NODES}/node{number}");
            Some(NodeDir {
                id: NodeId(u32::try_from(number).ok()?),
                cpus: fs::read_to_string(format!("{path}/cpulist")).unwrap_or_default(),
                blocks: numbered(&path, "memory"),
            })
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

/// The numbers N of the entries `<prefix>N` of a directory.
fn numbered(directory: &str, prefix: &str) -> Vec<u64> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.strip_prefix(prefix)?.parse().ok()
    });
    numbers.collect()
}

/// Parses `block_size_bytes`: hexadecimal without a prefix (drivers/base/memory.c, `block_size_bytes_show`); bytes.
pub fn parse_block_size(text: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(text.trim_ascii()).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

/// Parses `/proc/zoneinfo` (mm/vmstat.c, `zoneinfo_show_print`) and skips zones without frames and invalid ones.
pub fn parse_zoneinfo(text: &[u8]) -> Vec<Zone> {
    let mut zones = Vec::new();
    let mut open: Option<PartialZone> = None;
    for line in text.split(|&byte| byte == b'\n') {
        let Ok(line) = str::from_utf8(line) else {
            continue;
        };
        if let Some(heading) = line.strip_prefix("Node ") {
            zones.extend(open.take().and_then(PartialZone::finish));
            let node = heading.split_once(", zone").map(|(node, _)| node.parse());
            open = node.and_then(Result::ok).map(|node| PartialZone {
                node: NodeId(node),
                ..PartialZone::default()
            });
            continue;
        }
        let (Some(zone), mut words) = (&mut open, line.split_ascii_whitespace()) else {
            continue;
        };
        let field = match words.next() {
            Some("spanned") => &mut zone.spanned,
            Some("present") => &mut zone.present,
            Some("start_pfn:") => &mut zone.start,
            _ => continue,
        };
        *field = words.next().and_then(|value| value.parse().ok());
    }
    zones.extend(open.and_then(PartialZone::finish));
    zones
}

#[derive(Default)]
struct PartialZone {
    node: NodeId,
    start: Option<u64>,
    spanned: Option<u64>,
    present: Option<u64>,
}

impl PartialZone {
    fn finish(self) -> Option<Zone> {
        Some(Zone {
            node: self.node,
            start: Pfn(self.start?),
            spanned: self.spanned.filter(|&pages| pages > 0)?,
            present: self.present.unwrap_or(0),
        })
    }
}

/// The claims that cover the frames at a point of the sweep, by node.
#[derive(Default)]
struct Claims(BTreeMap<NodeId, usize>);

impl Claims {
    fn change(&mut self, node: NodeId, opens: bool) {
        let count = self.0.entry(node).or_default();
        *count = if opens { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.0.remove(&node);
        }
    }

    /// The only node among these claims that is also in `also`; None if there is not exactly one.
    fn only(&self, also: Option<&Self>) -> Option<NodeId> {
        let mut nodes = self
            .0
            .keys()
            .filter(|node| also.is_none_or(|also| also.0.contains_key(node)));
        match (nodes.next(), nodes.next()) {
            (Some(&node), None) => Some(node),
            _ => None,
        }
    }
}

/// Sweeps over all claims from the lowest frame to the highest, and merges neighbours of one node.
fn resolve(zones: &[Zone], nodes: &[NodeDir], block_pages: u64) -> Vec<NodeSpan> {
    let mut edges = Vec::new();
    let mut claim = |start: u64, pages: u64, node, by_block| {
        let end = start.saturating_add(pages);
        if start < end {
            edges.push((start, node, by_block, true));
            edges.push((end, node, by_block, false));
        }
    };
    for zone in zones {
        claim(zone.start.0, zone.spanned, zone.node, false);
    }
    for (node, &block) in nodes
        .iter()
        .flat_map(|dir| dir.blocks.iter().map(|block| (dir.id, block)))
    {
        if let Some(start) = block.checked_mul(block_pages) {
            claim(start, block_pages, node, true);
        }
    }
    edges.sort_unstable();

    let (mut by_zone, mut by_block) = (Claims::default(), Claims::default());
    let mut spans: Vec<NodeSpan> = Vec::new();
    let mut from = 0;
    for (at, node, is_block, opens) in edges {
        let owner = match by_block.0.len() {
            0 => by_zone.only(None),
            1 => by_block.only(None),
            _ => by_block.only(Some(&by_zone)),
        };
        if let Some(node) = owner.filter(|_| from < at) {
            match spans.last_mut() {
                Some(last) if last.end == from && last.node == node => last.end = at,
                _ => spans.push(NodeSpan {
                    start: from,
                    end: at,
                    node,
                }),
            }
        }
        from = at;
        let claims = if is_block { &mut by_block } else { &mut by_zone };
        claims.change(node, opens);
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZONEINFO: &[u8] = b"\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 997
  pages free     3840
        boost    0
        min      39
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 2963, 23937, 23937, 23937)
      nr_free_pages 3840
  pagesets
    cpu: 0
              count:    0
              high:     0
  node_unreclaimable:  0
  start_pfn:           1
Node 0, zone   Normal
  pages free     1
        spanned  1000
        present  1000
        managed  900
  node_unreclaimable:  0
  start_pfn:           4096
Node 0, zone  Movable
  pages free     0
        boost    0
        spanned  0
        present  0
        managed  0
        protection: (0, 0, 0, 0, 0)
Node 1, zone   Normal
  pages free     1
        spanned  2000
        present  1000
        managed  950
  start_pfn:           5096
";

    fn zone(node: u32, start: u64, spanned: u64) -> Zone {
        Zone {
            node: NodeId(node),
            start: Pfn(start),
            spanned,
            present: spanned,
        }
    }

    fn dir(id: u32, blocks: &[u64]) -> NodeDir {
        NodeDir {
            id: NodeId(id),
            cpus: format!("{id}\n"),
            blocks: blocks.to_vec(),
        }
    }

    fn spans(zones: &[Zone], nodes: &[NodeDir]) -> Vec<(u64, u64, u32)> {
        resolve(zones, nodes, 100)
            .into_iter()
            .map(|span| (span.start, span.end, span.node.0))
            .collect()
    }

    #[test]
    fn reads_zoneinfo() {
        let zones = parse_zoneinfo(ZONEINFO);
        let brief: Vec<_> = zones
            .iter()
            .map(|zone| (zone.node.0, zone.start.0, zone.spanned, zone.present))
            .collect();
        assert_eq!(
            brief,
            [(0, 1, 4095, 3998), (0, 4096, 1000, 1000), (1, 5096, 2000, 1000)]
        );
    }

    #[test]
    fn zones_alone_are_enough() {
        let topology = Topology::from_sources(&Sources {
            zones: parse_zoneinfo(ZONEINFO),
            online_cpus: "0-1\n".to_owned(),
            ..Sources::default()
        })
        .unwrap();
        let node = |pfn| topology.node_of(Pfn(pfn)).map(|node| node.0);
        assert_eq!(node(0), None);
        assert_eq!([node(1), node(4096), node(5095)], [Some(0); 3]);
        assert_eq!([node(5096), node(7095)], [Some(1); 2]);
        assert_eq!([node(7096), node(u64::MAX)], [None; 2]);
        assert_eq!(topology.spans.len(), 2);
        assert_eq!(topology.nodes()[0].cpus, "0-1");
        assert_eq!(topology.nodes()[0].bytes, 4998 * 4096);
    }

    #[test]
    fn blocks_are_finer_than_zones() {
        // Interleaved nodes: the zones span each other.
        let zones = [zone(0, 0, 300), zone(1, 100, 300)];
        let nodes = [dir(0, &[0, 2]), dir(1, &[1, 3])];
        assert_eq!(
            spans(&zones, &nodes),
            [(0, 100, 0), (100, 200, 1), (200, 300, 0), (300, 400, 1)]
        );
        assert_eq!(spans(&zones, &[]), [(0, 100, 0), (300, 400, 1)]);
    }

    #[test]
    fn zones_divide_a_shared_block() {
        let zones = [zone(0, 0, 150), zone(1, 150, 150), zone(2, 900, 50)];
        let nodes = [dir(0, &[0, 1]), dir(1, &[1, 2]), dir(2, &[])];
        assert_eq!(spans(&zones, &nodes), [(0, 150, 0), (150, 300, 1), (900, 950, 2)]);
        // The zone of a third node does not count.
        let zones = [zone(0, 0, 150), zone(1, 150, 150), zone(2, 0, 900)];
        assert_eq!(spans(&zones, &nodes), [(0, 150, 0), (150, 300, 1), (300, 900, 2)]);
    }

    #[test]
    fn nodes_without_memory_are_listed() {
        let topology = Topology::from_sources(&Sources {
            zones: vec![zone(1, 0, 10)],
            nodes: vec![dir(0, &[]), dir(1, &[])],
            ..Sources::default()
        })
        .unwrap();
        let listed: Vec<_> = topology
            .nodes()
            .iter()
            .map(|node| (node.id.0, &*node.cpus, node.bytes))
            .collect();
        assert_eq!(listed, [(0, "0", 0), (1, "1", 40_960)]);
    }

    #[test]
    fn hostile_sources() {
        assert!(matches!(
            Topology::from_sources(&Sources::default()),
            Err(TopologyError::NoMemory)
        ));
        assert_eq!(parse_block_size(b"8000000\n"), Some(128 << 20));
        assert_eq!(parse_block_size(b"0x1"), None);
        assert_eq!(parse_block_size(b""), None);
        let text = b"Node x, zone Normal\n spanned 5\n start_pfn: 1\nNode 4294967296, zone X\nNode 1\nNode 2, zone\n spanned\n start_pfn: -1\n\xff\n";
        assert_eq!(parse_zoneinfo(text), []);
        let end = [zone(0, u64::MAX - 1, u64::MAX), zone(1, u64::MAX, 5)];
        assert_eq!(spans(&end, &[dir(2, &[u64::MAX])]), [(u64::MAX - 1, u64::MAX, 0)]);
    }

    #[test]
    fn reads_this_machine() {
        let topology = Topology::read().unwrap();
        assert!(topology.nodes().iter().any(|node| node.bytes > 0));
        assert!(!topology.changed());
        let first = topology.spans[0];
        assert_eq!(topology.node_of(Pfn(first.start)), Some(first.node));
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>, lines in "(Node [0-3], zone|\n|  spanned|  start_pfn:| [0-9]{0,21}){0,30}") {
            let _ = parse_zoneinfo(&text);
            let _ = parse_zoneinfo(lines.as_bytes());
            let _ = parse_block_size(&text);
        }

        #[test]
        fn spans_are_sorted_apart_and_agree_with_the_claims(
            zones in prop::collection::vec((0u32..3, 0u64..500, 1u64..300), 0..5),
            blocks in prop::collection::vec((0u32..3, 0u64..8), 0..8),
            pfn in 0u64..900,
        ) {
            let zones: Vec<Zone> = zones.into_iter().map(|(node, start, pages)| zone(node, start, pages)).collect();
            let nodes: Vec<NodeDir> = (0..3)
                .map(|id| dir(id, &blocks.iter().filter(|block| block.0 == id).map(|block| block.1).collect::<Vec<_>>()))
                .collect();
            let spans = spans(&zones, &nodes);
            prop_assert!(spans.iter().all(|span| span.0 < span.1));
            prop_assert!(spans.windows(2).all(|pair| pair[0].1 < pair[1].0 || pair[0].1 == pair[1].0 && pair[0].2 != pair[1].2));

            let by_zone = |id: u32| zones.iter().any(|zone| zone.node.0 == id && zone.start.0 <= pfn && pfn < zone.start.0 + zone.spanned);
            let by_block = |id: u32| blocks.contains(&(id, pfn / 100));
            let claims: Vec<u32> = match (0..3).filter(|&id| by_block(id)).count() {
                0 => (0..3).filter(|&id| by_zone(id)).collect(),
                1 => (0..3).filter(|&id| by_block(id)).collect(),
                _ => (0..3).filter(|&id| by_block(id) && by_zone(id)).collect(),
            };
            let expected = if let [node] = claims[..] { Some(node) } else { None };
            let found = spans.iter().find(|span| span.0 <= pfn && pfn < span.1).map(|span| span.2);
            prop_assert_eq!(found, expected);
        }
    }
}
