//! The memory zone that a frame belongs to.
//! Input: /proc/zoneinfo.

use std::fs;
use std::io;

use crate::units::{NodeId, Pfn};

/// One zone: a range of frames. Some of them may be holes, or belong to another zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its node.
    pub node: NodeId,
    /// The kernel's name for it: `DMA`, `DMA32`, `Normal`, `Movable`, `Device`.
    pub name: String,
    /// Its first frame.
    pub start: Pfn,
    /// The first frame after it.
    pub end: Pfn,
}

/// The zones of the machine that have frames.
///
/// # Errors
/// When /proc/zoneinfo cannot be read.
pub fn read() -> io::Result<Vec<Zone>> {
    Ok(parse(&fs::read("/proc/zoneinfo")?))
}

/// Parses `/proc/zoneinfo` (mm/vmstat.c, `zoneinfo_show_print`): headings, each followed by lines of a name and a
/// number.
pub fn parse(text: &[u8]) -> Vec<Zone> {
    let mut zones: Vec<Zone> = Vec::new();
    let mut spanned = 0;
    for line in text
        .split(|&byte| byte == b'\n')
        .filter_map(|line| str::from_utf8(line).ok())
    {
        let heading = line.strip_prefix("Node ").and_then(|rest| rest.split_once(", zone"));
        if let Some((node, name)) = heading {
            spanned = 0;
            zones.extend(node.parse().ok().map(|node| Zone {
                node: NodeId(node),
                name: name.trim().to_owned(),
                start: Pfn(0),
                end: Pfn(0),
            }));
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        let (name, value) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()));
        match (name, value, zones.last_mut()) {
            (Some("spanned"), Some(pages), _) => spanned = pages,
            (Some("start_pfn:"), Some(start), Some(zone)) => {
                zone.start = Pfn(start);
                zone.end = Pfn(start.saturating_add(spanned));
            }
            _ => {}
        }
    }
    zones.retain(|zone| zone.start < zone.end);
    zones
}

/// The zone of a frame; `None` if no zone or several zones span it.
pub fn of(zones: &[Zone], pfn: Pfn) -> Option<&Zone> {
    let mut spanning = zones.iter().filter(|zone| zone.start <= pfn && pfn < zone.end);
    match (spanning.next(), spanning.next()) {
        (Some(zone), None) => Some(zone),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"Node 0, zone      DMA\n  per-node stats\n      nr_inactive_anon 5\n  pages free     3840\n\
        spanned  4095\n        present  3998\n  start_pfn:           1\n\
Node 0, zone    DMA32\n        spanned  1044480\n  start_pfn:           4096\n\
Node 0, zone  Movable\n        spanned  0\n  start_pfn:           0\nNode 1, zone   Normal\n        spanned  10\n  start_pfn:           1044500\n\
Node x, zone   Bad\n\xff\n";

    #[test]
    fn zones_with_frames_are_listed() {
        let zones = parse(TEXT);
        let names: Vec<_> = zones.iter().map(|zone| (zone.node.0, zone.name.as_str())).collect();
        assert_eq!(names, [(0, "DMA"), (0, "DMA32"), (1, "Normal")]);
        assert_eq!((zones[0].start, zones[0].end), (Pfn(1), Pfn(4096)));
        let name = |pfn| of(&zones, Pfn(pfn)).map(|zone| zone.name.as_str());
        assert_eq!((name(0), name(1), name(4096)), (None, Some("DMA"), Some("DMA32")));
        // The frame is in the span of two zones.
        assert_eq!(name(1_044_505), None);
        assert_eq!(name(1_048_600), None);
        assert!(parse(b"").is_empty());
    }
}
