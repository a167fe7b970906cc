//! The address spaces of processes: their VMAs, read on first use, and their page tables.
//! Input: /proc/PID/maps and /proc/PID/pagemap.

use std::{
    collections::HashMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    proc::{
        maps::{AddressSpace, Vma},
        pagemap::{Frame, LookupError},
        questions::Questions,
    },
    units::{Tgid, VirtAddr},
};

/// VMAs that are older than this are read again at the next look-up: an address may have been mapped anew.
const MAX_AGE: Duration = Duration::from_secs(1);
/// After a miss, VMAs are read again at most this often.
const RETRY: Duration = Duration::from_millis(50);
/// The limit of remembered address spaces. When it is reached, all are forgotten.
const MAX_SPACES: usize = 1 << 16;

/// Known VMAs by process, and questions to processes.
#[derive(Default)]
pub struct Spaces {
    /// The VMAs, with the time of reading.
    vmas: HashMap<Tgid, (AddressSpace, Instant)>,
    questions: Questions,
    /// A buffer for the entry of one page.
    words: Vec<u64>,
}

impl Spaces {
    /// Lets the questions of a batch wait for the time that `patience` returns, together.
    pub fn wait(&mut self, patience: impl Fn() -> Duration + 'static) {
        self.questions.wait(patience);
    }

    /// Begins a batch of look-ups, which wait for silent processes for a limited time together.
    pub fn begin(&mut self) {
        self.questions.begin();
    }

    /// Whether the process does not answer: what it has is not known.
    pub fn is_silent(&self, tgid: Tgid) -> bool {
        self.questions.is_silent(tgid)
    }

    /// Forgets an address space, because the process has another one now, or has ended.
    pub fn forget(&mut self, tgid: Tgid) {
        self.vmas.remove(&tgid);
        self.questions.forget(tgid);
    }

    /// Forgets every address space: any of them may be another one now.
    pub fn forget_all(&mut self) {
        self.vmas.clear();
        self.questions.forget_all();
    }

    /// The VMA at an address; None if the address is not mapped, or the process is gone.
    pub fn vma(&mut self, tgid: Tgid, address: VirtAddr) -> Option<Arc<Vma>> {
        let found = self.vmas(tgid, MAX_AGE)?.find(address).cloned();
        match found {
            Some(vma) => Some(vma),
            None => self.vmas(tgid, RETRY)?.find(address).cloned(),
        }
    }

    /// The VMAs of a process, read again if older than `max_age`. A process that is gone, or does not answer, keeps those
    /// that were read last.
    pub fn vmas(&mut self, tgid: Tgid, max_age: Duration) -> Option<&AddressSpace> {
        let known = self.vmas.get(&tgid);
        let fresh = known.is_some_and(|(_, read)| read.elapsed() <= max_age);
        if !fresh {
            let first = known.is_none();
            if first && self.vmas.len() >= MAX_SPACES {
                self.vmas.clear();
            }
            if let Some(Ok(vmas)) = self.questions.vmas(tgid)
                && (first || vmas.iter().len() > 0)
            {
                self.vmas.insert(tgid, (vmas, Instant::now()));
            }
        }
        self.vmas.get(&tgid).map(|(vmas, _)| vmas)
    }

    /// Reads the entries of pages, sorted by address, into `entries`.
    ///
    /// # Errors
    /// The errors of [`Questions::entries`].
    pub fn lookup(&mut self, tgid: Tgid, pages: &[VirtAddr], entries: &mut Vec<u64>) -> Result<(), LookupError> {
        self.questions.entries(tgid, pages, entries)
    }

    /// The frame of one page.
    ///
    /// # Errors
    /// The errors of [`lookup`](Self::lookup).
    pub fn frame(&mut self, tgid: Tgid, page: VirtAddr) -> Result<Frame, LookupError> {
        let mut words = mem::take(&mut self.words);
        let result = self.lookup(tgid, &[page], &mut words);
        let frame = words.first().map_or(Frame::None, |&word| Frame::decode(word));
        self.words = words;
        result.map(|()| frame)
    }
}
