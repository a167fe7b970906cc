//! The numbers in columns: a step, an address, an optional value, an item of a list.
//! Input: values of events; numbers of a row.

use crate::{
    recording::{
        Damage,
        columns::{unzigzag, zigzag},
        tables::narrow,
    },
    units::{NodeId, PAGE_SHIFT},
};

/// The signed distance from `from` to `to`, in as few bits as possible.
pub(super) fn step(to: u64, from: u64) -> u64 {
    zigzag(to.wrapping_sub(from))
}

pub(super) fn stepped(step: u64, from: u64) -> u64 {
    from.wrapping_add(unzigzag(step))
}

/// Addresses are aligned to pages: their low bits become the highest.
pub(super) fn turned(address: u64) -> u64 {
    address.rotate_right(PAGE_SHIFT)
}

pub(super) fn bit(there: bool, bit: u64) -> u64 {
    if there { bit } else { 0 }
}

pub(super) fn plus_one(number: Option<u64>) -> u64 {
    number.map_or(0, |number| number.wrapping_add(1))
}

pub(super) fn less_one(number: u64) -> Option<u64> {
    number.checked_sub(1)
}

pub(super) fn node(number: u64) -> Result<Option<NodeId>, Damage> {
    less_one(number).map(|node| narrow(node).map(NodeId)).transpose()
}

/// The item of a list with that number.
pub(super) fn of<T: Copy>(all: &[T], number: u64) -> Result<T, Damage> {
    let found = usize::try_from(number).ok().and_then(|at| all.get(at));
    found.copied().ok_or(Damage("it has a number that has no meaning"))
}
