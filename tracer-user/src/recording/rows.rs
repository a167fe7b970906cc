//! Events as rows of numbers, and back.
//! Input: events in the order in which they came; the content of a block.

use std::{borrow::Cow, sync::Arc};

use crate::{
    event::{
        Event, Move, OwnerSource, Verdict,
        compaction::Compaction,
        failure::{Cause, FailedPlace, Failure, Refs},
        unmapped::{Device, FilePlace, UnmappedMove},
    },
    proc::kpage::{KpfQuirks, PageFlags},
    recording::{
        Damage,
        block::{MAX_ROWS, Span},
        columns::{
            Codec::{self, Delta, Plain, Runs},
            Reader, Rows, Writer, unzigzag, zigzag,
        },
        tables::{Filling, Role, Tables, narrow, some},
    },
    units::{Nanos, NodeId, Order, PAGE_SHIFT, Pfn, VirtAddr},
};

/// Which kind of event comes next.
const KIND: [Codec; 1] = [Runs];
const MOVES: u64 = 0;
const UNMAPPED: u64 = 1;
const FAILURES: u64 = 2;
const COMPACTIONS: u64 = 3;
/// No event: what came before was shown before what comes after had come.
const TURN: u64 = 4;

/// The columns of a move, as docs/recording-format.md lists them.
const MOVE: [Codec; 20] = [
    Delta, // at
    Runs,  // known
    Runs,  // owner
    Runs,  // owner source
    Plain, // address, from the one expected
    Runs,  // pages
    Runs,  // order
    Plain, // old frame, from the one expected
    Plain, // new frame, from the one expected
    Runs,  // old node
    Runs,  // new node
    Runs,  // reason
    Runs,  // actor
    Delta, // blackout
    Runs,  // mapping
    Runs,  // verdict
    Runs,  // flags
    Runs,  // map count
    Runs,  // nth
    Runs,  // CPU
];

/// What a move has: bits of the column `known`.
mod known {
    pub const OLD_PFN: u64 = 1 << 0;
    pub const NEW_PFN: u64 = 1 << 1;
    pub const OLD_NODE: u64 = 1 << 2;
    pub const NEW_NODE: u64 = 1 << 3;
    pub const BLACKOUT: u64 = 1 << 4;
    pub const FLAGS: u64 = 1 << 5;
    pub const MAP_COUNT: u64 = 1 << 6;
    pub const NTH: u64 = 1 << 7;
    /// Not something that it has: whether [`super::Move::ambiguous`].
    pub const AMBIGUOUS: u64 = 1 << 8;
}

/// Where the next move is expected: behind the last one.
#[derive(Clone, Copy, Default)]
struct Expected {
    vaddr: u64,
    old_pfn: u64,
    new_pfn: u64,
}

impl Expected {
    fn follow(&mut self, moved: &Move) {
        self.vaddr = moved.vaddr.plus_pages(moved.pages).0;
        if let Some(pfn) = moved.old_pfn {
            self.old_pfn = pfn.plus(moved.pages).0;
        }
        if let Some(pfn) = moved.new_pfn {
            self.new_pfn = pfn.plus(moved.pages).0;
        }
    }
}

/// How far it is from `from`, in as few bits as can be.
fn step(to: u64, from: u64) -> u64 {
    zigzag(to.wrapping_sub(from))
}

fn stepped(step: u64, from: u64) -> u64 {
    from.wrapping_add(unzigzag(step))
}

/// Addresses are of pages: the bits below come last.
fn turned(address: u64) -> u64 {
    address.rotate_right(PAGE_SHIFT)
}

fn bit(there: bool, bit: u64) -> u64 {
    if there { bit } else { 0 }
}

/// Rows that are being written.
pub struct Batch {
    tables: Filling,
    kinds: Writer<1>,
    moves: Writer<20>,
    expected: Expected,
    unmapped: Writer<14>,
    failures: Writer<17>,
    places: Writer<4>,
    compactions: Writer<13>,
    /// Nothing has come since the last turn.
    turned: bool,
    span: Span,
}

