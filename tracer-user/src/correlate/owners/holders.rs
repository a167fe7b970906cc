//! The page table entries of all candidates at addresses where moves have no owner.
//! Input: maps and pagemaps of the processes that are traced.

use std::time::{Duration, Instant};

use crate::{
    correlate::{life::Life, lists::Lists, processes::Processes, spaces::Spaces},
    proc::{
        pagemap::{Frame, LookupError},
        process,
    },
    units::{Tgid, VirtAddr},
};

/// The greatest age of VMAs in which candidates are searched.
const MAX_AGE: Duration = Duration::from_millis(500);
/// The time that a search may take. The ring holds the moves of meanwhile.
const MOST_TIME: Duration = Duration::from_millis(100);

/// Processes and the frames that they hold, by address.
#[derive(Default)]
pub(super) struct Holders {
    by_address: Lists<VirtAddr, (Life, Frame)>,
    candidates: Vec<Tgid>,
    covered: Vec<VirtAddr>,
    words: Vec<u64>,
    /// The number of processes that searches which took too long have searched. The next search begins behind them, so
    /// that every process has its turn.
    searched: usize,
}

impl Holders {
    /// The processes that have an entry at an address, with it.
    pub fn at(&self, address: VirtAddr) -> impl Iterator<Item = (Life, Frame)> {
        self.by_address.get(&address).copied()
    }

    /// Reads the page tables at these sorted addresses, and forgets earlier answers. Returns whether every process that
    /// may have the pages has answered before the time was over.
    pub fn read(&mut self, wanted: &[VirtAddr], processes: &Processes, spaces: &mut Spaces) -> bool {
        let begin = Instant::now();
        let mut all = true;
        self.by_address.clear();
        self.candidates.clear();
        match processes.members.wanted() {
            Some(wanted) => self.candidates.extend(wanted),
            None => self.candidates.append(&mut process::list().unwrap_or_default()),
        }
        let first = self.searched.checked_rem(self.candidates.len()).unwrap_or(0);
        self.candidates.rotate_left(first);
        for (searched, &tgid) in self.candidates.iter().enumerate() {
            if begin.elapsed() > MOST_TIME {
                self.searched = first + searched;
                return false;
            }
            self.covered.clear();
            let Some(vmas) = spaces.vmas(tgid, MAX_AGE) else {
                all &= !spaces.is_silent(tgid);
                continue;
            };
            for vma in vmas.iter() {
                let from = wanted.partition_point(|&address| address < vma.start);
                let to = wanted.partition_point(|&address| address < vma.end);
                self.covered.extend_from_slice(&wanted[from..to]);
            }
            if self.covered.is_empty() {
                continue;
            }
            if let Err(error) = spaces.lookup(tgid, &self.covered, &mut self.words) {
                all &= !matches!(error, LookupError::Silent(_));
                continue;
            }
            let life = processes.life(tgid);
            for (&address, &word) in self.covered.iter().zip(&self.words) {
                self.by_address.push(address, (life, Frame::decode(word)));
            }
        }
        all
    }

    #[cfg(test)]
    pub fn made_up(holders: &[(VirtAddr, Vec<(Life, Frame)>)]) -> Self {
        let mut made_up = Self::default();
        for (address, here) in holders {
            for &holder in here {
                made_up.by_address.push(*address, holder);
            }
        }
        made_up
    }
}
