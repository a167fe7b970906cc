//! Moves grouped by what they have in common: process, mapping, actor, reason, address, second. Processes of different
//! machines are never merged.
//! Input: moves of one or several recordings.

mod blackouts;
mod keys;
mod shared;
pub mod time_line;

use std::{
    cmp::{Ordering, Reverse},
    hash::BuildHasher as _,
};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{
    event::{Move, unmapped::UnmappedMove},
    units::{Nanos, PAGE_SIZE, VirtAddr},
};
pub use blackouts::Blackouts;
use keys::Common;
pub use keys::{Key, RunFacts, Value};
use shared::{Counted, Shared};

/// The sums of a group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Moves: extents of mapped pages, and folios that no process maps.
    pub events: u64,
    /// Base pages of the moved folios that are at least partly mapped here, once each; if [`Self::overlaps`], some more
    /// than once.
    pages: u64,
    /// Whether another group of the table has some of these pages, too.
    shares: bool,
    /// Whether these are sums over groups that share pages with others.
    overlaps: bool,
    /// Mappings of base pages that were pointed at another frame.
    pub mappings: u64,
    /// How long accesses waited for the runs whose start was seen.
    pub blackouts: Blackouts,
}

impl Group {
    /// Adds another group.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.overlaps |= other.overlaps || (self.shares && other.shares);
        self.shares |= other.shares;
        self.pages = self.pages.saturating_add(other.pages);
        self.mappings = self.mappings.saturating_add(other.mappings);
        self.blackouts.merge(&other.blackouts);
    }

    /// Base pages of the moved folios, once each. None: they are sums over groups that share pages.
    #[must_use]
    pub fn pages(&self) -> Option<u64> {
        (!self.overlaps).then_some(self.pages)
    }

    fn add_unmapped(&mut self, moved: &UnmappedMove) {
        self.events += 1;
        self.pages = self.pages.saturating_add(moved.order.pages());
    }

    /// Adds a move.
    fn add(&mut self, moved: &Move, counted: Counted, room: &mut usize) {
        self.events += 1;
        self.pages = self.pages.saturating_add(counted.pages);
        self.shares |= counted.again;
        self.mappings = self.mappings.saturating_add(moved.pages);
        if let Some(blackout) = moved.blackout {
            self.blackouts.add(blackout, room);
        }
    }
}

/// Several tables over the same moves.
#[derive(Debug)]
pub struct GroupTables {
    /// The tables, in the order in which they were requested.
    pub tables: Vec<Groups>,
    /// Values of the last move of the run. Moves come in batches that share them: they are looked up once per batch.
    last: Option<Common>,
    shared: Shared,
}

impl GroupTables {
    /// Makes one table for each list of keys.
    #[must_use]
    pub fn new(tables: impl IntoIterator<Item = Vec<Key>>) -> Self {
        Self {
            tables: tables.into_iter().map(Groups::new).collect(),
            last: None,
            shared: Shared::default(),
        }
    }

    /// Begins another run: its first move shares nothing with the last one.
    pub fn begin_run(&mut self) {
        self.last = None;
        self.shared = Shared::default();
    }

    /// Adds a move.
    pub fn add(&mut self, moved: &Move, run: &RunFacts) {
        let goes_on = self.last.as_ref().is_some_and(|last| last.is_of(moved));
        if !goes_on {
            self.last = Some(Common::from(moved));
        }
        let mut folio = self.shared.folio(moved);
        for (number, table) in self.tables.iter_mut().enumerate() {
            table.add(moved, run, goes_on, folio.at, |group| folio.count(number, group));
        }
    }

    /// Adds a move of a folio that no process maps.
    pub fn add_unmapped(&mut self, moved: &UnmappedMove, run: &RunFacts) {
        self.last = None;
        for table in &mut self.tables {
            table.add_unmapped(moved, run);
        }
    }

    /// Whether no move was added.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        self.tables.iter().all(|table| table.sums.is_empty())
    }
}

/// Moves grouped by one or several keys.
#[derive(Debug)]
pub struct Groups {
    /// The keys, in the order of their columns.
    keys: Vec<Key>,
    /// The first key is the machine and was not requested.
    implied: bool,
    /// The position of the address among the keys, and that of the second.
    address: Option<usize>,
    second: Option<usize>,
    /// The values of all blocks, one for each key, block after block. The address is that of the block's first page.
    values: Vec<Value>,
    /// The groups of each block: one, or with addresses one for each of [`NEIGHBOURS`] pages.
    sums: Vec<Group>,
    /// Blocks by their values.
    blocks: HashTable<usize>,
    hasher: DefaultHashBuilder,
    /// The block of the last move, with its address and second; the block is None if there was no room for it.
    last: (Option<usize>, VirtAddr, u64),
    /// The values of the move that is looked up; kept to avoid an allocation.
    wanted: Vec<Value>,
    /// Bytes of the names in `values`.
    names: usize,
    /// The sums of all moves for whose group there was no room.
    pub others: Group,
    /// The number of further groups that may keep all their blackouts.
    room: usize,
    /// The same for `others`.
    others_room: usize,
}