impl Default for Batch {
    /// No row yet.
    fn default() -> Self {
        Self {
            tables: Filling::default(),
            kinds: Writer::new(&KIND),
            moves: Writer::new(&MOVE),
            expected: Expected::default(),
            unmapped: Writer::new(&UNMAPPED_MOVE),
            failures: Writer::new(&FAILURE),
            places: Writer::new(&PLACE),
            compactions: Writer::new(&COMPACTION),
            turned: true,
            span: Span::default(),
        }
    }
}

impl Batch {
    /// Events in it.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.span.rows
    }

    /// Bytes so far, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let places = self.places.bytes() + self.failures.bytes();
        self.tables.bytes() + self.moves.bytes() + self.unmapped.bytes() + places + self.compactions.bytes()
    }

    /// Adds an event.
    pub fn push(&mut self, event: &Event) {
        let at = event.at();
        if self.span.rows == 0 {
            (self.span.first, self.span.last) = (at, at);
        }
        self.span.first = self.span.first.min(at);
        self.span.last = self.span.last.max(at);
        self.span.rows += 1;
        let kind = match event {
            Event::Move(moved) => {
                self.moves.push(move_row(moved, self.expected, &mut self.tables));
                self.expected.follow(moved);
                MOVES
            }
            Event::Unmapped(moved) => {
                self.unmapped.push(unmapped_row(moved, &mut self.tables));
                UNMAPPED
            }
            Event::Failure(failure) => {
                for place in &failure.places {
                    self.places.push(place_row(place, &mut self.tables));
                }
                self.failures.push(failure_row(failure, &mut self.tables));
                FAILURES
            }
            Event::Compaction(run) => {
                self.compactions.push(compaction_row(run, &mut self.tables));
                COMPACTIONS
            }
        };
        self.kinds.push([kind]);
        self.turned = false;
    }

    /// Notes that what has come is shown now, before anything else comes.
    pub fn turn(&mut self) {
        if !std::mem::replace(&mut self.turned, true) {
            self.kinds.push([TURN]);
        }
    }

    /// Appends everything to `out` and begins anew.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Span {
        self.tables.finish(out);
        self.kinds.finish(out);
        self.moves.finish(out);
        self.unmapped.finish(out);
        self.failures.finish(out);
        self.places.finish(out);
        self.compactions.finish(out);
        self.expected = Expected::default();
        self.turned = true;
        std::mem::take(&mut self.span)
    }
}

/// Reads the events of a block into `events`, and into `turns` how many of them had come at each turn.
///
/// # Errors
/// [`Damage`] where the content is not what a [`Batch`] writes; both may hold a part of it.
pub fn read(content: &[u8], events: &mut Vec<Event>, turns: &mut Vec<usize>) -> Result<(), Damage> {
    events.clear();
    turns.clear();
    let mut reader = Reader(content);
    let most = u64::from(MAX_ROWS);
    let tables = Tables::read(&mut reader)?;
    let mut kinds = Rows::new(&KIND, &mut reader, 2 * most)?;
    let mut moves = Rows::new(&MOVE, &mut reader, most)?;
    let mut unmapped = Rows::new(&UNMAPPED_MOVE, &mut reader, most)?;
    let mut failures = Rows::new(&FAILURE, &mut reader, most)?;
    let mut places = Rows::new(&PLACE, &mut reader, most * MAX_PLACES)?;
    let mut compactions = Rows::new(&COMPACTION, &mut reader, most)?;
    let mut expected = Expected::default();
    while kinds.left() > 0 {
        events.push(match kinds.take()? {
            [TURN] => {
                turns.push(events.len());
                continue;
            }
            [MOVES] => {
                let moved = read_move(moves.take()?, expected, &tables)?;
                expected.follow(&moved);
                Event::Move(moved)
            }
            [UNMAPPED] => Event::Unmapped(read_unmapped(unmapped.take()?, &tables)?),
            [FAILURES] => Event::Failure(read_failure(failures.take()?, &mut places, &tables)?),
            [COMPACTIONS] => Event::Compaction(read_compaction(compactions.take()?, &tables)?),
            _ => return Err(Damage("it has events of an unknown kind")),
        });
    }
    Ok(())
}

/// Owners that are told of a folio that could not be moved; there are far fewer.
const MAX_PLACES: u64 = 256;

