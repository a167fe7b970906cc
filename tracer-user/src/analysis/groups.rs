//! Moves by what they have in common: process, mapping, actor, reason, address, second. Processes of several machines are
//! never taken for one.
//! Input: moves of one or several recordings.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    hash::{BuildHasher as _, Hash as _, Hasher as _},
    sync::Arc,
};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::{
    analysis::totals::Durations,
    event::{Move, Reason, Task, Verdict},
    proc::maps::Vma,
    sink::Header,
    units::{Nanos, NodeId, Order, Tgid, VirtAddr},
};

/// What moves can have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The owner.
    Process,
    /// The owner's name.
    Comm,
    /// The mapping.
    Vma,
    /// Why.
    Reason,
    /// Who did it.
    Actor,
    /// From which node to which.
    Nodes,
    /// The folio's order.
    Order,
    /// What pagemap said.
    Verdict,
    /// The page, of its process.
    Address,
    /// The second of the run.
    Second,
    /// The machine.
    Host,
}

impl Key {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Process,
        Self::Comm,
        Self::Vma,
        Self::Reason,
        Self::Actor,
        Self::Nodes,
        Self::Order,
        Self::Verdict,
        Self::Address,
        Self::Second,
        Self::Host,
    ];

    /// The name on the command line and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Comm => "comm",
            Self::Vma => "vma",
            Self::Reason => "reason",
            Self::Actor => "actor",
            Self::Nodes => "nodes",
            Self::Order => "order",
            Self::Verdict => "verdict",
            Self::Address => "address",
            Self::Second => "second",
            Self::Host => "host",
        }
    }

    /// What it is of a move.
    #[must_use]
    pub fn of(self, moved: &Move, run: &Run) -> Value {
        match self {
            Self::Process => moved.owner.as_ref().map_or(Value::Nothing, Value::process),
            Self::Comm => {
                let comm = moved.owner.as_ref().and_then(|owner| owner.comm.clone());
                comm.map_or(Value::Nothing, Value::Text)
            }
            Self::Vma => moved.vma.as_ref().map_or(Value::Nothing, Value::vma),
            Self::Reason => Value::Reason(moved.reason.clone()),
            Self::Actor => Value::process(&moved.actor),
            Self::Nodes => Value::Nodes(moved.old_node, moved.new_node),
            Self::Order => Value::Order(moved.order),
            Self::Verdict => Value::Verdict(moved.verdict),
            Self::Address => {
                let owner = moved.owner.as_ref();
                Value::Address(owner.map(|owner| owner.tgid), moved.vaddr)
            }
            Self::Second => {
                let second = run.second(moved.at);
                Value::Seconds(second, second)
            }
            Self::Host => Value::Text(run.host.clone()),
        }
    }

    /// Whether what it is of a move says nothing without the machine.
    fn is_of_one_machine(self) -> bool {
        matches!(self, Self::Process | Self::Actor | Self::Address)
    }

    /// Whether it is that of a move, without making it again.
    fn is(self, value: &Value, moved: &Move, run: &Run) -> bool {
        let is_task =
            |task: &Task| matches!(value, Value::Process(tgid, comm) if (tgid, comm) == (&task.tgid, &task.comm));
        match self {
            Self::Process => match &moved.owner {
                Some(owner) => is_task(owner),
                None => *value == Value::Nothing,
            },
            Self::Actor => is_task(&moved.actor),
            Self::Vma => match (value, &moved.vma) {
                (Value::Text(name), Some(vma)) => **name == *vma.label(),
                (value, vma) => *value == Value::Nothing && vma.is_none(),
            },
            Self::Reason => matches!(value, Value::Reason(reason) if *reason == moved.reason),
            // These are made without a pointer, or seldom.
            Self::Address => {
                matches!(value, Value::Address(tgid, vaddr) if *vaddr == moved.vaddr
                    && *tgid == moved.owner.as_ref().map(|owner| owner.tgid))
            }
            Self::Second => matches!(value, Value::Seconds(second, _) if *second == run.second(moved.at)),
            Self::Host => matches!(value, Value::Text(host) if *host == run.host),
            Self::Comm | Self::Nodes | Self::Order | Self::Verdict => *value == self.of(moved, run),
        }
    }
}

/// What a run's events have in common.
#[derive(Clone, Debug)]
pub struct Run {
    /// When it began.
    pub begun: Nanos,
    /// On which machine.
    pub host: Arc<str>,
}

impl Run {
    /// Whole seconds from its begin.
    fn second(&self, at: Nanos) -> u64 {
        at.since(self.begun).0 / 1_000_000_000
    }
}

