//! Sums over the extents of a mapping, a process, or several processes.
//! Input: extents.

use std::collections::BTreeMap;

use crate::pages::extent::{Extent, Mapping, State};
use crate::units::{NodeId, Order};

/// Base pages by their properties; every count is in pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    states: [u64; State::ALL.len()],
    mappings: [u64; Mapping::ALL.len()],
    flags: [u64; u64::BITS as usize],
    nodes: BTreeMap<NodeId, u64>,
    orders: BTreeMap<Order, u64>,
    /// Pages in a frame that the kernel hides from the reader.
    pub hidden: u64,
    /// Pages whose frame belongs to no known node.
    pub elsewhere: u64,
    /// Pages whose folio's size is not known.
    pub unknown_size: u64,
    /// Pages whose flags are known.
    pub flagged: u64,
    /// Present pages that no other page table maps.
    pub exclusive: u64,
    /// Present pages that other page tables map as well.
    pub shared: u64,
    /// Entries with the flag soft-dirty, without holes.
    pub soft_dirty: u64,
    /// Entries that userfaultfd protects against writing.
    pub uffd_wp: u64,
    /// Pages of files or of shared memory.
    pub file: u64,
    /// The most page tables that map one of the frames.
    pub most_mapped: u64,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            states: [0; State::ALL.len()],
            mappings: [0; Mapping::ALL.len()],
            flags: [0; u64::BITS as usize],
            nodes: BTreeMap::new(),
            orders: BTreeMap::new(),
            hidden: 0,
            elsewhere: 0,
            unknown_size: 0,
            flagged: 0,
            exclusive: 0,
            shared: 0,
            soft_dirty: 0,
            uffd_wp: 0,
            file: 0,
            most_mapped: 0,
        }
    }
}

impl Sums {
    /// Counts an extent.
    pub fn add(&mut self, extent: &Extent) {
        let pages = extent.pages;
        self.states[extent.state.index()] += pages;
        if let Some(mapping) = extent.mapping {
            self.mappings[mapping.index()] += pages;
        }
        let given = |flag: bool| if flag { pages } else { 0 };
        self.soft_dirty += given(extent.entry.soft_dirty());
        self.uffd_wp += given(extent.entry.uffd_wp());
        self.file += given(extent.entry.file_or_shmem());
        if extent.state == State::Present {
            self.exclusive += given(extent.entry.exclusive());
            self.shared += given(!extent.entry.exclusive());
            // Pages of zeros and of devices are not the process's memory: they have no node and no size.
            match (extent.node, extent.hides_frames()) {
                (Some(node), _) => *self.nodes.entry(node).or_default() += pages,
                (None, true) => self.hidden += pages,
                (None, false) => self.elsewhere += pages,
            }
            match extent.order {
                Some(order) => *self.orders.entry(order).or_default() += pages,
                None => self.unknown_size += pages,
            }
        }
        if let Some(flags) = extent.flags {
            self.flagged += pages;
            let mut bits = flags.bits();
            while bits != 0 {
                self.flags[bits.trailing_zeros() as usize] += pages;
                bits &= bits - 1;
            }
        }
        self.most_mapped = self.most_mapped.max(extent.mapped.unwrap_or(0));
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        let add = |ours: &mut [u64], theirs: &[u64]| ours.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        add(&mut self.states, &other.states);
        add(&mut self.mappings, &other.mappings);
        add(&mut self.flags, &other.flags);
        for (node, pages) in &other.nodes {
            *self.nodes.entry(*node).or_default() += pages;
        }
        for (order, pages) in &other.orders {
            *self.orders.entry(*order).or_default() += pages;
        }
        self.hidden += other.hidden;
        self.elsewhere += other.elsewhere;
        self.unknown_size += other.unknown_size;
        self.flagged += other.flagged;
        self.exclusive += other.exclusive;
        self.shared += other.shared;
        self.soft_dirty += other.soft_dirty;
        self.uffd_wp += other.uffd_wp;
        self.file += other.file;
        self.most_mapped = self.most_mapped.max(other.most_mapped);
    }

    /// Pages in this state.
    pub fn in_state(&self, state: State) -> u64 {
        self.states[state.index()]
    }