fn move_row(moved: &Move, expected: Expected, tables: &mut Filling) -> [u64; 20] {
    let old_pfn = moved.old_pfn.map_or(expected.old_pfn, |pfn| pfn.0);
    let new_pfn = moved.new_pfn.map_or(expected.new_pfn, |pfn| pfn.0);
    [
        moved.at.0,
        bit(moved.old_pfn.is_some(), known::OLD_PFN)
            | bit(moved.new_pfn.is_some(), known::NEW_PFN)
            | bit(moved.old_node.is_some(), known::OLD_NODE)
            | bit(moved.new_node.is_some(), known::NEW_NODE)
            | bit(moved.blackout.is_some(), known::BLACKOUT)
            | bit(moved.flags.is_some(), known::FLAGS)
            | bit(moved.map_count.is_some(), known::MAP_COUNT)
            | bit(moved.nth.is_some(), known::NTH)
            | bit(moved.ambiguous, known::AMBIGUOUS),
        moved.owner.as_ref().map_or(0, |owner| tables.task(owner, Role::Owner)),
        moved.owner_source as u64,
        step(turned(moved.vaddr.0), turned(expected.vaddr)),
        moved.pages,
        moved.order.0.into(),
        step(old_pfn, expected.old_pfn),
        step(new_pfn, expected.new_pfn),
        moved.old_node.map_or(0, |node| node.0.into()),
        moved.new_node.map_or(0, |node| node.0.into()),
        tables.reason(&moved.reason),
        tables.task(&moved.actor, Role::Actor),
        moved.blackout.map_or(0, |nanos| nanos.0),
        tables.vma(moved.vma.as_ref()),
        moved.verdict as u64,
        moved.flags.map_or(0, PageFlags::bits),
        moved.map_count.unwrap_or(0),
        moved.nth.unwrap_or(0).into(),
        moved.cpu.into(),
    ]
}

fn read_move(row: [u64; 20], expected: Expected, tables: &Tables) -> Result<Move, Damage> {
    let [
        at,
        known,
        owner,
        owner_source,
        vaddr,
        pages,
        order,
        old_pfn,
        new_pfn,
        old_node,
        new_node,
        reason,
        actor,
        blackout,
        vma,
        verdict,
        flags,
        map_count,
        nth,
        cpu,
    ] = row;
    let has = |bit| known & bit != 0;
    let node = |number, bit| has(bit).then(|| narrow(number).map(NodeId)).transpose();
    Ok(Move {
        at: Nanos(at),
        owner: tables.task(owner)?,
        owner_source: of(&OwnerSource::ALL, owner_source)?,
        vaddr: VirtAddr(stepped(vaddr, turned(expected.vaddr)).rotate_left(PAGE_SHIFT)),
        pages,
        order: Order(narrow(order)?),
        old_pfn: has(known::OLD_PFN).then(|| Pfn(stepped(old_pfn, expected.old_pfn))),
        new_pfn: has(known::NEW_PFN).then(|| Pfn(stepped(new_pfn, expected.new_pfn))),
        old_node: node(old_node, known::OLD_NODE)?,
        new_node: node(new_node, known::NEW_NODE)?,
        reason: tables.reason(reason)?,
        actor: some(tables.task(actor))?,
        blackout: has(known::BLACKOUT).then_some(Nanos(blackout)),
        vma: tables.vma(vma)?,
        verdict: of(&Verdict::ALL, verdict)?,
        flags: has(known::FLAGS).then(|| PageFlags::new(flags, AS_RECORDED)),
        map_count: has(known::MAP_COUNT).then_some(map_count),
        ambiguous: has(known::AMBIGUOUS),
        nth: has(known::NTH).then(|| narrow(nth)).transpose()?,
        cpu: narrow(cpu)?,
    })
}

/// The flags that the kernel got wrong were taken out before.
const AS_RECORDED: KpfQuirks = KpfQuirks {
    ksm_on_every_anon: false,
};

/// The columns of a folio that moved without a mapping. What may be missing is one more than it is, and 0 where it is.
const UNMAPPED_MOVE: [Codec; 14] = [
    Delta, // at
    Runs,  // order
    Delta, // old frame + 1
    Delta, // new frame + 1
    Runs,  // old node + 1
    Runs,  // new node + 1
    Runs,  // reason
    Runs,  // actor
    Runs,  // whether there is a file
    Runs,  // device
    Runs,  // inode
    Delta, // offset, turned
    Runs,  // name
    Runs,  // CPU
];

