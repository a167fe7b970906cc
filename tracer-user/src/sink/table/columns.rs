//! The names of all columns and the sources of their values. No other list exists.
//! Input: events and their parts.

use std::borrow::Cow;

use crate::{
    event::{
        Move, Reason, Task,
        compaction::Compaction,
        failure::{FailedPlace, Failure, cause_name},
        unmapped::{FilePlace, UnmappedMove},
    },
    proc::maps::Vma,
    sink::{export::RunColumns, table::cell::Type},
    units::{Nanos, NodeId, Pfn},
};

/// A column with a value of an `E`.
pub struct Column<E> {
    /// The name.
    pub name: &'static str,
    /// The source of the value.
    pub value: Value<E>,
}

/// A value's type and source.
pub enum Value<E> {
    Int(fn(&E) -> Option<i32>),
    Long(fn(&E) -> Option<i64>),
    Address(fn(&E) -> Option<u64>),
    Bool(fn(&E) -> Option<bool>),
    Text(for<'a> fn(&'a E) -> Option<Cow<'a, str>>),
    Time(fn(&E) -> Option<i64>),
}

/// Names and types.
pub fn described<E>(columns: &[Column<E>]) -> Vec<(&'static str, Type)> {
    let kind = |value: &Value<E>| match value {
        Value::Int(_) => Type::Int,
        Value::Long(_) => Type::Long,
        Value::Address(_) => Type::Address,
        Value::Bool(_) => Type::Bool,
        Value::Text(_) => Type::Text,
        Value::Time(_) => Type::Time,
    };
    columns
        .iter()
        .map(|column| (column.name, kind(&column.value)))
        .collect()
}

/// A time of a run.
pub struct When {
    at: Nanos,
    /// Microseconds since 1970.
    time: Option<i64>,
}

impl When {
    pub fn new(at: Nanos, run: &RunColumns) -> Self {
        Self { at, time: run.time(at) }
    }
}

const fn int<E>(name: &'static str, value: fn(&E) -> Option<i32>) -> Column<E> {
    Column {
        name,
        value: Value::Int(value),
    }
}

const fn long<E>(name: &'static str, value: fn(&E) -> Option<i64>) -> Column<E> {
    Column {
        name,
        value: Value::Long(value),
    }
}

const fn address<E>(name: &'static str, value: fn(&E) -> Option<u64>) -> Column<E> {
    Column {
        name,
        value: Value::Address(value),
    }
}

const fn bool<E>(name: &'static str, value: fn(&E) -> Option<bool>) -> Column<E> {
    Column {
        name,
        value: Value::Bool(value),
    }
}