impl From<&Header> for Run {
    fn from(header: &Header) -> Self {
        Self {
            begun: header.begun,
            host: Arc::from(&*header.host),
        }
    }
}

/// What a key is of a move.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// Nobody knows.
    Nothing,
    /// A process by name.
    Process(Tgid, Option<Arc<str>>),
    /// A name.
    Text(Arc<str>),
    /// A reason.
    Reason(Reason),
    /// From a node to a node.
    Nodes(Option<NodeId>, Option<NodeId>),
    /// A folio's order.
    Order(Order),
    /// A verdict.
    Verdict(Verdict),
    /// A page of a process.
    Address(Option<Tgid>, VirtAddr),
    /// Seconds from the run's begin, the first and the last.
    Seconds(u64, u64),
}

impl Value {
    fn process(task: &Task) -> Self {
        Self::Process(task.tgid, task.comm.clone())
    }

    /// Its name.
    fn vma(vma: &Arc<Vma>) -> Self {
        Self::Text(if vma.name.is_empty() {
            Arc::from(vma.label())
        } else {
            vma.name.clone()
        })
    }
}

/// The sums of a group.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Runs of pages.
    pub events: u64,
    /// Base pages.
    pub pages: u64,
    /// The longest blackout; None: no run's start was seen.
    pub longest: Option<Nanos>,
    /// How long accesses had to wait, of the runs whose start was seen. None: there are too many groups to keep it.
    pub blackout: Option<Box<Durations>>,
}

impl Group {
    /// Adds another group.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.pages = self.pages.saturating_add(other.pages);
        self.longest = self.longest.max(other.longest);
        match (&mut self.blackout, &other.blackout) {
            (Some(durations), Some(others)) => durations.merge(others),
            _ => self.blackout = None,
        }
    }

    /// The blackout that `quantile` (0 to 1) of them do not exceed, if that is known.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Nanos> {
        let about = self.blackout.as_ref()?.quantile(quantile)?;
        // To two digits: not beyond the longest.
        self.longest.map(|longest| about.min(longest))
    }

    fn add(&mut self, moved: &Move) {
        self.events += 1;
        self.pages = self.pages.saturating_add(moved.pages);
        if let Some(blackout) = moved.blackout {
            self.longest = self.longest.max(Some(blackout));
            if let Some(durations) = &mut self.blackout {
                durations.add(blackout, 1);
            }
        }
    }
}

/// Moves grouped by some keys.
#[derive(Clone, Debug)]
pub struct Groups {
    /// In their order.
    keys: Vec<Key>,
    /// The first of them, the machine, was not asked for.
    implied: bool,
    /// What each group has in common, one behind the other: a value for each key.
    values: Vec<Value>,
    sums: Vec<Group>,
    /// Groups by their values.
    places: HashTable<usize>,
    hasher: DefaultHashBuilder,
    /// The group of the last move.
    last: usize,
    /// Of the move that is looked up.
    wanted: Vec<Value>,
    /// What found no place any more.
    pub others: Group,
}

/// So many groups there are at most: the memory that they take is bounded.
const MOST: usize = 1 << 18;
/// So many groups have their blackouts kept apart.
const DETAILED: usize = 1 << 12;

impl Groups {
    /// By these keys; where they need it, by machine first.
    #[must_use]
    pub fn new(mut keys: Vec<Key>) -> Self {
        let implied = keys.iter().any(|key| key.is_of_one_machine()) && !keys.contains(&Key::Host);
        if implied {
            keys.insert(0, Key::Host);
        }
        Self {
            keys,
            implied,
            values: Vec::new(),
            sums: Vec::new(),
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            last: 0,
            wanted: Vec::new(),
            others: Group::default(),
        }
    }

    /// Adds a move.
    pub fn add(&mut self, moved: &Move, run: &Run) {
        // Moves come in rows, and rows come again: what is like none of both is looked up.
        let near = [self.last, self.last + 1]
            .into_iter()
            .find(|place| self.has(*place, moved, run));
        match near.or_else(|| self.place(moved, run)) {
            Some(place) => {
                self.last = place;
                self.sums[place].add(moved);
            }
            None => self.others.add(moved),
        }
    }

    /// Whether there is that group, and the move is of it.
    fn has(&self, place: usize, moved: &Move, run: &Run) -> bool {
        place < self.sums.len()
            && self
                .keys
                .iter()
                .zip(self.of(place))
                .all(|(key, value)| key.is(value, moved, run))
    }

    /// What a group has in common.
    fn of(&self, place: usize) -> &[Value] {
        of(&self.values, self.keys.len(), place)
    }

