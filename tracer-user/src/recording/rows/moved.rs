//! The columns of a move, and back.
//! Input: a move of a page; its row.

use super::numbers::{bit, of, step, stepped, turned};
use crate::{
    event::{Move, OwnerSource, Verdict},
    proc::kpage::{KpfQuirks, PageFlags},
    recording::{
        Damage,
        columns::Codec::{self, Delta, Plain, Runs},
        tables::{Filling, Role, Tables, narrow},
    },
    units::{Nanos, NodeId, Order, PAGE_SHIFT, Pfn, VirtAddr},
};

/// The columns of a move, as docs/recording-format.md lists them.
pub(super) const MOVE: [Codec; 20] = [
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

/// Bits of the column `known`: which fields of a move are known.
mod known {
    pub const OLD_PFN: u64 = 1 << 0;
    pub const NEW_PFN: u64 = 1 << 1;
    pub const OLD_NODE: u64 = 1 << 2;
    pub const NEW_NODE: u64 = 1 << 3;
    pub const BLACKOUT: u64 = 1 << 4;
    pub const FLAGS: u64 = 1 << 5;
    pub const MAP_COUNT: u64 = 1 << 6;
    pub const NTH: u64 = 1 << 7;
    /// Not a field: whether [`crate::event::Move::ambiguous`] is set.
    pub const AMBIGUOUS: u64 = 1 << 8;
}

/// The expected position of the next move: directly after the previous one.
#[derive(Clone, Copy, Default)]
pub(super) struct Expected {
    vaddr: u64,
    old_pfn: u64,
    new_pfn: u64,
}

impl Expected {
    pub(super) fn follow(&mut self, moved: &Move) {
        self.vaddr = moved.vaddr.plus_pages(moved.pages).0;
        if let Some(pfn) = moved.old_pfn {
            self.old_pfn = pfn.plus(moved.pages).0;
        }
        if let Some(pfn) = moved.new_pfn {
            self.new_pfn = pfn.plus(moved.pages).0;
        }
    }
}

pub(super) fn move_row(moved: &Move, expected: Expected, tables: &mut Filling) -> [u64; 20] {
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
        moved.reason.as_ref().map_or(0, |reason| tables.reason(reason)),
        moved.actor.as_ref().map_or(0, |actor| tables.task(actor, Role::Actor)),
        moved.blackout.map_or(0, |nanos| nanos.0),
        tables.vma(moved.vma.as_ref()),
        moved.verdict as u64,
        moved.flags.map_or(0, PageFlags::bits),
        moved.map_count.unwrap_or(0),
        moved.nth.unwrap_or(0).into(),
        moved.cpu.into(),
    ]
}

/// A move from the columns of runs; [`vary`] adds the other columns.
pub(super) fn read_move(row: &[u64; 20], tables: &Tables) -> Result<Move, Damage> {
    let [
        _,
        known,
        owner,
        owner_source,
        _,
        pages,
        order,
        _,
        _,
        old_node,
        new_node,
        reason,
        actor,
        _,
        vma,
        verdict,
        flags,
        map_count,
        nth,
        cpu,
    ] = *row;
    let has = |bit| known & bit != 0;
    let node = |number, bit| has(bit).then(|| narrow(number).map(NodeId)).transpose();
    Ok(Move {
        at: Nanos(0),
        owner: tables.task(owner)?,
        owner_source: of(&OwnerSource::ALL, owner_source)?,
        vaddr: VirtAddr(0),
        pages,
        order: Order(narrow(order)?),
        old_pfn: None,
        new_pfn: None,
        old_node: node(old_node, known::OLD_NODE)?,
        new_node: node(new_node, known::NEW_NODE)?,
        reason: tables.reason(reason)?,
        actor: tables.task(actor)?,
        blackout: None,
        vma: tables.vma(vma)?,
        verdict: of(&Verdict::ALL, verdict)?,
        flags: has(known::FLAGS).then(|| PageFlags::new(flags, AS_RECORDED)),
        map_count: has(known::MAP_COUNT).then_some(map_count),
        ambiguous: has(known::AMBIGUOUS),
        nth: has(known::NTH).then(|| narrow(nth)).transpose()?,
        cpu: narrow(cpu)?,
    })
}

/// Sets the other columns, which differ from one move to the next.
#[inline]
pub(super) fn vary(moved: &mut Move, row: &[u64; 20], expected: Expected) {
    let [at, known, _, _, vaddr, _, _, old_pfn, new_pfn, _, _, _, _, blackout, ..] = *row;
    let has = |bit| known & bit != 0;
    moved.at = Nanos(at);
    moved.vaddr = VirtAddr(stepped(vaddr, turned(expected.vaddr)).rotate_left(PAGE_SHIFT));
    moved.old_pfn = has(known::OLD_PFN).then(|| Pfn(stepped(old_pfn, expected.old_pfn)));
    moved.new_pfn = has(known::NEW_PFN).then(|| Pfn(stepped(new_pfn, expected.new_pfn)));
    moved.blackout = has(known::BLACKOUT).then_some(Nanos(blackout));
}

/// Wrong flags of the kernel were removed before recording.
const AS_RECORDED: KpfQuirks = KpfQuirks {
    ksm_on_every_anon: false,
};