/// The largest number of groups, used or not: it bounds the memory that they take.
const MOST: usize = 1 << 20;
/// The most bytes of the names of a table's groups.
const NAMES: usize = 1 << 26;
/// The number of groups with several blackouts that keep all of them, for quantiles: the first ones.
pub const DETAILED: usize = 1 << 12;
/// Pages in a block: moves come in batches of neighbours.
const NEIGHBOURS: usize = 16;

/// The first address of the block that has this address.
fn first(vaddr: VirtAddr) -> VirtAddr {
    VirtAddr(vaddr.0 & !(NEIGHBOURS as u64 * PAGE_SIZE - 1))
}

/// The index of a page in its block.
#[expect(clippy::cast_possible_truncation, reason = "a block has few")]
fn page(vaddr: VirtAddr) -> usize {
    (vaddr.page() % NEIGHBOURS as u64) as usize
}

/// A group with its values.
#[derive(Clone, Copy, Debug)]
pub struct GroupRow<'g> {
    groups: &'g Groups,
    /// The index of its sums.
    place: usize,
}

impl GroupRow<'_> {
    /// The group's values, one for each key.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        let values = self.groups.of(self.place / self.groups.each());
        values.iter().map(|value| match value {
            Value::Address(tgid, first) => {
                let page = (self.place % self.groups.each()) as u64;
                Value::Address(*tgid, first.plus_pages(page))
            }
            other => other.clone(),
        })
    }

    /// The group's sums.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.groups.sums[self.place]
    }
}

impl Groups {
    /// Groups by these keys. Keys that are unique on one machine only get the machine as first key.
    fn new(mut keys: Vec<Key>) -> Self {
        let implied = keys.iter().any(|key| key.is_of_one_machine()) && !keys.contains(&Key::Host);
        if implied {
            keys.insert(0, Key::Host);
        }
        let place = |wanted| keys.iter().position(|key| *key == wanted);
        Self {
            implied,
            address: place(Key::Address),
            second: place(Key::Second),
            keys,
            values: Vec::new(),
            sums: Vec::new(),
            blocks: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            last: (None, VirtAddr(0), 0),
            wanted: Vec::new(),
            names: 0,
            others: Group::default(),
            room: DETAILED,
            others_room: 1,
        }
    }

    /// Adds a move of a folio that moved at that time. `goes_on`: it differs from the last move only in its address and
    /// time. `count` counts its pages for a group.
    fn add(
        &mut self,
        moved: &Move,
        run: &RunFacts,
        goes_on: bool,
        at: Nanos,
        count: impl FnOnce(Option<usize>) -> Counted,
    ) {
        let first = self.address.map_or(VirtAddr(0), |_| first(moved.vaddr));
        let second = self.second.map_or(0, |_| run.second(at));
        if !goes_on || (first, second) != (self.last.1, self.last.2) {
            self.last = (self.block(moved, run, at), first, second);
        }
        let page = self.address.map_or(0, |_| page(moved.vaddr));
        let place = self.last.0.map(|number| number * self.each() + page);
        let counted = count(place);
        if let Some(with) = counted.with {
            self.group(with.0).0.shares = true;
        }
        let (group, room) = self.group(place);
        group.add(moved, counted, room);
    }

    /// A group, or all without room, with the number of further groups that may keep all their blackouts.
    fn group(&mut self, place: Option<usize>) -> (&mut Group, &mut usize) {
        match place {
            Some(place) => (&mut self.sums[place], &mut self.room),
            None => (&mut self.others, &mut self.others_room),
        }
    }

    /// Adds a move of a folio that no process maps, unless the groups have addresses.
    fn add_unmapped(&mut self, moved: &UnmappedMove, run: &RunFacts) {
        self.wanted.clear();
        for key in &self.keys {
            let Some(value) = key.of_unmapped(moved, run) else {
                return;
            };
            self.wanted.push(value);
        }
        match self.place() {
            Some(block) => self.sums[block].add_unmapped(moved),
            None => self.others.add_unmapped(moved),
        }
    }