    fn place(&mut self, moved: &Move, run: &Run) -> Option<usize> {
        self.wanted.clear();
        self.wanted.extend(self.keys.iter().map(|key| key.of(moved, run)));
        let digest = hash(&self.hasher, &self.wanted);
        let known = self.places.find(digest, |place| self.of(*place) == self.wanted);
        if known.is_some() || self.sums.len() == MOST {
            return known.copied();
        }
        let place = self.sums.len();
        self.values.append(&mut self.wanted);
        self.sums.push(Group {
            blackout: (place < DETAILED).then(Box::default),
            ..Group::default()
        });
        let (values, each, hasher) = (&self.values, self.keys.len(), &self.hasher);
        self.places
            .insert_unique(digest, place, |place| hash(hasher, of(values, each, *place)));
        Some(place)
    }

    /// What groups have in common.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// What was asked for of that.
    #[must_use]
    pub fn asked(&self) -> &[Key] {
        &self.keys[usize::from(self.implied)..]
    }

    /// From which key on they are worth showing: the machine is not where there is but one, and nobody asked for it.
    #[must_use]
    pub fn shown_from(&self) -> usize {
        let machine = |place: usize| self.of(place).first();
        usize::from(self.implied && (0..self.sums.len()).all(|place| machine(place) == machine(0)))
    }

    /// Whether no move was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Every group with its values; those by time in its order, else the largest first.
    #[must_use]
    pub fn sorted(&self, by: Sort) -> Vec<(&[Value], &Group)> {
        let mut rows: Vec<(&[Value], &Group)> = self
            .sums
            .iter()
            .enumerate()
            .map(|(place, sums)| (self.of(place), sums))
            .collect();
        rows.sort_unstable_by(|(a, first), (b, second)| {
            let size = |group: &Group| match by {
                Sort::Pages => group.pages,
                Sort::Events => group.events,
                Sort::Blackout => group.longest.unwrap_or_default().0,
                Sort::Name => 0,
            };
            Reverse(size(first)).cmp(&Reverse(size(second))).then_with(|| a.cmp(b))
        });
        rows
    }
}

/// Stretches of a time line, seconds.
const STEPS: [u64; 17] = [
    1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600, 43_200, 86_400,
];

/// Joins seconds, which are the whole of these groups' values, into at most `most` stretches, all of one length; days
/// are the longest.
#[must_use]
pub fn time_line(seconds: &[(&[Value], &Group)], most: usize) -> Vec<(Value, Group)> {
    let begins = |step: u64| {
        seconds.iter().filter_map(move |(values, group)| match values.first() {
            Some(Value::Seconds(second, _)) => Some((second - second % step, *group)),
            _ => None,
        })
    };
    let fits = |step: &&u64| begins(**step).map(|(begin, _)| begin).collect::<BTreeSet<_>>().len() <= most;
    let step = STEPS.iter().find(fits).copied().unwrap_or(86_400);
    let mut stretches: BTreeMap<u64, Group> = BTreeMap::new();
    for (begin, group) in begins(step) {
        match stretches.entry(begin) {
            Entry::Vacant(free) => {
                free.insert(group.clone());
            }
            Entry::Occupied(mut there) => there.get_mut().merge(group),
        }
    }
    stretches
        .into_iter()
        .map(|(begin, group)| (Value::Seconds(begin, begin.saturating_add(step - 1)), group))
        .collect()
}

/// The values of one group, of which each has so many.
fn of(values: &[Value], each: usize, place: usize) -> &[Value] {
    &values[each * place..each * (place + 1)]
}

/// Neighbours that have their places in a line of the cache.
const NEIGHBOURS: u64 = 64;

/// Addresses come in rows, and there are more of them than a cache holds: the low bits, by which a table begins to seek,
/// are near each other for neighbours; the high ones, by which it tells what it finds there apart, differ.
fn hash(hasher: &DefaultHashBuilder, values: &[Value]) -> u64 {
    let (mut state, mut near) = (hasher.build_hasher(), 0);
    for value in values {
        if let Value::Address(tgid, vaddr) = value {
            (tgid, vaddr.page() / NEIGHBOURS).hash(&mut state);
            near = vaddr.page() % NEIGHBOURS;
        } else {
            value.hash(&mut state);
        }
    }
    ((state.finish() & !(NEIGHBOURS - 1)) | near) ^ near.rotate_right(7)
}

/// Which groups come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Those with the most pages.
    Pages,
    /// Those with the most runs of pages.
    Events,
    /// Those with the longest blackout.
    Blackout,
    /// By what they have in common.
    Name,
}
