//! The truth of many short lives: the process, the time, the name and the addresses of each.
//! Input: a log to which every life and its parent append lines; each life has addresses that no other life ever has.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::time::{ClockId, clock_gettime};

use crate::tracer::lines::MoveLine;

/// The families' names. A life is of the family that the remainder of its number selects.
pub const TREES: [&str; 2] = ["churn-a", "churn-b"];
/// The name of lives that became another program.
pub const REBORN_NAME: &str = "reborn";
/// Pages of each life in each phase.
pub const PAGES: u64 = 16;

const FIRST: u64 = 1 << 44;
/// The number of lives for which there are addresses.
const MOST: u32 = 1 << 16;
/// The size of one life's addresses; the second half is for the second phase.
const SPAN: u64 = 1 << 24;

/// A life before and after its exec, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Born,
    Reborn,
}

/// The addresses that only this life uses.
pub fn range(life: u32, phase: Phase) -> Range<u64> {
    let half = match phase {
        Phase::Born => 0,
        Phase::Reborn => SPAN / 2,
    };
    let start = FIRST + u64::from(life) * SPAN + half;
    start..start + PAGES * rustix::param::page_size() as u64
}

/// The life that an address belongs to, if any.
fn owner(vaddr: u64) -> Option<(u32, Phase)> {
    let offset = vaddr.checked_sub(FIRST)?;
    let life = u32::try_from(offset / SPAN).ok().filter(|life| *life < MOST)?;
    let phases = [Phase::Born, Phase::Reborn];
    let phase = phases.into_iter().find(|phase| range(life, *phase).contains(&vaddr))?;
    Some((life, phase))
}

/// CLOCK_MONOTONIC, ns.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// The file of the truth, to which all lives append lines at the same time.
pub struct Log(File);

impl Log {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().append(true).create(true).open(path);
        Ok(Self(file.with_context(|| format!("open {}", path.display()))?))
    }

    /// Records that a life has begun between `before` and now.
    pub fn born(&self, life: u32, pid: u32, before: u64) -> Result<()> {
        self.line(&format!("born {life} {pid} {before}"))
    }

    /// Records that from now on it may have pages in its range.
    pub fn there(&self, life: u32, phase: Phase) -> Result<()> {
        let phase = match phase {
            Phase::Born => 0,
            Phase::Reborn => 1,
        };
        self.line(&format!("there {life} {phase} {}", now()))
    }

    /// Records that from now on it may be another program.
    pub fn leaves(&self, life: u32) -> Result<()> {
        self.line(&format!("leaves {life} {}", now()))
    }

    /// Records that it has ended before now.
    pub fn died(&self, life: u32) -> Result<()> {
        self.line(&format!("died {life} {}", now()))
    }

    /// Appends a line in one write, so that lines of several processes do not mix.
    fn line(&self, line: &str) -> Result<()> {
        (&self.0)
            .write_all(format!("{line}\n").as_bytes())
            .context("write the log")
    }
}

impl MoveLine {
    /// Whether the address space may outlive the exec that replaced it, and the process: a task that moves its pages
    /// holds a reference to it. The exact backend reports that; the other backend knows such a page by its earlier
    /// move.
    fn outlives(&self) -> bool {
        matches!(self.owner_source.as_deref(), Some("kernel_exiting" | "chain"))
    }
}

/// The facts about one life. Times are as in [`now`]; 0: not recorded.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    pid: u32,
    begin: u64,
    there: [u64; 2],
    /// From then on, it may have had its later name.
    leaves: u64,
    end: u64,
}

/// All lives.
pub struct Lives(BTreeMap<u32, Life>);

/// The sums over the lines of a trace.
#[derive(Debug, Default)]
pub struct Found {
    /// Pages in the range of a life that were reported as that life's.
    pub pages: u64,
    /// Pages among them that were reported with the name.
    pub named: u64,
    /// Pages in the range of a life without an owner.
    pub unowned: u64,
    /// Pages that moved after the end of their process.
    pub outlived: u64,
    /// Lives with a page.
    pub lives: usize,
    /// Numbers that more than one of these lives had.
    pub reused: usize,
}

