//! Moves by what they have in common: process, mapping, actor, reason, address, second.
//! Input: moves of one or several recordings.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

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
            Self::Second => Value::Second(moved.at.since(run.begun).0 / 1_000_000_000),
            Self::Host => Value::Text(run.host.clone()),
        }
    }
}

impl Key {
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
            Self::Comm | Self::Nodes | Self::Order | Self::Verdict | Self::Address | Self::Second | Self::Host => {
                *value == self.of(moved, run)
            }
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
    /// Seconds from the run's begin.
    Second(u64),
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
    pub blackout: Option<Durations>,
}

impl Group {
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
    pub keys: Vec<Key>,
    places: HashMap<Vec<Value>, usize>,
    sums: Vec<Group>,
    last: Option<usize>,
    values: Vec<Value>,
    last_values: Vec<Value>,
    /// What found no place any more.
    pub others: Group,
}

/// So many groups there are at most: the memory that they take is bounded.
const MOST: usize = 1 << 18;
/// So many groups have their blackouts kept apart.
const DETAILED: usize = 1 << 12;

impl Groups {
    /// By these keys.
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self {
            keys,
            places: HashMap::new(),
            sums: Vec::new(),
            last: None,
            values: Vec::new(),
            last_values: Vec::new(),
            others: Group::default(),
        }
    }

    /// Adds a move.
    pub fn add(&mut self, moved: &Move, run: &Run) {
        // Moves come in rows.
        let place = match self.last {
            Some(place) if self.is_last(moved, run) => Some(place),
            _ => self.place(moved, run),
        };
        match place {
            Some(place) => self.sums[place].add(moved),
            None => self.others.add(moved),
        }
    }

    /// Whether it has all in common with the last one that found a place.
    fn is_last(&self, moved: &Move, run: &Run) -> bool {
        let mut keys = self.keys.iter().zip(&self.last_values);
        keys.all(|(key, value)| key.is(value, moved, run))
    }

    fn place(&mut self, moved: &Move, run: &Run) -> Option<usize> {
        self.values.clear();
        self.values.extend(self.keys.iter().map(|key| key.of(moved, run)));
        let place = match self.places.get(&self.values) {
            Some(place) => *place,
            None if self.sums.len() == MOST => return None,
            None => {
                self.places.insert(self.values.clone(), self.sums.len());
                self.sums.push(Group {
                    blackout: (self.sums.len() < DETAILED).then(Durations::default),
                    ..Group::default()
                });
                self.sums.len() - 1
            }
        };
        self.last = Some(place);
        std::mem::swap(&mut self.last_values, &mut self.values);
        Some(place)
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
            .places
            .iter()
            .map(|(values, &place)| (&values[..], &self.sums[place]))
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
