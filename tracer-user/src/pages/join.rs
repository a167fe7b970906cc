//! Joins entries and frames into extents: neighbours with equal properties; for large folios with the way they are mapped.
//! Input: chunks of entries with their columns, by address.

use crate::pages::chunks::is_hole;
use crate::pages::extent::{Extent, Mapping, State};
use crate::pages::frames::{Columns, POSITION};
use crate::proc::entry::{Meaning, SwapTypes};
use crate::proc::kpage::{KpfQuirks, PageFlags};
use crate::proc::pagemap::Entry;
use crate::proc::scan::{Categories, Region};
use crate::units::{NodeId, Order, VirtAddr};

/// `KPF_ZERO_PAGE`.
const ZERO_PAGE: u64 = 1 << 24;
/// `KPF_NOPAGE`.
const NOPAGE: u64 = PageFlags::NOPAGE;
/// log2 of the base pages that a PMD maps.
const PMD_ORDER: u8 = 9;

/// Makes extents of pages. It keeps back at most the last folio and the extent before it.
#[derive(Debug)]
pub struct Joiner<'a> {
    types: &'a SwapTypes,
    quirks: KpfQuirks,
    open: Option<Open>,
    pending: Option<Extent>,
}

/// Properties of the pages of a chunk that entries and columns do not show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Regions<'a> {
    /// Regions by category, ascending; `None` if the kernel does not show them.
    pub regions: Option<&'a [Region]>,
    /// Whether the mapping is `VM_PFNMAP`.
    pub pfnmap: bool,
}

/// The pages that the next one may continue.
#[derive(Debug)]
struct Open {
    extent: Extent,
    /// The entry that continues the extent, apart from its frame.
    next: u64,
    step: u64,
    flags: u64,
    count: u64,
    order: u8,
    node: u32,
    /// The number of pages that remain of the folio; without limit for base pages.
    left: u64,
    /// The address at which the categories change.
    until: VirtAddr,
    huge: Option<bool>,
}

impl<'a> Joiner<'a> {
    /// Makes a joiner for a kernel with these swap types and these errors in its flags.
    pub fn new(types: &'a SwapTypes, quirks: KpfQuirks) -> Self {
        Self {
            types,
            quirks,
            open: None,
            pending: None,
        }
    }

    /// Takes the next chunk of a mapping, and passes complete extents to `give`.
    pub fn chunk(
        &mut self,
        first: VirtAddr,
        entries: &[u64],
        columns: &Columns,
        regions: Regions<'_>,
        give: &mut impl FnMut(&Extent),
    ) {
        let mut categories = Categorizer::new(regions.regions);
        if let Some(open) = &mut self.open
            && open.extent.end() == first
        {
            // An extent of the last chunk continues: its categories are those of its first page here.
            open.until = categories.at(first).until;
        }
        for (at, &entry) in entries.iter().enumerate() {
            let (flags, count) = (columns.flags[at], columns.counts[at]);
            let (order, node) = (columns.orders[at], columns.nodes[at]);
            let address = first.plus_pages(at as u64);
            if let Some(open) = &mut self.open
                && entry == open.next
                && (flags ^ open.flags) & !POSITION == 0
                && count == open.count
                && order == open.order
                && node == open.node
                && open.left > 0
                && address < open.until
                && open.extent.end() == address
            {
                open.extent.pages += 1;
                open.next = open.next.wrapping_add(open.step);
                open.left -= 1;
                continue;
            }
            self.close(give);
            if !is_hole(entry) {
                let here = categories.at(address);
                self.open = Some(self.begin(address, entry, [flags, count], order, node, &here, regions.pfnmap));
            }
        }
    }

