//! The moves that really happened: the differences between two looks of a process at its own page tables.
//! Input: /proc/PID/pagemap. The text form is one JSON line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// `PM_PFRAME_MASK` and `PM_PRESENT` of fs/proc/task_mmu.c, 6.1 to 7.3.
const PFRAME_MASK: u64 = (1 << 55) - 1;
const PRESENT: u64 = 1 << 63;

/// The frames behind a range of addresses at one moment, page by page.
pub struct Snapshot {
    start: u64,
    frames: Vec<Option<u64>>,
}

impl Snapshot {
    /// Looks at this process's own memory.
    ///
    /// # Errors
    /// When pagemap cannot be read, or hides the frames (without CAP_SYS_ADMIN it shows frame 0).
    pub fn take(range: Range<u64>) -> Result<Self> {
        let pagemap = File::open("/proc/self/pagemap").context("open /proc/self/pagemap")?;
        Self::of(&pagemap, range)
    }

    /// Looks at the memory of the process whose pagemap this is.
    ///
    /// # Errors
    /// As [`Snapshot::take`].
    pub fn of(pagemap: &File, range: Range<u64>) -> Result<Self> {
        let frames = frames(pagemap, range.clone())?;
        ensure!(
            !frames.contains(&Some(0)),
            "pagemap hides the frames: this needs CAP_SYS_ADMIN"
        );
        Ok(Self {
            start: range.start,
            frames,
        })
    }

    /// The frame behind an address of the range.
    pub fn frame_at(&self, vaddr: u64) -> Option<u64> {
        let page = (vaddr - self.start) / rustix::param::page_size() as u64;
        *self.frames.get(usize::try_from(page).ok()?)?
    }

    /// The frames of all pages that are present.
    pub fn frames(&self) -> impl Iterator<Item = u64> {
        self.frames.iter().copied().flatten()
    }

    /// Whether every `pages` neighbours lie in neighbouring frames that begin at a multiple of `pages`.
    pub fn in_runs_of(&self, pages: usize) -> bool {
        self.frames.chunks(pages).all(|run| {
            let Some(&Some(first)) = run.first() else { return false };
            first.is_multiple_of(pages as u64) && (first..).zip(run).all(|(expected, frame)| *frame == Some(expected))
        })
    }
}

/// The frame of every page in the range; `None` where no page is present.
fn frames(pagemap: &File, range: Range<u64>) -> Result<Vec<Option<u64>>> {
    let page = rustix::param::page_size() as u64;
    let count = usize::try_from((range.end - range.start).div_ceil(page)).context("the range is too large")?;
    let mut bytes = vec![0; count * 8];
    pagemap
        .read_exact_at(&mut bytes, range.start / page * 8)
        .context("read pagemap")?;
    let (entries, _) = bytes.as_chunks::<8>();
    Ok(entries.iter().map(|entry| frame(u64::from_ne_bytes(*entry))).collect())
}

fn frame(entry: u64) -> Option<u64> {
    (entry & PRESENT != 0).then_some(entry & PFRAME_MASK)
}

/// A count of the kernel in /proc/vmstat (mm/vmstat.c, `vmstat_text`), 6.1 to 7.3.
///
/// # Errors
/// Also when this kernel has no count of that name.
pub fn vmstat(name: &str) -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat").context("read /proc/vmstat")?;
    let mut lines = vmstat.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.with_context(|| format!("/proc/vmstat has no {name}"))?;
    value.parse().with_context(|| format!("parse {name}"))
}

/// The old and the new frame of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub old: u64,
    pub new: u64,
}

/// The pages that have another frame now, by their virtual address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moves(pub BTreeMap<u64, Move>);

impl Moves {
    /// Finds pages that are present in both snapshots with different frames. A page that was swapped out and in counts
    /// too.
    pub fn between(before: &Snapshot, after: &Snapshot) -> Result<Self> {
        ensure!(before.start == after.start, "the snapshots are of different ranges");
        let page = rustix::param::page_size() as u64;
        let addresses = (before.start..).step_by(rustix::param::page_size());
        let pairs = before.frames.iter().zip(&after.frames);
        ensure!(
            before.start.is_multiple_of(page),
            "the range starts within a page: {:#x}",
            before.start
        );
        let moved = addresses.zip(pairs).filter_map(|(vaddr, pair)| match pair {
            (Some(old), Some(new)) if old != new => Some((vaddr, Move { old: *old, new: *new })),
            _ => None,
        });
        Ok(Self(moved.collect()))
    }

