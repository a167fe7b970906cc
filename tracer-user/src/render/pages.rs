//! The pages of processes as text, JSON lines and CSV: each format takes the same stream of mappings, extents and sums.
//! Input: the results of `pages`; each format writes to the writer that it was given.

pub mod csv;
pub mod help;
pub mod json;
pub mod map;
pub mod survey;
pub mod text;

use std::io;
use std::sync::Arc;

use crate::pages::extent::Extent;
use crate::pages::sums::Sums;
use crate::pages::walk::Walked;
use crate::proc::maps::Vma;
use crate::units::Tgid;

/// The process that pages belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its number.
    pub tgid: Tgid,
    /// Its name, unchanged.
    pub comm: String,
}

/// How many processes were shown, and how many could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Processes that were shown completely.
    pub whole: usize,
    /// Processes that ended before or while they were read.
    pub ended: usize,
    /// Processes that may not be read, or whose reading failed.
    pub unreadable: usize,
}

impl ProcessCounts {
    /// Whether every process was shown completely.
    pub fn complete(&self) -> bool {
        self.ended + self.unreadable == 0
    }
}

/// A destination of the stream. Processes come one after the other; each has its mappings, and each mapping its extents.
pub trait Format {
    /// Begins a process.
    ///
    /// # Errors
    /// The errors of the writer.
    fn begin(&mut self, who: &Who) -> io::Result<()>;

    /// Takes an extent: pages that have everything in common.
    ///
    /// # Errors
    /// The errors of the writer.
    fn extent(&mut self, who: &Who, vma: &Arc<Vma>, extent: &Extent) -> io::Result<()>;

    /// Ends a mapping, with the sums of its pages and the number of pages that could not be read.
    ///
    /// # Errors
    /// The errors of the writer.
    fn vma(&mut self, who: &Who, vma: &Arc<Vma>, sums: &Sums, unread: u64) -> io::Result<()>;

    /// Ends a process.
    ///
    /// # Errors
    /// The errors of the writer.
    fn end(&mut self, who: &Who, walked: &Walked, sums: &Sums) -> io::Result<()>;

    /// Ends the stream.
    ///
    /// # Errors
    /// The errors of the writer.
    fn finish(&mut self, counts: &ProcessCounts, sums: &Sums) -> io::Result<()>;
}
