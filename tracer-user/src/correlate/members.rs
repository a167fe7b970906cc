//! Whose moves are wanted: what each process fulfils of what is requested.
//! Input: what processes fulfilled at the begin; process events, in which the kernel side says what they fulfil now.

use std::collections::BTreeMap;

use tracer_common::{
    event::{ProcessChange, ProcessSeen},
    filter::membership,
};

use crate::units::Tgid;

/// The processes that fulfil something of what is needed.
#[derive(Default)]
pub(super) struct Members {
    /// What a wanted owner fulfils, bits of [`membership`]; 0: everybody is wanted.
    need: u32,
    /// What each process fulfils; those that fulfil nothing are not in it.
    fulfilled: BTreeMap<Tgid, u32>,
}

impl Members {
    pub fn new(need: u32, fulfilled: BTreeMap<Tgid, u32>) -> Self {
        Self { need, fulfilled }
    }

    /// Takes in what a process fulfils from now on.
    pub fn set(&mut self, tgid: Tgid, bits: u32) {
        if bits == 0 {
            self.fulfilled.remove(&tgid);
        } else {
            self.fulfilled.insert(tgid, bits);
        }
    }

    /// Drops a process.
    pub fn remove(&mut self, tgid: Tgid) {
        self.fulfilled.remove(&tgid);
    }

    /// Whether this change makes a process wanted that was not, or the other way round.
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

    /// The wanted processes that live; None: everybody.
    pub fn wanted(&self) -> Option<impl Iterator<Item = Tgid>> {
        (self.need != 0).then(|| {
            let members = self.fulfilled.iter();
            members.filter(|(_, bits)| self.suffices(**bits)).map(|(tgid, _)| *tgid)
        })
    }

    /// Every process that fulfils something.
    pub fn iter(&self) -> impl Iterator<Item = Tgid> {
        self.fulfilled.keys().copied()
    }

    /// Whether processes were requested by number, and all of them have ended, with their children.
    pub fn lineage_ended(&self) -> bool {
        self.need & membership::LINEAGE != 0 && !self.fulfilled.values().any(|bits| bits & membership::LINEAGE != 0)
    }
}
