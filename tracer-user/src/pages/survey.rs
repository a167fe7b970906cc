//! Physical memory: every frame of a range with its flags, the number of its mappings, and the unit that it belongs to.
//! Input: /proc/kpageflags and /proc/kpagecount, read from the first frame to the last; the topology and the zones.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::kernel::topology::Topology;
use crate::pages::frames::{Machine, POSITION};
use crate::proc::kpage::{KpageError, PageFlags};
use crate::proc::zones::{self, Zone};
use crate::units::{NodeId, Order, Pfn};

/// Frames of one read, 64 KiB of words.
const STEP: usize = 8192;
/// `KPF_BUDDY`.
const BUDDY: u64 = 1 << 10;
/// `KPF_COMPOUND_HEAD`.
const HEAD: u64 = 1 << 15;
/// `KPF_COMPOUND_TAIL`.
const TAIL: u64 = 1 << 16;
/// `MAX_PAGE_ORDER`: the largest block of the page allocator (include/linux/mmzone.h).
const MAX_BLOCK: u32 = 10;

/// Neighbouring frames with equal properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The first frame.
    pub pfn: Pfn,
    /// The number of frames.
    pub pages: u64,
    /// Their flags, without those that mark the position in a unit.
    pub flags: PageFlags,
    /// The number of page tables that map each; `None` if it cannot be read.
    pub mapped: Option<u64>,
    /// The size of their units: compound pages, or free blocks. A free block counts as the largest that its position
    /// allows, because the kernel does not show the allocator's own order. `None` for a unit that begins outside the
    /// range.
    pub order: Option<Order>,
}

/// The node and the zone of each stretch of frames.
#[derive(Debug)]
pub struct Places {
    /// Ascending, without overlap.
    stretches: Vec<(Range<Pfn>, Option<NodeId>, Option<usize>)>,
    zones: Vec<Zone>,
}

impl Places {
    /// The places of this machine.
    pub fn new(topology: Option<&Topology>, zones: Vec<Zone>) -> Self {
        let mut edges: Vec<u64> = zones.iter().flat_map(|zone| [zone.start.0, zone.end.0]).collect();
        let spans = topology.into_iter().flat_map(Topology::frames);
        edges.extend(spans.flat_map(|(frames, _)| [frames.start.0, frames.end.0]));
        edges.extend([0, u64::MAX]);
        edges.sort_unstable();
        edges.dedup();
        let stretches = edges
            .windows(2)
            .filter_map(|edge| {
                let &[start, end] = edge else { return None };
                let node = topology.and_then(|topology| topology.node_of(Pfn(start)));
                let zone = zones::of(&zones, Pfn(start));
                let zone = zone.and_then(|found| zones.iter().position(|zone| zone == found));
                Some((Pfn(start)..Pfn(end), node, zone))
            })
            .collect();
        Self { stretches, zones }
    }

    /// Node and zone of a frame, and the first frame after it that may have others.
    pub fn at(&self, pfn: Pfn) -> (Option<NodeId>, Option<&Zone>, Pfn) {
        let behind = self.stretches.partition_point(|(frames, ..)| frames.start <= pfn);
        match behind.checked_sub(1).and_then(|at| self.stretches.get(at)) {
            Some((frames, node, zone)) => (*node, zone.and_then(|zone| self.zones.get(zone)), frames.end),
            None => (None, None, Pfn(u64::MAX)),
        }
    }
}

/// Frames grouped by flags, node, zone and size of their units.
#[derive(Debug, Default)]
pub struct Groups(BTreeMap<Group, Pages>);

/// The common properties of a group's frames.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Flags, bits of kpageflags.
    pub flags: u64,
    /// Their node; `None` if it is not known.
    pub node: Option<NodeId>,
    /// The zone's name; `None` if no zone or several zones span the frames.
    pub zone: Option<String>,
    /// The size of their units.
    pub order: Option<Order>,
}

/// Frames of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// The number of frames.
    pub pages: u64,
    /// The number of frames that a page table maps.
    pub mapped: u64,
}