    /// Compares a file's pages, which are mapped elsewhere each time, by their place in the file, bytes.
    pub fn between_files(before: &Snapshot, after: &Snapshot) -> Self {
        let offsets = (0u64..).step_by(rustix::param::page_size());
        let pairs = before.frames.iter().zip(&after.frames);
        let moved = offsets.zip(pairs).filter_map(|(offset, pair)| match pair {
            (Some(old), Some(new)) if old != new => Some((offset, Move { old: *old, new: *new })),
            _ => None,
        });
        Self(moved.collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The report of a workload on a range of its memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// First address of the range, and the one behind its last.
    pub start: u64,
    pub end: u64,
    pub moves: Moves,
    /// By address how long the first write to the page took, ns; where the workload took the time.
    #[serde(default)]
    pub waits: BTreeMap<u64, u64>,
}

impl Report {
    /// The moves within a range of addresses.
    pub fn new(range: Range<u64>, moves: Moves) -> Self {
        Self {
            start: range.start,
            end: range.end,
            moves,
            waits: BTreeMap::new(),
        }
    }

    /// The report on a part of the range.
    pub fn within(&self, part: Range<u64>) -> Self {
        let moves = self.moves.0.range(part.clone());
        Self::new(part, Moves(moves.map(|(vaddr, moved)| (*vaddr, *moved)).collect()))
    }

    /// One JSON line, without its newline.
    pub fn to_line(&self) -> Result<String> {
        serde_json::to_string(self).context("write the report as JSON")
    }

    /// The opposite of [`Report::to_line`].
    pub fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line).with_context(|| format!("this is no report: {line}"))
    }

    pub fn range(&self) -> Range<u64> {
        self.start..self.end
    }
}

/// The reports of all processes that map the same memory, by their pids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reports(pub Vec<(u32, Report)>);

impl Reports {
    /// The report of one process alone.
    pub fn only_of(mut self, pid: u32) -> Result<Self> {
        self.0.retain(|(of, _)| *of == pid);
        ensure!(self.0.len() == 1, "no report of {pid}");
        Ok(self)
    }

    /// One JSON line, without its newline.
    pub fn to_line(&self) -> Result<String> {
        serde_json::to_string(self).context("write the reports as JSON")
    }

    /// The opposite of [`Reports::to_line`].
    pub fn parse(line: &str) -> Result<Self> {
        serde_json::from_str(line).with_context(|| format!("these are no reports: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Move, Moves, Report, Snapshot, frame};

    #[test]
    fn an_entry_is_a_frame_only_when_present() {
        assert_eq!(frame(1 << 63 | 1 << 55 | 0x1234), Some(0x1234));
        assert_eq!(frame(1 << 62 | 0x1234), None);
    }

    #[test]
    fn only_pages_present_twice_can_have_moved() -> anyhow::Result<()> {
        let page = rustix::param::page_size() as u64;
        let before = Snapshot {
            start: page,
            frames: vec![Some(1), Some(2), None, Some(4)],
        };
        let after = Snapshot {
            start: page,
            frames: vec![Some(1), Some(9), Some(3), None],
        };
        let moves = Moves::between(&before, &after)?;
        assert_eq!(
            moves.0.into_iter().collect::<Vec<_>>(),
            [(2 * page, Move { old: 2, new: 9 })]
        );
        Ok(())
    }

    #[test]
    fn a_line_comes_back_as_it_was() -> anyhow::Result<()> {
        let moves = Moves([(0x7f00_0000_0000, Move { old: 1, new: 2 })].into());
        let report = Report::new(0x7f00_0000_0000..0x7f00_0000_1000, moves);
        assert_eq!(Report::parse(&report.to_line()?)?, report);
        assert!(Report::parse("ready").is_err());
        Ok(())
    }
}