fn plus_one(number: Option<u64>) -> u64 {
    number.map_or(0, |number| number.wrapping_add(1))
}

fn less_one(number: u64) -> Option<u64> {
    number.checked_sub(1)
}

fn node(number: u64) -> Result<Option<NodeId>, Damage> {
    less_one(number).map(|node| narrow(node).map(NodeId)).transpose()
}

fn unmapped_row(moved: &UnmappedMove, tables: &mut Filling) -> [u64; 14] {
    let file = moved.file.as_ref();
    [
        moved.at.0,
        moved.order.0.into(),
        plus_one(moved.old_pfn.map(|pfn| pfn.0)),
        plus_one(moved.new_pfn.map(|pfn| pfn.0)),
        plus_one(moved.old_node.map(|node| node.0.into())),
        plus_one(moved.new_node.map(|node| node.0.into())),
        tables.reason(&moved.reason),
        tables.task(&moved.actor, Role::Actor),
        file.is_some().into(),
        file.map_or(0, |file| file.dev.0.into()),
        file.map_or(0, |file| file.inode),
        turned(file.map_or(0, |file| file.offset)),
        tables.string(file.and_then(|file| file.name.as_deref())),
        moved.cpu.into(),
    ]
}

fn read_unmapped(row: [u64; 14], tables: &Tables) -> Result<UnmappedMove, Damage> {
    let [
        at,
        order,
        old_pfn,
        new_pfn,
        old_node,
        new_node,
        reason,
        actor,
        has_file,
        dev,
        inode,
        offset,
        name,
        cpu,
    ] = row;
    let file = || {
        Ok(FilePlace {
            dev: Device(narrow(dev)?),
            inode,
            offset: offset.rotate_left(PAGE_SHIFT),
            name: tables.string(name)?,
        })
    };
    Ok(UnmappedMove {
        at: Nanos(at),
        order: Order(narrow(order)?),
        old_pfn: less_one(old_pfn).map(Pfn),
        new_pfn: less_one(new_pfn).map(Pfn),
        old_node: node(old_node)?,
        new_node: node(new_node)?,
        reason: tables.reason(reason)?,
        actor: some(tables.task(actor))?,
        file: (has_file != 0).then(file).transpose()?,
        cpu: narrow(cpu)?,
    })
}

/// The columns of a folio that could not be moved.
const FAILURE: [Codec; 17] = [
    Delta, // at
    Runs,  // order
    Delta, // frame + 1
    Runs,  // node + 1
    Runs,  // reason
    Runs,  // actor
    Runs,  // mode
    Runs,  // cause
    Runs,  // whether it is inferred
    Runs,  // errno + 1
    Runs,  // attempts
    Runs,  // references + 1
    Runs,  // references expected
    Runs,  // map count + 1
    Runs,  // flags, their names with commas between them
    Runs,  // places
    Runs,  // CPU
];

/// The columns of a mapping of such a folio.
const PLACE: [Codec; 4] = [
    Runs,  // owner
    Delta, // address, turned
    Runs,  // mapping
    Runs,  // inferred
];

fn failure_row(failure: &Failure, tables: &mut Filling) -> [u64; 17] {
    let flags = failure.flags.join(",");
    [
        failure.at.0,
        failure.order.0.into(),
        plus_one(failure.pfn.map(|pfn| pfn.0)),
        plus_one(failure.node.map(|node| node.0.into())),
        tables.reason(&failure.reason),
        tables.task(&failure.actor, Role::Actor),
        tables.string(Some(&failure.mode)),
        failure.cause as u64,
        failure.inferred.into(),
        plus_one(failure.errno.map(Into::into)),
        failure.attempts.into(),
        plus_one(failure.refs.map(|refs| refs.held.into())),
        failure.refs.map_or(0, |refs| refs.expected.into()),
        plus_one(failure.map_count.map(Into::into)),
        tables.string((!flags.is_empty()).then_some(&flags)),
        failure.places.len() as u64,
        failure.cpu.into(),
    ]
}

fn place_row(place: &FailedPlace, tables: &mut Filling) -> [u64; 4] {
    [
        tables.task(&place.owner, Role::Owner),
        turned(place.vaddr.0),
        tables.vma(place.vma.as_ref()),
        place.inferred.into(),
    ]
}

