//! The address spaces of processes: their VMAs and their open pagemaps, read on first use.
//! Input: /proc/PID/maps and /proc/PID/pagemap.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    proc::{
        maps::{AddressSpace, Vma},
        pagemap::{LookupError, Pagemap},
    },
    units::{Tgid, VirtAddr},
};

/// VMAs older than this are read again when asked: an address may have been mapped anew.
const MAX_AGE: Duration = Duration::from_secs(1);
/// After a miss, VMAs are read again at most this often.
const RETRY: Duration = Duration::from_millis(50);
/// Open pagemaps at most; beyond it all are closed.
const MAX_OPEN: usize = 512;

struct Space {
    vmas: Option<(AddressSpace, Instant)>,
    pagemap: Option<Pagemap>,
}

/// What is open, by process.
#[derive(Default)]
pub struct Spaces(HashMap<Tgid, Space>);

impl Spaces {
    /// Its address space is another one now, or none.
    pub fn forget(&mut self, tgid: Tgid) {
        self.0.remove(&tgid);
    }

    /// The VMA at an address; None: not mapped, or the process is gone.
    pub fn vma(&mut self, tgid: Tgid, address: VirtAddr) -> Option<Arc<Vma>> {
        let found = self.vmas(tgid, MAX_AGE)?.find(address).cloned();
        match found {
            Some(vma) => Some(vma),
            None => self.vmas(tgid, RETRY)?.find(address).cloned(),
        }
    }

    /// The VMAs of a process, read again if older than `max_age`. A process that is gone keeps those
    /// that were read last.
    pub fn vmas(&mut self, tgid: Tgid, max_age: Duration) -> Option<&AddressSpace> {
        let space = self.entry(tgid);
        let fresh = space.vmas.as_ref().is_some_and(|(_, read)| read.elapsed() <= max_age);
        if !fresh
            && let Ok(vmas) = AddressSpace::read(tgid)
            && (vmas.iter().len() > 0 || space.vmas.is_none())
        {
            space.vmas = Some((vmas, Instant::now()));
        }
        space.vmas.as_ref().map(|(vmas, _)| vmas)
    }

    /// Reads the entries of pages, sorted by address, into `entries`.
    ///
    /// # Errors
    /// As [`Pagemap::open`] and [`Pagemap::lookup`].
    pub fn lookup(&mut self, tgid: Tgid, pages: &[VirtAddr], entries: &mut Vec<u64>) -> Result<(), LookupError> {
        let space = self.entry(tgid);
        let pagemap = match &mut space.pagemap {
            Some(open) => open,
            closed => closed.insert(Pagemap::open(tgid)?),
        };
        let result = pagemap.lookup(pages, entries);
        if result.is_err() {
            space.pagemap = None;
        }
        result
    }

    fn entry(&mut self, tgid: Tgid) -> &mut Space {
        if self.0.len() >= MAX_OPEN && !self.0.contains_key(&tgid) {
            self.0.clear();
        }
        self.0.entry(tgid).or_insert_with(|| Space {
            vmas: None,
            pagemap: None,
        })
    }
}