    /// Ends the mapping and passes the remaining extents to `give`.
    pub fn end(&mut self, give: &mut impl FnMut(&Extent)) {
        self.close(give);
        if let Some(extent) = self.pending.take() {
            give(&extent);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one for each column")]
    fn begin(
        &self,
        address: VirtAddr,
        entry: u64,
        [flags, count]: [u64; 2],
        order: u8,
        node: u32,
        here: &Here,
        pfnmap: bool,
    ) -> Open {
        let meaning = Entry(entry).meaning(self.types);
        let has_flags = flags != Columns::UNKNOWN;
        let zero = has_flags && flags & ZERO_PAGE != 0 || here.categories.contain(Categories::PFNZERO);
        let state = match meaning {
            Meaning::Frame(_) | Meaning::HiddenFrame if zero => State::Zero,
            Meaning::Frame(_) | Meaning::HiddenFrame if pfnmap || has_flags && flags & NOPAGE != 0 => State::Pfnmap,
            // `None` has no entry and does not occur here.
            Meaning::Frame(_) | Meaning::HiddenFrame | Meaning::None => State::Present,
            Meaning::Swap(_) => State::Swapped,
            Meaning::HiddenEntry => State::Hidden,
            Meaning::Migrating(_) => State::Migrating,
            Meaning::DevicePrivate(_) => State::DevicePrivate,
            Meaning::DeviceExclusive(_) => State::DeviceExclusive,
            Meaning::HwPoison(_) => State::HwPoison,
            Meaning::Guard => State::Guard,
            Meaning::UffdWpMarker => State::UffdWp,
            Meaning::PoisonMarker => State::Poisoned,
            Meaning::Marker(_) | Meaning::Special { .. } => State::Special,
        };
        let pfn = match meaning {
            Meaning::Frame(pfn) => Some(pfn),
            _ => None,
        };
        let step = match meaning {
            // The small page of zeros is one frame for all addresses; the huge one has as many frames as a huge page.
            Meaning::Frame(_) if state == State::Zero && order == 0 => 0,
            Meaning::Frame(_) => 1,
            Meaning::Swap(_)
            | Meaning::Migrating(_)
            | Meaning::DevicePrivate(_)
            | Meaning::DeviceExclusive(_)
            | Meaning::HwPoison(_)
            | Meaning::Special { .. } => 1 << 5,
            Meaning::None
            | Meaning::HiddenFrame
            | Meaning::HiddenEntry
            | Meaning::Guard
            | Meaning::UffdWpMarker
            | Meaning::PoisonMarker
            | Meaning::Marker(_) => 0,
        };
        let left = match pfn {
            Some(pfn) if (1..Columns::NO_ORDER).contains(&order) => {
                let size = Order(order).pages();
                size - pfn.0 % size - 1
            }
            _ => u64::MAX,
        };
        Open {
            extent: Extent {
                address,
                pages: 1,
                state,
                entry: Entry(entry),
                meaning,
                node: (node != Columns::NO_NODE).then_some(NodeId(node)),
                flags: has_flags.then(|| PageFlags::new(flags & !POSITION, self.quirks)),
                mapped: (count != Columns::UNKNOWN).then_some(count),
                order: (pfn.is_some() && order != Columns::NO_ORDER).then_some(Order(order)),
                mapping: None,
            },
            next: entry.wrapping_add(step),
            step,
            flags,
            count,
            order,
            node,
            left,
            until: here.until,
            huge: here.known.then(|| here.categories.contain(Categories::HUGE)),
        }
    }

    /// Turns the open pages into an extent, and joins it with the neighbours of the same kind.
    fn close(&mut self, give: &mut impl FnMut(&Extent)) {
        let Some(open) = self.open.take() else { return };
        let mut extent = open.extent;
        extent.mapping = match extent.order {
            Some(order) if order.0 > 0 => Some(mapping(&extent, order, open.huge)),
            // Hidden frames also hide the size of the folio, but not how it is mapped.
            _ => (extent.hides_frames() && open.huge == Some(true)).then_some(Mapping::Entry),
        };
        if let Some(last) = &mut self.pending {
            if continues(last, &extent) {
                last.pages += extent.pages;
                return;
            }
            give(last);
        }
        self.pending = Some(extent);
    }
}

fn mapping(extent: &Extent, order: Order, huge: Option<bool>) -> Mapping {
    let size = order.pages();
    let whole = extent.pages == size && extent.pfn().is_some_and(|pfn| pfn.0.is_multiple_of(size));
    if !whole {
        Mapping::Part
    } else if !extent.address.page().is_multiple_of(size) {
        Mapping::Unaligned
    } else if order.0 < PMD_ORDER {
        Mapping::Pages
    } else {
        match huge {
            Some(true) => Mapping::Entry,
            Some(false) => Mapping::Pages,
            None => Mapping::Whole,
        }
    }
}

/// The flags of an entry beside the frame.
const ENTRY_FLAGS: u64 = 0xff << 55 | 1 << 63;

fn continues(last: &Extent, extent: &Extent) -> bool {
    last.order.is_some_and(|order| order.0 > 0)
        && last.end() == extent.address
        && last.pfn().map(|pfn| pfn.plus(last.pages)) == extent.pfn()
        && last.entry.0 & ENTRY_FLAGS == extent.entry.0 & ENTRY_FLAGS
        && (last.state, last.node, last.flags, last.mapped) == (extent.state, extent.node, extent.flags, extent.mapped)
        && (last.order, last.mapping) == (extent.order, extent.mapping)
}

/// Finds the categories of pages, which must come in ascending order of address.
struct Categorizer<'a> {
    known: bool,
    regions: &'a [Region],
}

/// The categories of a page.
struct Here {
    /// Whether the kernel shows them.
    known: bool,
    categories: Categories,
    /// The pages before this address have the same categories.
    until: VirtAddr,
}

impl<'a> Categorizer<'a> {
    fn new(regions: Option<&'a [Region]>) -> Self {
        Self {
            known: regions.is_some(),
            regions: regions.unwrap_or_default(),
        }
    }