    /// The number of groups in a block.
    fn each(&self) -> usize {
        self.address.map_or(1, |_| NEIGHBOURS)
    }

    /// The values that the groups of a block have in common.
    fn of(&self, block: usize) -> &[Value] {
        of(&self.values, self.keys.len(), block)
    }

    /// The block of a move, which is made if it is new; None if there is no room for it.
    fn block(&mut self, moved: &Move, run: &RunFacts, at: Nanos) -> Option<usize> {
        self.wanted.clear();
        self.wanted.extend(self.keys.iter().map(|key| key.of(moved, run, at)));
        if let Some(Value::Address(_, vaddr)) = self.address.and_then(|key| self.wanted.get_mut(key)) {
            *vaddr = first(*vaddr);
        }
        self.place()
    }

    /// The block of the wanted values, which is made if it is new; None if there is no room for it.
    fn place(&mut self) -> Option<usize> {
        let digest = self.hasher.hash_one(&self.wanted);
        let known = self.blocks.find(digest, |block| self.of(*block) == self.wanted);
        let (place, each) = (self.sums.len(), self.each());
        if known.is_some() {
            return known.copied();
        }
        let names = self.wanted.iter().map(Value::bytes).sum::<usize>() + self.names;
        if place + each > MOST || names > NAMES {
            return None;
        }
        self.names = names;
        self.values.append(&mut self.wanted);
        self.sums.resize_with(place + each, Group::default);
        let (values, keys, hasher) = (&self.values, self.keys.len(), &self.hasher);
        let block = place / each;
        self.blocks
            .insert_unique(digest, block, |block| hasher.hash_one(of(values, keys, *block)));
        Some(block)
    }

    /// The keys that groups are made by.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The keys that were requested.
    #[must_use]
    pub fn asked(&self) -> &[Key] {
        &self.keys[usize::from(self.implied)..]
    }

    /// The first key to show: a machine that was not requested is left out if there is only one.
    #[must_use]
    pub fn shown_from(&self) -> usize {
        let mut machines = self.values.iter().step_by(self.keys.len().max(1));
        let first = machines.next();
        usize::from(self.implied && machines.all(|machine| Some(machine) == first))
    }

    /// The most events that one group has.
    #[must_use]
    pub fn most_events(&self) -> u64 {
        self.sums.iter().map(|group| group.events).max().unwrap_or_default()
    }

    /// Every group: the first `most` are sorted, the rest follow in any order.
    #[must_use]
    pub fn sorted(&self, by: Sort, most: usize) -> Vec<GroupRow<'_>> {
        let used = (0..self.sums.len()).filter(|place| self.sums[*place].events > 0);
        let mut rows: Vec<GroupRow<'_>> = used.map(|place| GroupRow { groups: self, place }).collect();
        let order = |a: &GroupRow<'_>, b: &GroupRow<'_>| {
            let size = |row: &GroupRow<'_>| match by {
                Sort::Pages => row.group().pages,
                Sort::Events => row.group().events,
                Sort::Blackout => row.group().blackouts.longest().unwrap_or_default().0,
                Sort::Name => 0,
            };
            let by_size = Reverse(size(a)).cmp(&Reverse(size(b)));
            by_size.then_with(|| self.by_name(a.place, b.place))
        };
        if most < rows.len() {
            rows.select_nth_unstable_by(most, order);
            rows[..most].sort_unstable_by(order);
        } else {
            rows.sort_unstable_by(order);
        }
        rows
    }

    /// Compares the values of two groups, key by key.
    fn by_name(&self, a: usize, b: usize) -> Ordering {
        let each = self.each();
        let values = self.of(a / each).iter().zip(self.of(b / each));
        let mut by_block = values.map(|(a, b)| a.cmp(b));
        let address = self.address.unwrap_or(self.keys.len());
        let before = by_block.by_ref().take(address + 1).find(|order| order.is_ne());
        let page = || Some((a % each).cmp(&(b % each))).filter(|order| order.is_ne());
        before
            .or_else(page)
            .or_else(|| by_block.find(|order| order.is_ne()))
            .unwrap_or(Ordering::Equal)
    }
}

/// The values of one block; each block has one for each key.
fn of(values: &[Value], keys: usize, block: usize) -> &[Value] {
    &values[keys * block..keys * (block + 1)]
}