const fn text<E>(name: &'static str, value: for<'a> fn(&'a E) -> Option<Cow<'a, str>>) -> Column<E> {
    Column {
        name,
        value: Value::Text(value),
    }
}

const fn time<E>(name: &'static str, value: fn(&E) -> Option<i64>) -> Column<E> {
    Column {
        name,
        value: Value::Time(value),
    }
}

pub const TIME: &[Column<When>] = &[time("time", |when| when.time), long("time_ns", |when| count(when.at.0))];

pub const HOST: &[Column<RunColumns>] = &[text("host", |run| borrowed(run.host.as_deref()))];

pub const RUN: &[Column<RunColumns>] = &[
    text("boot_id", |run| borrowed(run.boot_id.as_deref())),
    text("recording_id", |run| borrowed(run.id.as_deref())),
    text("kernel", |run| borrowed(run.kernel.as_deref())),
];

pub const OWNER: &[Column<Task>] = &[
    int("pid", |owner| small(owner.tgid.0)),
    text("comm", |owner| borrowed(owner.comm.as_deref())),
];

pub const ACTOR: &[Column<Task>] = &[
    int("actor_pid", |actor| small(actor.tgid.0)),
    int("actor_tid", |actor| small(actor.tid.0)),
    text("actor_comm", |actor| borrowed(actor.comm.as_deref())),
];

pub const MOVE: &[Column<Move>] = &[
    text("owner_source", |moved| borrowed(moved.owner_source.name())),
    address("vaddr", |moved| Some(moved.vaddr.0)),
    long("pages", |moved| count(moved.pages)),
    int("order", |moved| Some(moved.order.0.into())),
    address("old_pfn", |moved| frame(moved.old_pfn)),
    address("new_pfn", |moved| frame(moved.new_pfn)),
    int("old_node", |moved| node(moved.old_node)),
    int("new_node", |moved| node(moved.new_node)),
    text("reason", |moved| moved.reason.as_ref().map(reason)),
    long("blackout_ns", |moved| count(moved.blackout?.0)),
    text("verdict", |moved| borrowed(Some(moved.verdict.name()))),
    text("flags", |moved| {
        Some(moved.flags?.names().collect::<Vec<_>>().join(BETWEEN).into())
    }),
    long("map_count", |moved| count(moved.map_count?)),
    bool("ambiguous", |moved| Some(moved.ambiguous)),
    int("nth", |moved| Some(moved.nth?.into())),
    int("cpu", |moved| Some(moved.cpu.into())),
];

pub const VMA: &[Column<Vma>] = &[
    text("vma_name", |vma| borrowed(Some(vma.label()))),
    text("vma_perms", |vma| Some(vma.perms.to_string().into())),
    address("vma_start", |vma| Some(vma.start.0)),
    address("vma_end", |vma| Some(vma.end.0)),
    long("vma_offset", |vma| has_file(vma).then(|| vma.offset.cast_signed())),
    text("vma_dev", |vma| {
        let (major, minor) = vma.dev;
        has_file(vma).then(|| format!("{major:02x}:{minor:02x}").into())
    }),
    long("vma_inode", |vma| has_file(vma).then(|| vma.inode.cast_signed())),
];

pub const UNMAPPED: &[Column<UnmappedMove>] = &[
    long("pages", |moved| count(moved.order.pages())),
    int("order", |moved| Some(moved.order.0.into())),
    address("old_pfn", |moved| frame(moved.old_pfn)),
    address("new_pfn", |moved| frame(moved.new_pfn)),
    int("old_node", |moved| node(moved.old_node)),
    int("new_node", |moved| node(moved.new_node)),
    text("reason", |moved| Some(reason(&moved.reason))),
    text("file_name", |moved| borrowed(file(moved)?.name.as_deref())),
    long("file_offset", |moved| Some(file(moved)?.offset.cast_signed())),
    text("file_dev", |moved| Some(file(moved)?.dev.to_string().into())),
    long("file_inode", |moved| Some(file(moved)?.inode.cast_signed())),
    int("cpu", |moved| Some(moved.cpu.into())),
];

pub const FAILURE: &[Column<Failure>] = &[
    long("pages", |failure| count(failure.order.pages())),
    int("order", |failure| Some(failure.order.0.into())),
    address("pfn", |failure| frame(failure.pfn)),
    int("node", |failure| node(failure.node)),
    text("reason", |failure| Some(reason(&failure.reason))),
    text("mode", |failure| borrowed(Some(&failure.mode))),
    text("cause", |failure| borrowed(Some(cause_name(failure.cause)))),
    bool("inferred", |failure| Some(failure.inferred)),
    int("errno", |failure| small(failure.errno?)),
    long("attempts", |failure| Some(failure.attempts.into())),
    long("refs", |failure| Some(failure.refs?.held.into())),
    long("expected_refs", |failure| Some(failure.refs?.expected.into())),
    long("map_count", |failure| Some(failure.map_count?.into())),
    text("flags", |failure| Some(failure.flags.replace(',', BETWEEN).into())),
    int("cpu", |failure| Some(failure.cpu.into())),
    int("places", |failure| i32::try_from(failure.places.len()).ok()),
];

/// The number, from 1, of the row's mapping among the known ones of its folio.
pub const NTH: &[Column<i32>] = &[int("place", |nth| Some(*nth))];

pub const PLACE: &[Column<FailedPlace>] = &[
    address("vaddr", |place| Some(place.vaddr.0)),
    bool("place_inferred", |place| Some(place.inferred)),
];

pub const COMPACTION: &[Column<Compaction>] = &[
    long("duration_ns", |run| count(run.duration.0)),
    int("order", |run| Some(run.order?.0.into())),
    int("node", |run| node(run.node)),
    text("zone", |run| borrowed(Some(&run.zone))),
    bool("direct", |run| Some(run.direct)),
    bool("sync", |run| Some(run.sync)),
    bool("proactive", |run| Some(run.proactive)),
    text("result", |run| borrowed(Some(&run.result))),
    long("moved_pages", |run| count(run.moved)),
    long("failed_pages", |run| count(run.failed)),
    int("cpu", |run| Some(run.cpu.into())),
];

/// The separator between flags. No flag contains it.
const BETWEEN: &str = "|";

fn borrowed(text: Option<&str>) -> Option<Cow<'_, str>> {
    text.map(Cow::Borrowed)
}

fn reason(reason: &Reason) -> Cow<'_, str> {
    match &reason.name {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(reason.to_string()),
    }
}

/// A count or a time. A value that no machine can reach is unknown.
fn count(value: u64) -> Option<i64> {
    value.try_into().ok()
}

/// The same with 32 bits.
fn small(value: u32) -> Option<i32> {
    value.try_into().ok()
}

fn frame(pfn: Option<Pfn>) -> Option<u64> {
    Some(pfn?.0)
}

fn node(node: Option<NodeId>) -> Option<i32> {
    small(node?.0)
}

fn file(moved: &UnmappedMove) -> Option<&FilePlace> {
    moved.file.as_ref()
}

fn has_file(vma: &Vma) -> bool {
    vma.dev != (0, 0) || vma.inode != 0
}
