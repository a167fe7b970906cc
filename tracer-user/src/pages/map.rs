//! A mapping as a row of cells; each cell has the colour of most of its pages.
//! Input: the extents of the mapping.

use std::collections::BTreeMap;

use crate::pages::extent::{Extent, State};
use crate::units::{NodeId, Order, VirtAddr};

/// The property by which pages are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By the node that they are on.
    Node,
    /// By the size of their folio.
    Size,
    /// By their state.
    State,
}

/// The property of most pages of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shade {
    /// They are on this node.
    Node(NodeId),
    /// They belong to folios of this size.
    Size(Order),
    /// They are present; the kernel hides their frames and sizes from the reader.
    Hidden,
    /// They are in this state: one other than present, or cells show only states.
    State(State),
}

/// The cells of one mapping.
#[derive(Debug)]
pub struct Cells {
    start: VirtAddr,
    by: By,
    /// Base pages of a cell: a power of two.
    pages: u64,
    content: Vec<BTreeMap<Shade, u64>>,
}

impl Cells {
    /// Divides the addresses from `start` to before `end` into at most `most` cells.
    pub fn new(start: VirtAddr, end: VirtAddr, most: usize, by: By) -> Self {
        let all = end.page().saturating_sub(start.page());
        let pages = all.div_ceil(most.max(1) as u64).next_power_of_two();
        let count = usize::try_from(all.div_ceil(pages)).unwrap_or(most);
        Self {
            start,
            by,
            pages,
            content: vec![BTreeMap::new(); count],
        }
    }

    /// Base pages of a cell.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Adds the pages of an extent to their cells.
    pub fn add(&mut self, extent: &Extent) {
        let shade = self.shade(extent);
        let first = extent.address.page().saturating_sub(self.start.page());
        let (mut at, end) = (first, first + extent.pages);
        while at < end {
            let cell = at / self.pages;
            let next = ((cell + 1) * self.pages).min(end);
            let Some(cell) = usize::try_from(cell).ok().and_then(|cell| self.content.get_mut(cell)) else {
                return;
            };
            *cell.entry(shade).or_default() += next - at;
            at = next;
        }
    }

    fn shade(&self, extent: &Extent) -> Shade {
        if extent.state != State::Present || self.by == By::State {
            return Shade::State(extent.state);
        }
        let known = match self.by {
            By::Node => extent.node.map(Shade::Node),
            By::Size => extent.order.map(Shade::Size),
            By::State => None,
        };
        known.unwrap_or(Shade::Hidden)
    }

    /// The shade of each cell; `None` for a cell without pages.
    pub fn shades(&self) -> impl Iterator<Item = Option<Shade>> {
        let most = |cell: &BTreeMap<Shade, u64>| {
            let largest = cell
                .iter()
                .max_by_key(|&(shade, &pages)| (pages, std::cmp::Reverse(*shade)));
            largest.map(|(shade, _)| *shade)
        };
        self.content.iter().map(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::entry::Meaning;
    use crate::proc::pagemap::Entry;
    use crate::units::Pfn;

    fn extent(page: u64, pages: u64, node: u32) -> Extent {
        Extent {
            address: VirtAddr(page << 12),
            pages,
            state: State::Present,
            entry: Entry(1 << 63 | 7),
            meaning: Meaning::Frame(Pfn(7)),
            node: Some(NodeId(node)),
            flags: None,
            mapped: None,
            order: Some(Order(9)),
            mapping: None,
        }
    }

    fn shades(cells: &Cells) -> Vec<Option<Shade>> {
        cells.shades().collect()
    }

    #[test]
    fn a_cell_is_what_most_of_its_pages_are() {
        let mut cells = Cells::new(VirtAddr(16 << 12), VirtAddr(46 << 12), 8, By::Node);
        assert_eq!(cells.pages(), 4);
        cells.add(&extent(17, 6, 0));
        cells.add(&extent(23, 9, 1));
        cells.add(&Extent {
            state: State::Swapped,
            ..extent(40, 1, 0)
        });
        let node = |node| Some(Shade::Node(NodeId(node)));
        let swapped = Some(Shade::State(State::Swapped));
        assert_eq!(
            shades(&cells),
            [node(0), node(0), node(1), node(1), None, None, swapped, None]
        );
    }

    #[test]
    fn small_mappings_have_a_cell_for_each_page() {
        let mut cells = Cells::new(VirtAddr(0x1000), VirtAddr(0x4000), 80, By::Size);
        cells.add(&extent(2, 1, 0));
        cells.add(&Extent {
            order: None,
            ..extent(3, 5, 0)
        });
        assert_eq!(shades(&cells), [None, Some(Shade::Size(Order(9))), Some(Shade::Hidden)]);
        let mut states = Cells::new(VirtAddr(0x1000), VirtAddr(0x2000), 80, By::State);
        states.add(&extent(1, 1, 0));
        assert_eq!(shades(&states), [Some(Shade::State(State::Present))]);
    }
}