impl Lives {
    /// Reads the log.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lives: BTreeMap<u32, Life> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let life = words.get(1).with_context(|| format!("no life in {line:?}"))?;
            let life = lives
                .entry(life.parse().with_context(|| format!("no life in {line:?}"))?)
                .or_default();
            let number = |word: &str| word.parse::<u64>().with_context(|| format!("no number in {line:?}"));
            match words[..] {
                ["born", _, pid, at] => (life.pid, life.begin) = (u32::try_from(number(pid)?)?, number(at)?),
                ["there", _, "0", at] => life.there[0] = number(at)?,
                ["there", _, "1", at] => life.there[1] = number(at)?,
                ["leaves", _, at] => life.leaves = number(at)?,
                ["died", _, at] => life.end = number(at)?,
                _ => bail!("not a line of the log: {line:?}"),
            }
        }
        let whole = |life: &Life| life.pid > 0 && life.begin > 0 && life.end > 0;
        ensure!(lives.values().all(whole), "a life without begin or end");
        Ok(Self(lives))
    }

    /// Numbers that more than one life had.
    pub fn reused(&self) -> usize {
        reused(self.0.values())
    }

    /// Compares every line with the lives. A page in the range of a life must belong to that life, at that time and
    /// under that name. Any other page must be of a process that is a life at that time, or of one of `others`.
    pub fn check(&self, lines: &[MoveLine], others: Option<&[u32]>) -> Result<Found> {
        let mut found = Found::default();
        let mut seen: BTreeMap<u32, Life> = BTreeMap::new();
        for line in lines {
            let Some((number, phase)) = owner(line.vaddr.0) else {
                let known = |pid| others.is_none_or(|others| others.contains(&pid) || self.lived(pid, line));
                ensure!(line.pid.is_none_or(known), "a process that was not: {line:?}");
                continue;
            };
            let life = self.0.get(&number).with_context(|| format!("no such life: {line:?}"))?;
            let Some(pid) = line.pid else {
                found.unowned += line.pages;
                continue;
            };
            ensure!(pid == life.pid, "of another process, not of {life:?}: {line:?}");
            let from = life.there[usize::from(phase == Phase::Reborn)];
            let outlived = line.outlives();
            // It may end after its mapping is looked at and before the mapping is restored.
            let over = outlived || line.verdict == "process_gone";
            ensure!(
                from > 0 && from <= line.ts_ns && (over || line.ts_ns <= life.end),
                "at another time, not of {life:?}: {line:?}"
            );
            found.outlived += u64::from(line.ts_ns > life.end) * line.pages;
            let name = match phase {
                Phase::Born => TREES[number as usize % TREES.len()],
                Phase::Reborn => REBORN_NAME,
            };
            if let Some(comm) = &line.comm {
                // A task that moves a page holds the address space of the old program while the new program takes over.
                let renamed = life.leaves > 0 && line.ts_ns >= life.leaves && comm == REBORN_NAME;
                ensure!(
                    comm == name || renamed,
                    "under another name, not {name} of {life:?}: {line:?}"
                );
                found.named += line.pages;
            }
            if let Some(vma) = &line.vma {
                let range = range(number, phase);
                ensure!(
                    (vma.start.0, vma.end.0) == (range.start, range.end),
                    "another mapping: {line:?}"
                );
            }
            found.pages += line.pages;
            seen.insert(number, *life);
        }
        found.lives = seen.len();
        found.reused = reused(seen.values());
        Ok(found)
    }

    /// Whether a life of this number existed at that time, or before it and its address space may have outlived it.
    fn lived(&self, pid: u32, line: &MoveLine) -> bool {
        let mut lives = self
            .0
            .values()
            .filter(|life| life.pid == pid && life.begin <= line.ts_ns);
        lives.any(|life| line.outlives() || line.ts_ns <= life.end)
    }
}

fn reused<'a>(lives: impl Iterator<Item = &'a Life>) -> usize {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for life in lives {
        *counts.entry(life.pid).or_default() += 1;
    }
    counts.values().filter(|count| **count > 1).count()
}

#[cfg(test)]
mod tests {
    use super::{Lives, MoveLine, Phase, owner, range};

    #[test]
    fn an_address_tells_whose_it_is() {
        let start = range(7, Phase::Reborn).start;
        assert_eq!(owner(start), Some((7, Phase::Reborn)));
        assert_eq!(owner(start - 1), None);
        assert_eq!(owner(range(7, Phase::Born).end), None);
        assert_eq!(owner(0x40_0000), None);
        assert_eq!(owner(0x7fff_0000_0000), None);
    }

    #[test]
    fn a_number_may_have_several_lives() -> anyhow::Result<()> {
        let lives =
            Lives::parse("born 0 301 5\nthere 0 0 6\ndied 0 7\nborn 1 301 8\ndied 1 9\nborn 2 302 8\ndied 2 9\n")?;
        assert_eq!(lives.reused(), 1);
        assert!(Lives::parse("born 0 301 5\n").is_err());
        Ok(())
    }

    /// A line with a page of the second life, moved at that time, reported for that process under that name.
    fn line(pid: u32, comm: &str, at: u64) -> anyhow::Result<MoveLine> {
        let vaddr = range(1, Phase::Born).start;
        Ok(serde_json::from_value(serde_json::json!({
            "ts_ns": at, "pid": pid, "comm": comm, "vaddr": format!("{vaddr:#x}"), "pages": 1, "order": 0,
            "old_pfn": "0x1", "new_pfn": "0x2", "old_node": 0, "new_node": 1, "reason": "compaction",
            "actor_pid": 1, "actor_tid": 1, "actor_comm": null, "blackout_ns": null, "vma": null,
            "verdict": "confirmed", "owner_source": "kernel", "cpu": 0,
        }))?)
    }

    #[test]
    fn an_event_of_a_wrong_process_is_found() -> anyhow::Result<()> {
        let log = "born 0 301 5\nthere 0 0 6\ndied 0 7\nborn 1 302 8\nthere 1 0 9\ndied 1 12\n";
        let lives = Lives::parse(log)?;
        let holds = |pid, comm, at| Ok::<_, anyhow::Error>(lives.check(&[line(pid, comm, at)?], None).is_ok());
        assert!(holds(302, "churn-b", 10)?);
        assert!(!holds(301, "churn-b", 10)?, "another process");
        assert!(!holds(302, "churn-a", 10)?, "another name");
        let exec = Lives::parse(&format!("{log}leaves 1 10\n"))?;
        let holds_then = |at| Ok::<_, anyhow::Error>(exec.check(&[line(302, "reborn", at)?], None).is_ok());
        assert!(holds_then(10)? && !holds_then(9)?, "a later name");
        assert!(
            !holds(302, "churn-b", 8)? && !holds(302, "churn-b", 13)?,
            "another time"
        );
        Ok(())
    }
}
