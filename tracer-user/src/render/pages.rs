//! Where pages are, shown: the same stream of mappings, runs and sums as text, JSON lines, and CSV.
//! Input: what `pages` found; each format writes to what it was given.

pub mod csv;
pub mod help;
pub mod json;
pub mod map;
pub mod survey;
pub mod text;

use std::io;
use std::sync::Arc;

use crate::pages::run::Run;
use crate::pages::sums::Sums;
use crate::pages::walk::Walked;
use crate::proc::maps::Vma;
use crate::units::Tgid;

/// Whose pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The process.
    pub tgid: Tgid,
    /// Its name, as it is.
    pub comm: String,
}

/// Processes that were to be shown, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Shown whole.
    pub whole: usize,
    /// Ended before or while they were read.
    pub ended: usize,
    /// May not be read, or a read failed.
    pub unreadable: usize,
}

impl Tally {
    /// Whether nothing is missing that was there.
    pub fn complete(&self) -> bool {
        self.ended + self.unreadable == 0
    }
}

/// A destination of the stream. Processes come one after the other, each with its mappings, and in them their runs.
pub trait Format {
    /// A process begins.
    ///
    /// # Errors
    /// Those of the writer, as everywhere here.
    fn begin(&mut self, who: &Who) -> io::Result<()>;

    /// Pages that have everything in common.
    ///
    /// # Errors
    /// Those of the writer.
    fn run(&mut self, who: &Who, vma: &Arc<Vma>, run: &Run) -> io::Result<()>;

    /// A mapping is over: the sums of its pages, and how many of them could not be read.
    ///
    /// # Errors
    /// Those of the writer.
    fn vma(&mut self, who: &Who, vma: &Arc<Vma>, sums: &Sums, unread: u64) -> io::Result<()>;

    /// A process is over.
    ///
    /// # Errors
    /// Those of the writer.
    fn end(&mut self, who: &Who, walked: &Walked, sums: &Sums) -> io::Result<()>;

    /// All are over.
    ///
    /// # Errors
    /// Those of the writer.
    fn finish(&mut self, tally: &Tally, sums: &Sums) -> io::Result<()>;
}