fn read_failure(row: [u64; 17], places: &mut Rows<'_, 4>, tables: &Tables) -> Result<Failure, Damage> {
    let [
        at,
        order,
        pfn,
        node_number,
        reason,
        actor,
        mode,
        cause,
        inferred,
        errno,
        attempts,
        refs,
        expected,
        map_count,
        flags,
        place_count,
        cpu,
    ] = row;
    let narrow_some = |number| less_one(number).map(narrow).transpose();
    let flags = tables.string(flags)?;
    let mut failure = Failure {
        at: Nanos(at),
        order: Order(narrow(order)?),
        pfn: less_one(pfn).map(Pfn),
        node: node(node_number)?,
        reason: tables.reason(reason)?,
        actor: some(tables.task(actor))?,
        mode: Cow::Owned(some(tables.string(mode))?.to_string()),
        cause: of(&Cause::ALL, cause)?,
        inferred: inferred != 0,
        errno: narrow_some(errno)?,
        attempts: narrow(attempts)?,
        refs: match narrow_some(refs)? {
            Some(held) => Some(Refs {
                held,
                expected: narrow(expected)?,
            }),
            None => None,
        },
        map_count: narrow_some(map_count)?,
        flags: flags.iter().flat_map(|flags| flags.split(',')).map(Arc::from).collect(),
        places: Vec::new(),
        cpu: narrow(cpu)?,
    };
    for _ in 0..place_count {
        let [owner, vaddr, vma, inferred] = places.take()?;
        failure.places.push(FailedPlace {
            owner: some(tables.task(owner))?,
            vaddr: VirtAddr(vaddr.rotate_left(PAGE_SHIFT)),
            vma: tables.vma(vma)?,
            inferred: inferred != 0,
        });
    }
    Ok(failure)
}

/// The columns of a run of compaction.
const COMPACTION: [Codec; 13] = [
    Delta, // at
    Delta, // duration
    Runs,  // actor
    Runs,  // order + 1
    Runs,  // node + 1
    Runs,  // zone
    Runs,  // direct
    Runs,  // sync
    Runs,  // proactive
    Runs,  // result
    Plain, // moved
    Plain, // failed
    Runs,  // CPU
];

fn compaction_row(run: &Compaction, tables: &mut Filling) -> [u64; 13] {
    [
        run.at.0,
        run.duration.0,
        tables.task(&run.actor, Role::Actor),
        plus_one(run.order.map(|order| order.0.into())),
        plus_one(run.node.map(|node| node.0.into())),
        tables.string(Some(&run.zone)),
        run.direct.into(),
        run.sync.into(),
        run.proactive.into(),
        tables.string(Some(&run.result)),
        run.moved,
        run.failed,
        run.cpu.into(),
    ]
}

fn read_compaction(row: [u64; 13], tables: &Tables) -> Result<Compaction, Damage> {
    let [
        at,
        duration,
        actor,
        order,
        node_number,
        zone,
        direct,
        sync,
        proactive,
        result,
        moved,
        failed,
        cpu,
    ] = row;
    Ok(Compaction {
        at: Nanos(at),
        duration: Nanos(duration),
        actor: some(tables.task(actor))?,
        order: less_one(order).map(|order| narrow(order).map(Order)).transpose()?,
        node: node(node_number)?,
        zone: some(tables.string(zone))?,
        direct: direct != 0,
        sync: sync != 0,
        proactive: proactive != 0,
        result: some(tables.string(result))?,
        moved,
        failed,
        cpu: narrow(cpu)?,
    })
}

/// One of a list, by its place in it.
fn of<T: Copy>(all: &[T], number: u64) -> Result<T, Damage> {
    let found = usize::try_from(number).ok().and_then(|at| all.get(at));
    found.copied().ok_or(Damage("it has a number that has no meaning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_lists() {
        let numbers = |list: &[u64]| list.iter().copied().eq(0..list.len() as u64);
        assert!(numbers(&OwnerSource::ALL.map(|source| source as u64)));
        assert!(numbers(&Verdict::ALL.map(|verdict| verdict as u64)));
        assert!(numbers(&Cause::ALL.map(|cause| cause as u64)));
    }
}