    fn at(&mut self, address: VirtAddr) -> Here {
        while let Some((first, rest)) = self.regions.split_first()
            && first.end <= address.0
        {
            self.regions = rest;
        }
        let (categories, until) = match self.regions.first() {
            Some(region) if region.start <= address.0 => (region.categories(), region.end),
            Some(region) => (Categories::NONE, region.start),
            None => (Categories::NONE, u64::MAX),
        };
        Here {
            known: self.known,
            categories,
            until: VirtAddr(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PAGE_SIZE;

    const PRESENT: u64 = 1 << 63;
    const HEAD: u64 = 1 << 15;
    const TAIL: u64 = 1 << 16;
    const BASE: VirtAddr = VirtAddr(0x20_0000);

    fn columns(len: usize) -> Columns {
        Columns {
            flags: vec![0; len],
            counts: vec![1; len],
            orders: vec![0; len],
            nodes: vec![0; len],
        }
    }

    /// The extents of chunks that follow each other from `BASE` on.
    fn extents(chunks: &[(&[u64], &Columns, Regions<'_>)]) -> Vec<Extent> {
        let types = SwapTypes::running();
        let mut joiner = Joiner::new(&types, KpfQuirks::default());
        let (mut extents, mut at) = (Vec::new(), BASE);
        for (entries, columns, regions) in chunks {
            joiner.chunk(at, entries, columns, *regions, &mut |extent| extents.push(*extent));
            at = at.plus_pages(entries.len() as u64);
        }
        joiner.end(&mut |extent| extents.push(*extent));
        extents
    }

    fn of(entries: &[u64], columns: &Columns) -> Vec<Extent> {
        extents(&[(entries, columns, Regions::default())])
    }

    fn shape(extents: &[Extent]) -> Vec<(u64, u64, State)> {
        let place = |extent: &Extent| extent.address.page() - BASE.page();
        extents
            .iter()
            .map(|extent| (place(extent), extent.pages, extent.state))
            .collect()
    }

    #[test]
    fn neighbours_in_everything_are_one_run() {
        let entries = [
            PRESENT | 7,
            PRESENT | 8,
            0,
            PRESENT | 9,
            PRESENT | 0x20,
            PRESENT | 1 << 61 | 0x21,
        ];
        let extents = of(&entries, &columns(6));
        let present = State::Present;
        assert_eq!(
            shape(&extents),
            [(0, 2, present), (3, 1, present), (4, 1, present), (5, 1, present)]
        );
        let mut differing = columns(2);
        differing.nodes[1] = 1;
        assert_eq!(of(&entries[..2], &differing).len(), 2);
        differing = columns(2);
        differing.counts[1] = 2;
        assert_eq!(of(&entries[..2], &differing).len(), 2);
        differing = columns(2);
        differing.flags[1] = 1 << 4;
        let extents = of(&entries[..2], &differing);
        assert!(extents[1].flags.unwrap().has("dirty") && !extents[0].flags.unwrap().has("dirty"));
    }

    #[test]
    fn a_run_goes_on_in_the_next_chunk() {
        let columns = columns(2);
        let none = Regions::default();
        let extents = extents(&[(&[0, PRESENT | 7], &columns, none), (&[PRESENT | 8, 0], &columns, none)]);
        assert_eq!(shape(&extents), [(1, 2, State::Present)]);
    }

    #[test]
    fn what_has_no_page_has_its_own_state() {
        let swap = 1 << 62;
        let entries = [
            swap | 5 << 5,
            swap | 6 << 5,
            swap,
            swap | 1 << 58 | 0x9f,
            swap | 1 << 5 | 31,
            PRESENT,
        ];
        let mut columns = columns(6);
        columns.flags.fill(Columns::UNKNOWN);
        columns.counts.fill(Columns::UNKNOWN);
        columns.orders.fill(Columns::NO_ORDER);
        columns.nodes.fill(Columns::NO_NODE);
        let extents = of(&entries, &columns);
        let expected = [
            (0, 2, State::Swapped),
            (2, 1, State::Hidden),
            (3, 1, State::Guard),
            (4, 1, State::UffdWp),
            (5, 1, State::Present),
        ];
        assert_eq!(shape(&extents), expected);
        assert_eq!(extents[0].slot().map(|slot| slot.offset), Some(5));
        let hidden = extents[4];
        assert!(hidden.hides_frames() && hidden.pfn().is_none());
        assert_eq!(
            (hidden.node, hidden.flags, hidden.mapped, hidden.order),
            (None, None, None, None)
        );
    }

    #[test]
    fn pages_of_zeros_take_no_memory() {
        let mut columns = columns(3);
        columns.flags.fill(ZERO_PAGE);
        assert_eq!(shape(&of(&[PRESENT | 7; 3], &columns)), [(0, 3, State::Zero)]);
        let start = BASE.0;
        let region = |from: u64, to: u64, categories: Categories| Region {
            start: start + from * PAGE_SIZE,
            end: start + to * PAGE_SIZE,
            categories: categories.0,
        };
        // A caller without privileges sees them by the walk.
        let regions = [region(1, 2, Categories::PFNZERO), region(2, 3, Categories::HUGE)];
        let mut hidden = columns;
        hidden.flags.fill(Columns::UNKNOWN);
        hidden.orders.fill(Columns::NO_ORDER);
        let known = Regions {
            regions: Some(&regions),
            pfnmap: false,
        };
        let found = extents(&[(&[PRESENT; 3], &hidden, known)]);
        assert_eq!(
            shape(&found),
            [(0, 1, State::Present), (1, 1, State::Zero), (2, 1, State::Present)]
        );
        assert_eq!((found[0].mapping, found[2].mapping), (None, Some(Mapping::Entry)));
    }

    #[test]
    fn memory_of_devices_is_nobodys() {
        let mut columns = columns(2);
        columns.flags[1] = NOPAGE;
        let of_device = of(&[PRESENT | 7, PRESENT | 1 << 30], &columns);
        assert_eq!(shape(&of_device), [(0, 1, State::Present), (1, 1, State::Pfnmap)]);
        let regions = Regions {
            regions: None,
            pfnmap: true,
        };
        let found = extents(&[(&[PRESENT | 7], &columns, regions)]);
        assert_eq!(found[0].state, State::Pfnmap);
    }

    /// `pages` pages of a folio of this order that begins at this frame.
    fn large(order: u8, first: u64, pages: u64) -> (Vec<u64>, Columns) {
        let mut columns = columns(usize::try_from(pages).unwrap());
        columns.orders.fill(order);
        let size = Order(order).pages();
        for (flags, pfn) in columns.flags.iter_mut().zip(first..) {
            *flags = if pfn.is_multiple_of(size) { HEAD } else { TAIL };
        }
        ((first..first + pages).map(|pfn| PRESENT | pfn).collect(), columns)
    }

    #[test]
    fn large_folios_are_mapped_whole_or_in_part() {
        let mapping = |order, first, pages| {
            let (entries, columns) = large(order, first, pages);
            let extents = of(&entries, &columns);
            assert!(extents.iter().all(|extent| extent.order == Some(Order(order))));
            extents
                .iter()
                .map(|extent| (extent.pages, extent.mapping.unwrap()))
                .collect::<Vec<_>>()
        };
        assert_eq!(mapping(2, 8, 4), [(4, Mapping::Pages)]);
        // Neighbours of the same kind become one extent.
        assert_eq!(mapping(2, 8, 12), [(12, Mapping::Pages)]);
        assert_eq!(mapping(2, 8, 3), [(3, Mapping::Part)]);
        assert_eq!(mapping(2, 9, 7), [(3, Mapping::Part), (4, Mapping::Unaligned)]);
        assert_eq!(mapping(9, 512, 512), [(512, Mapping::Whole)]);
    }

    #[test]
    fn a_pmd_maps_a_huge_page_where_the_walk_says_so() {
        let (entries, columns) = large(9, 512, 1024);
        let region = Region {
            start: BASE.0,
            end: BASE.0 + 512 * PAGE_SIZE,
            categories: Categories::HUGE.0,
        };
        let known = Regions {
            regions: Some(std::slice::from_ref(&region)),
            pfnmap: false,
        };
        let found = extents(&[(&entries, &columns, known)]);
        let mappings: Vec<_> = found.iter().map(|extent| (extent.pages, extent.mapping)).collect();
        assert_eq!(mappings, [(512, Some(Mapping::Entry)), (512, Some(Mapping::Pages))]);
        // A chunk that ends within it makes no difference.
        let part = |from: usize, to: usize| Columns {
            flags: columns.flags[from..to].to_vec(),
            counts: columns.counts[from..to].to_vec(),
            orders: columns.orders[from..to].to_vec(),
            nodes: columns.nodes[from..to].to_vec(),
        };
        let cut = extents(&[
            (&entries[..100], &part(0, 100), known),
            (&entries[100..], &part(100, 1024), known),
        ]);
        assert_eq!(cut, found);
    }
}
