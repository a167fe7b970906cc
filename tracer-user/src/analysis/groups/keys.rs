//! The keys by which moves are grouped, and the value of each key for a move.
//! Input: a move of a run.

use std::sync::Arc;

use crate::{
    event::{Move, Reason, Residence, Task, Verdict, unmapped::UnmappedMove},
    proc::maps::Vma,
    run::header::Header,
    section::Cell,
    units::{Nanos, Order, Tgid, VirtAddr},
};

/// A property that moves can have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The owner.
    Process,
    /// The owner's name.
    Comm,
    /// The mapping of the page.
    Vma,
    /// The reason of the move.
    Reason,
    /// The process that moved the page.
    Actor,
    /// The old node and the new one.
    Nodes,
    /// The folio's order.
    Order,
    /// The verdict of pagemap.
    Verdict,
    /// The page, with its process.
    Address,
    /// The second after the begin of the run.
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

    /// The value of this key for a move of a folio that moved at that time: all its mappings are of one second.
    #[must_use]
    pub fn of(self, moved: &Move, run: &RunFacts, at: Nanos) -> Value {
        match self {
            Self::Process => moved.owner.as_ref().map_or(Value::Nothing, Value::process),
            Self::Comm => {
                let comm = moved.owner.as_ref().and_then(|owner| owner.comm.clone());
                comm.map_or(Value::Nothing, Value::Text)
            }
            Self::Vma => moved.vma.as_ref().map_or(Value::Nothing, Value::vma),
            Self::Reason => moved.reason.clone().map_or(Value::Nothing, Value::Reason),
            Self::Actor => {
                let actor = moved.actor.as_ref();
                actor.map_or(Value::Nothing, |task| Value::actor(task, moved.reason.as_ref()))
            }
            Self::Nodes => {
                let (old, new) = moved.residences();
                Value::Nodes(old, new)
            }
            Self::Order => Value::Order(moved.order),
            Self::Verdict => Value::Verdict(moved.verdict),
            Self::Address => {
                let owner = moved.owner.as_ref();
                Value::Address(owner.map(|owner| owner.tgid), moved.vaddr)
            }
            Self::Second => {
                let second = run.second(at);
                Value::Seconds(second, second)
            }
            Self::Host => Value::Text(run.host.clone()),
        }
    }

    /// The value for a move of a folio that no process maps; None if it has none.
    #[must_use]
    pub fn of_unmapped(self, moved: &UnmappedMove, run: &RunFacts) -> Option<Value> {
        Some(match self {
            Self::Process | Self::Comm | Self::Vma | Self::Verdict => Value::Nobody,
            Self::Reason => Value::Reason(moved.reason.clone()),
            Self::Actor => Value::actor(&moved.actor, Some(&moved.reason)),
            Self::Nodes => Value::Nodes(Residence::of(moved.old_node), Residence::of(moved.new_node)),
            Self::Order => Value::Order(moved.order),
            Self::Address => return None,
            Self::Second => {
                let second = run.second(moved.at);
                Value::Seconds(second, second)
            }
            Self::Host => Value::Text(run.host.clone()),
        })
    }

    /// Whether values of this key are unique on one machine only.
    pub(super) fn is_of_one_machine(self) -> bool {
        matches!(self, Self::Process | Self::Actor | Self::Address)
    }
}

/// The values that all events of a run have in common.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// The time at which the run began.
    pub begun: Nanos,
    /// The machine of the run.
    pub host: Arc<str>,
}

impl RunFacts {
    /// Whole seconds from the begin of the run.
    pub(super) fn second(&self, at: Nanos) -> u64 {
        at.since(self.begun).0 / 1_000_000_000
    }
}

impl From<&Header> for RunFacts {
    fn from(header: &Header) -> Self {
        Self {
            begun: header.begun,
            host: Arc::from(&*header.host),
        }
    }
}