impl Groups {
    /// Counts frames of one node and zone.
    pub fn add(&mut self, frames: &Frames, node: Option<NodeId>, zone: Option<&Zone>) {
        let group = Group {
            flags: frames.flags.bits(),
            node,
            zone: zone.map(|zone| zone.name.clone()),
            order: frames.order,
        };
        let pages = self.0.entry(group).or_default();
        pages.pages += frames.pages;
        if frames.mapped.is_some_and(|count| count > 0) {
            pages.mapped += frames.pages;
        }
    }

    /// The groups, the largest first.
    pub fn by_size(&self) -> Vec<(&Group, Pages)> {
        let mut groups: Vec<_> = self.0.iter().map(|(group, pages)| (group, *pages)).collect();
        groups.sort_by_key(|&(group, pages)| (std::cmp::Reverse(pages.pages), group.clone()));
        groups
    }
}

/// Divides frames at changes of node or zone, and visits each part.
pub fn by_place(frames: &Frames, places: &Places, visit: &mut impl FnMut(&Frames, Option<NodeId>, Option<&Zone>)) {
    let mut rest = *frames;
    while rest.pages > 0 {
        let (node, zone, until) = places.at(rest.pfn);
        let pages = rest.pages.min(until.0 - rest.pfn.0);
        visit(&Frames { pages, ..rest }, node, zone);
        rest.pfn = rest.pfn.plus(pages);
        rest.pages -= pages;
    }
}

/// Visits the frames of a range in ascending order, up to the end of the kernel's files. Returns the number of frames.
///
/// # Errors
/// [`KpageError`] when a file cannot be read.
pub fn survey(
    machine: &Machine,
    range: Range<Pfn>,
    visit: &mut impl FnMut(&Frames),
    progress: &mut impl FnMut(u64),
) -> Result<u64, KpageError> {
    let (mut flags, mut counts) = (vec![0; STEP], vec![0; STEP]);
    let mut units = Units::new(machine);
    let mut at = range.start;
    while at < range.end {
        let wanted = usize::try_from(range.end.0 - at.0).unwrap_or(STEP).min(STEP);
        let got = machine.read_flags(at, &mut flags[..wanted])?;
        if got == 0 {
            break;
        }
        let counted = machine.read_counts(at, &mut counts[..got])?;
        for (place, (pfn, &word)) in (at.0..).zip(&flags[..got]).enumerate() {
            units.frame(pfn, word, (place < counted).then(|| counts[place]), visit);
        }
        at = at.plus(got as u64);
        progress(got as u64);
    }
    units.close(visit);
    units.flush(visit);
    Ok(at.0 - range.start.0)
}

/// Joins frames into units, and equal neighbours into one answer.
struct Units<'a> {
    machine: &'a Machine,
    /// Frames with the same flags and count, which may be one unit or many.
    open: Option<Open>,
    pending: Option<Frames>,
}

#[derive(Clone, Copy)]
struct Open {
    pfn: u64,
    pages: u64,
    flags: u64,
    mapped: Option<u64>,
    /// Whether it began with a head: then only tails continue it.
    head: bool,
}

impl<'a> Units<'a> {
    fn new(machine: &'a Machine) -> Self {
        Self {
            machine,
            open: None,
            pending: None,
        }
    }

    fn frame(&mut self, pfn: u64, word: u64, mapped: Option<u64>, visit: &mut impl FnMut(&Frames)) {
        let flags = word & !POSITION;
        if let Some(open) = &mut self.open
            && (flags, mapped) == (open.flags, open.mapped)
            && word & HEAD == 0
            && (word & TAIL != 0) == open.head
        {
            open.pages += 1;
            return;
        }
        // This tail's head had other flags, as on 6.1, or is before the range.
        let stray = word & TAIL != 0;
        self.close(visit);
        self.open = Some(Open {
            pfn,
            pages: 1,
            flags,
            mapped,
            head: word & HEAD != 0 || stray,
        });
    }

