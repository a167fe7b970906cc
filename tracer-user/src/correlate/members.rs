//! The processes whose moves are wanted, by the requested conditions that each fulfils.
//! Input: the conditions that processes fulfilled at the begin; process events, which bring the present ones.

use std::collections::BTreeMap;

use tracer_common::{
    event::{ProcessChange, ProcessSeen},
    filter::membership,
};

use crate::units::Tgid;

/// The processes that fulfil some of the requested conditions.
#[derive(Default)]
pub(super) struct Members {
    /// The conditions that a wanted owner fulfils, bits of [`membership`]; 0 if every process is wanted.
    need: u32,
    /// The conditions that each process fulfils; processes that fulfil none are left out.
    fulfilled: BTreeMap<Tgid, u32>,
}

impl Members {
    pub fn new(need: u32, fulfilled: BTreeMap<Tgid, u32>) -> Self {
        Self { need, fulfilled }
    }

    /// Takes in the conditions that a process fulfils from now on.
    pub fn set(&mut self, tgid: Tgid, bits: u32) {
        if bits == 0 {
            self.fulfilled.remove(&tgid);
        } else {
            self.fulfilled.insert(tgid, bits);
        }
    }

    /// Takes in the conditions that every process fulfils from now on.
    pub fn replace(&mut self, fulfilled: BTreeMap<Tgid, u32>) {
        self.fulfilled = fulfilled;
    }

    /// Drops a process.
    pub fn remove(&mut self, tgid: Tgid) {
        self.fulfilled.remove(&tgid);
    }

    /// Whether the change makes a process wanted that was not, or unwanted that was.
    pub fn changes_wanted(&self, change: ProcessChange, seen: &ProcessSeen) -> bool {
        match change {
            ProcessChange::Fork | ProcessChange::Exec | ProcessChange::Renamed | ProcessChange::Regrouped => {
                self.wants(Tgid(seen.tgid)) != self.suffices(seen.membership)
            }
            ProcessChange::Exit => self.need != 0 && self.wants(Tgid(seen.tgid)),
            ProcessChange::Actor => false,
        }
    }

    fn suffices(&self, bits: u32) -> bool {
        bits & self.need == self.need
    }

    /// Whether this process's moves are wanted.
    pub fn wants(&self, tgid: Tgid) -> bool {
        self.suffices(self.fulfilled.get(&tgid).copied().unwrap_or(0))
    }

    /// Whether the end of this process is reported.
    pub fn follows(&self, tgid: Tgid) -> bool {
        self.need == 0 || self.fulfilled.contains_key(&tgid)
    }

    /// The wanted processes that live; None if every process is wanted.
    pub fn wanted(&self) -> Option<impl Iterator<Item = Tgid>> {
        (self.need != 0).then(|| {
            let members = self.fulfilled.iter();
            members.filter(|(_, bits)| self.suffices(**bits)).map(|(tgid, _)| *tgid)
        })
    }

    /// Every process that fulfils a condition.
    pub fn iter(&self) -> impl Iterator<Item = Tgid> {
        self.fulfilled.keys().copied()
    }

    /// Whether processes were requested by number, and all of them have ended, with their children.
    pub fn lineage_ended(&self) -> bool {
        self.need & membership::LINEAGE != 0 && !self.fulfilled.values().any(|bits| bits & membership::LINEAGE != 0)
    }
}