/// The value of a key for a move.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// The value is not known.
    Nothing,
    /// No process maps it.
    Nobody,
    /// A process with its name.
    Process(Tgid, Option<Arc<str>>),
    /// A worker that moves pages for a cpuset.
    Cpuset(Tgid, Option<Arc<str>>),
    /// A name.
    Text(Arc<str>),
    /// A reason.
    Reason(Reason),
    /// The node, or swap, that a page left and the one that it came to.
    Nodes(Residence, Residence),
    /// A folio's order.
    Order(Order),
    /// A verdict.
    Verdict(Verdict),
    /// A page of a process; None if the process is not known.
    Address(Option<Tgid>, VirtAddr),
    /// The first and the last second of a stretch, from the begin of the run.
    Seconds(u64, u64),
}

impl Value {
    fn process(task: &Task) -> Self {
        Self::Process(task.tgid, task.comm.clone())
    }

    fn actor(task: &Task, reason: Option<&Reason>) -> Self {
        if task.moves_for_cpuset(reason) {
            Self::Cpuset(task.tgid, task.comm.clone())
        } else {
            Self::process(task)
        }
    }

    /// The bytes of its name.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Process(_, name) | Self::Cpuset(_, name) => name.as_ref().map_or(0, |name| name.len()),
            Self::Text(text) => text.len(),
            Self::Reason(reason) => reason.name.as_ref().map_or(0, |name| name.len()),
            Self::Nothing
            | Self::Nobody
            | Self::Nodes(..)
            | Self::Order(_)
            | Self::Verdict(_)
            | Self::Address(..)
            | Self::Seconds(..) => 0,
        }
    }

    /// The name of a mapping.
    fn vma(vma: &Arc<Vma>) -> Self {
        Self::Text(if vma.name.is_empty() {
            Arc::from(vma.label())
        } else {
            vma.name.clone()
        })
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        match value {
            Value::Nothing => Self::Unknown,
            Value::Nobody => Self::Nobody,
            Value::Process(tgid, comm) => Self::Process(tgid, comm),
            Value::Cpuset(tgid, comm) => Self::Cpuset(tgid, comm),
            Value::Text(text) => Self::Text(text.to_string().into()),
            Value::Reason(reason) => Self::Reason(reason),
            Value::Nodes(old, new) => Self::Nodes(old, new),
            Value::Order(order) => Self::Order(order),
            Value::Verdict(verdict) => Self::Verdict(verdict),
            Value::Address(tgid, vaddr) => Self::Address(tgid, vaddr),
            Value::Seconds(first, last) => Self::Seconds(first, last),
        }
    }
}

/// The values that a batch of moves has in common: those of all keys but the address and the time.
#[derive(Debug)]
pub(super) struct Common {
    owner: Option<Task>,
    vma: Option<Arc<Vma>>,
    reason: Option<Reason>,
    actor: Option<Task>,
    nodes: (Residence, Residence),
    order: Order,
    verdict: Verdict,
}

impl From<&Move> for Common {
    fn from(moved: &Move) -> Self {
        Self {
            owner: moved.owner.clone(),
            vma: moved.vma.clone(),
            reason: moved.reason.clone(),
            actor: moved.actor.clone(),
            nodes: moved.residences(),
            order: moved.order,
            verdict: moved.verdict,
        }
    }
}

impl Common {
    /// Whether a move has the same values. Names are compared by pointer: equal values may be reported as different.
    pub(super) fn is_of(&self, moved: &Move) -> bool {
        let task = |a: &Task, b: &Task| a.tgid == b.tgid && alike(a.comm.as_ref(), b.comm.as_ref(), Arc::ptr_eq);
        alike(self.owner.as_ref(), moved.owner.as_ref(), task)
            && alike(self.vma.as_ref(), moved.vma.as_ref(), Arc::ptr_eq)
            && alike(self.actor.as_ref(), moved.actor.as_ref(), task)
            && self.nodes == moved.residences()
            && (self.order, self.verdict) == (moved.order, moved.verdict)
            && self.reason == moved.reason
    }
}

/// Whether both are present and the same, or both are absent.
#[inline]
fn alike<T>(a: Option<&T>, b: Option<&T>, same: impl Fn(&T, &T) -> bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}