    /// The states that occur, with their pages.
    pub fn states(&self) -> impl Iterator<Item = (State, u64)> {
        State::ALL
            .into_iter()
            .map(|state| (state, self.in_state(state)))
            .filter(|(_, pages)| *pages > 0)
    }

    /// Pages of large folios by the way they are mapped, for the ways that occur.
    pub fn mappings(&self) -> impl Iterator<Item = (Mapping, u64)> {
        Mapping::ALL
            .into_iter()
            .map(|mapping| (mapping, self.mappings[mapping.index()]))
            .filter(|(_, pages)| *pages > 0)
    }

    /// Pages of large folios that are mapped in this way.
    pub fn mapped_so(&self, mapping: Mapping) -> u64 {
        self.mappings[mapping.index()]
    }

    /// Present pages by node.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.nodes.iter().map(|(&node, &pages)| (node, pages))
    }

    /// Present pages on this node.
    pub fn on_node(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).copied().unwrap_or(0)
    }

    /// Present pages by the size of their folio.
    pub fn orders(&self) -> impl Iterator<Item = (Order, u64)> {
        self.orders.iter().map(|(&order, &pages)| (order, pages))
    }

    /// Present pages of folios of this size.
    pub fn of_order(&self, order: Order) -> u64 {
        self.orders.get(&order).copied().unwrap_or(0)
    }

    /// The flags that occur: the bit, and the number of frames.
    pub fn flags(&self) -> impl Iterator<Item = (u32, u64)> {
        (0u32..).zip(self.flags).filter(|(_, pages)| *pages > 0)
    }

    /// Entries of any kind.
    pub fn entries(&self) -> u64 {
        self.states.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::entry::Meaning;
    use crate::proc::kpage::{KpfQuirks, PageFlags};
    use crate::proc::pagemap::Entry;
    use crate::units::{Pfn, VirtAddr};

    fn extent(state: State, pages: u64, word: u64) -> Extent {
        Extent {
            address: VirtAddr(0x1000),
            pages,
            state,
            entry: Entry(word),
            meaning: Meaning::Frame(Pfn(7)),
            node: Some(NodeId(1)),
            flags: Some(PageFlags::new(1 << 4 | 1 << 33, KpfQuirks::default())),
            mapped: Some(3),
            order: Some(Order(0)),
            mapping: None,
        }
    }

    #[test]
    fn each_run_is_counted_once_in_each_table() {
        let mut sums = Sums::default();
        sums.add(&extent(State::Present, 5, 1 << 56 | 1 << 55));
        sums.add(&Extent {
            order: Some(Order(9)),
            mapping: Some(Mapping::Part),
            node: Some(NodeId(0)),
            ..extent(State::Present, 2, 1 << 61)
        });
        sums.add(&Extent {
            meaning: Meaning::HiddenFrame,
            node: None,
            flags: None,
            mapped: None,
            order: None,
            ..extent(State::Present, 1, 0)
        });
        sums.add(&extent(State::Zero, 4, 0));
        assert_eq!(
            sums.states().collect::<Vec<_>>(),
            [(State::Present, 8), (State::Zero, 4)]
        );
        assert_eq!(sums.nodes().collect::<Vec<_>>(), [(NodeId(0), 2), (NodeId(1), 5)]);
        assert_eq!(sums.orders().collect::<Vec<_>>(), [(Order(0), 5), (Order(9), 2)]);
        assert_eq!(sums.mappings().collect::<Vec<_>>(), [(Mapping::Part, 2)]);
        assert_eq!(sums.flags().collect::<Vec<_>>(), [(4, 11), (33, 11)]);
        assert_eq!((sums.hidden, sums.elsewhere, sums.unknown_size), (1, 0, 1));
        assert_eq!((sums.exclusive, sums.shared, sums.soft_dirty, sums.file), (5, 3, 5, 2));
        assert_eq!((sums.most_mapped, sums.entries()), (3, 12));
        let mut twice = sums.clone();
        twice.merge(&sums);
        assert_eq!(
            (twice.entries(), twice.on_node(NodeId(1)), twice.of_order(Order(9))),
            (24, 10, 4)
        );
        assert_eq!(twice.most_mapped, 3);
        assert_eq!(twice.in_state(State::Zero), 8);
    }
}