    /// Completes the open frames.
    fn close(&mut self, visit: &mut impl FnMut(&Frames)) {
        let Some(open) = self.open.take() else { return };
        let frames = |pfn, pages, order| Frames {
            pfn: Pfn(pfn),
            pages,
            flags: PageFlags::new(open.flags, self.machine.quirks),
            mapped: open.mapped,
            order,
        };
        if open.flags & BUDDY != 0 {
            let (mut at, end) = (open.pfn, open.pfn + open.pages);
            while at < end {
                let aligned = at.trailing_zeros().min(MAX_BLOCK);
                let order = aligned.min((end - at).ilog2());
                let block = frames(at, 1 << order, u8::try_from(order).ok().map(Order));
                at += 1 << order;
                self.give(block, visit);
            }
            return;
        }
        let order = match open.head {
            false => Some(Order(0)),
            true if open.pages.is_power_of_two() => u8::try_from(open.pages.trailing_zeros()).ok().map(Order),
            true => None,
        };
        let extent = frames(open.pfn, open.pages, order);
        self.give(extent, visit);
    }

    fn give(&mut self, extent: Frames, visit: &mut impl FnMut(&Frames)) {
        if let Some(last) = &mut self.pending
            && last.pfn.plus(last.pages) == extent.pfn
            && (last.flags, last.mapped, last.order) == (extent.flags, extent.mapped, extent.order)
        {
            last.pages += extent.pages;
            return;
        }
        self.flush(visit);
        self.pending = Some(extent);
    }

    fn flush(&mut self, visit: &mut impl FnMut(&Frames)) {
        if let Some(extent) = self.pending.take() {
            visit(&extent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(first: u64, words: &[u64]) -> Vec<(u64, u64, Option<u8>)> {
        let machine = Machine::open().without_frame_files();
        let mut units = Units::new(&machine);
        let mut extents = Vec::new();
        let mut visit = |extent: &Frames| extents.push((extent.pfn.0, extent.pages, extent.order.map(|order| order.0)));
        for (pfn, &word) in (first..).zip(words) {
            units.frame(pfn, word, Some(0), &mut visit);
        }
        units.close(&mut visit);
        units.flush(&mut visit);
        extents
    }

    #[test]
    fn frames_become_units() {
        let dirty = 1 << 4;
        assert_eq!(extents(5, &[0, 0, dirty, dirty]), [(5, 2, Some(0)), (7, 2, Some(0))]);
        let compound = [HEAD, TAIL, TAIL, TAIL];
        // Two units of the same size become one answer.
        assert_eq!(extents(8, &[compound, compound].concat()), [(8, 8, Some(2))]);
        assert_eq!(extents(8, &[HEAD, TAIL, 0, 0]), [(8, 2, Some(1)), (10, 2, Some(0))]);
        // The range begins within a unit.
        assert_eq!(extents(9, &[TAIL, TAIL, TAIL, 0]), [(9, 3, None), (12, 1, Some(0))]);
    }

    #[test]
    fn free_blocks_are_as_large_as_their_place_allows() {
        assert_eq!(
            extents(1, &[BUDDY; 7]),
            [(1, 1, Some(0)), (2, 2, Some(1)), (4, 4, Some(2))]
        );
        assert_eq!(extents(1024, &[BUDDY; 2048]), [(1024, 2048, Some(10))]);
        assert_eq!(extents(4, &[BUDDY; 6]), [(4, 4, Some(2)), (8, 2, Some(1))]);
    }

    #[test]
    fn a_frame_has_the_place_of_its_stretch() {
        let zone = |name: &str, start, end| Zone {
            node: NodeId(0),
            name: name.to_owned(),
            start: Pfn(start),
            end: Pfn(end),
        };
        let places = Places::new(None, vec![zone("DMA", 1, 10), zone("Normal", 10, 100)]);
        let name = |pfn| {
            let (_, zone, until) = places.at(Pfn(pfn));
            (zone.map(|zone| zone.name.as_str()), until.0)
        };
        assert_eq!(name(0), (None, 1));
        assert_eq!(name(9), (Some("DMA"), 10));
        assert_eq!(name(10), (Some("Normal"), 100));
        assert_eq!(name(100).0, None);
    }
}