/// The order of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Most pages first.
    Pages,
    /// Most events first.
    Events,
    /// Longest blackout first.
    Blackout,
    /// By their values, key by key.
    Name,
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::Event,
        made_up,
        run::folios::Folios,
        units::{Tgid, Tid},
    };

    /// Draws from few values, so that they repeat and alternate.
    fn any_move() -> impl Strategy<Value = Move> {
        let folio = (prop::option::of(1u8..4), 0u32..2);
        let parts = (0u32..3, 0u64..40, 0u64..3, 0u64..3, any::<bool>(), folio);
        parts.prop_map(|(owner, page, second, pages, known, (nth, thread))| {
            let mut moved = if known { made_up::moved() } else { made_up::unknown() };
            if let Some(task) = &mut moved.owner {
                task.tgid = Tgid(owner);
                // Equal names sometimes have different pointers.
                task.comm = (owner > 0).then(|| Arc::from(if second == 1 { "b" } else { "a" }));
            }
            moved.vaddr = VirtAddr(page * PAGE_SIZE + 0x7f00_0000);
            moved.at = Nanos(second * 1_000_000_000);
            moved.pages = pages;
            moved.nth = nth;
            if let Some(actor) = &mut moved.actor {
                actor.tid = Tid(thread);
            }
            moved
        })
    }

    #[test]
    fn what_nobody_maps_is_in_every_table_but_that_of_addresses() {
        let mut tables = GroupTables::new(Key::ALL.map(|key| vec![key]));
        let run = RunFacts {
            begun: Nanos(0),
            host: Arc::from("db-1"),
        };
        for event in made_up::others() {
            if let Event::Unmapped(moved) = event {
                tables.add_unmapped(&moved, &run);
            }
        }
        for table in &tables.tables {
            let rows = table.sorted(Sort::Name, usize::MAX);
            let pages: u64 = rows.iter().map(|row| row.group().pages().unwrap()).sum();
            let expected = if table.asked() == [Key::Address] { 0 } else { 8 };
            assert_eq!(pages, expected, "{:?}", table.asked());
            assert!(rows.iter().all(|row| row.group().mappings == 0));
        }
    }

    proptest! {
        #[test]
        fn tables_have_the_sums_of_each_group(runs in prop::collection::vec(prop::collection::vec(any_move(), 0..60), 1..4)) {
            let asked = Key::ALL.map(|key| vec![key]).into_iter().chain([
                vec![Key::Address, Key::Reason],
                vec![Key::Second, Key::Process, Key::Host],
                vec![Key::Nodes, Key::Address, Key::Second],
            ]);
            let mut tables = GroupTables::new(asked);
            let mut next = 0;
            let mut expected = vec![BTreeMap::new(); tables.tables.len()];
            for (moves, host) in runs.iter().zip(["db-1", "db-2", "db-1"]) {
                let run = RunFacts { begun: Nanos(0), host: Arc::from(host) };
                tables.begin_run();
                // Numbers the folio that each thread is moving.
                let mut folios = Folios::<u32>::default();
                for moved in moves {
                    tables.add(moved, &run);
                    let folio = folios.folio(moved).map(|seen| {
                        if seen.begins {
                            next += 1;
                            *seen.kept = next;
                        }
                        (*seen.kept, seen.pages, seen.begun)
                    });
                    let at = folio.map_or(moved.at, |(.., begun)| begun);
                    for (table, groups) in tables.tables.iter().zip(&mut expected) {
                        let values: Vec<Value> = table.keys().iter().map(|key| key.of(moved, &run, at)).collect();
                        let (sums, counted) = groups.entry(values).or_insert(((0, 0, 0, None), BTreeSet::new()));
                        let (events, pages, mappings, longest) = sums;
                        (*events, *mappings) = (*events + 1, *mappings + moved.pages);
                        *pages += match folio {
                            None => moved.pages,
                            Some((number, all, _)) => if counted.insert(number) { all } else { 0 },
                        };
                        *longest = (*longest).max(moved.blackout);
                    }
                }
            }
            for (table, expected) in tables.tables.iter().zip(expected) {
                let sums = |row: &GroupRow<'_>| {
                    let group = row.group();
                    (group.events, group.pages().unwrap(), group.mappings, group.blackouts.longest())
                };
                let rows = table.sorted(Sort::Name, usize::MAX);
                let found: Vec<_> = rows.iter().map(|row| (row.values().collect::<Vec<_>>(), sums(row))).collect();
                prop_assert_eq!(found, expected.into_iter().map(|(values, (sums, _))| (values, sums)).collect::<Vec<_>>());
                // The first rows are the same, whatever `most` is.
                let all = table.sorted(Sort::Pages, usize::MAX);
                let some = table.sorted(Sort::Pages, 2);
                prop_assert!(all.iter().zip(&some).take(2).all(|(a, b)| a.place == b.place));
                prop_assert_eq!(all.len(), some.len());
            }
        }
    }
}
