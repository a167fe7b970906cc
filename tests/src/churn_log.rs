//! The truth of many short lives: who was which process, when, under which name, and at which addresses.
//! Input: a log to which every life and its parent append lines; each life has addresses that no other ever has.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rustix::time::{ClockId, clock_gettime};

use crate::tracer::lines::MoveLine;

/// The families' names; a life is of the family that its number's remainder says.
pub const TREES: [&str; 2] = ["churn-a", "churn-b"];
/// The name of those who became another program.
pub const REBORN_NAME: &str = "reborn";
/// Pages of each life, in each phase.
pub const PAGES: u64 = 16;

const FIRST: u64 = 1 << 44;
/// How many lives there are addresses for.
const MOST: u32 = 1 << 16;
/// Addresses of one life; the second half is the second phase's.
const SPAN: u64 = 1 << 24;

/// A life before and after its exec, if it comes to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Born,
    Reborn,
}

/// Addresses that are this life's alone.
pub fn range(life: u32, phase: Phase) -> Range<u64> {
    let half = match phase {
        Phase::Born => 0,
        Phase::Reborn => SPAN / 2,
    };
    let start = FIRST + u64::from(life) * SPAN + half;
    start..start + PAGES * rustix::param::page_size() as u64
}

/// Whose address it is, if any life's.
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

/// Where the truth is written, line by line, by all at once.
pub struct Log(File);

impl Log {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().append(true).create(true).open(path);
        Ok(Self(file.with_context(|| format!("open {}", path.display()))?))
    }

    /// A life has begun between `before` and now.
    pub fn born(&self, life: u32, pid: u32, before: u64) -> Result<()> {
        self.line(&format!("born {life} {pid} {before}"))
    }

    /// From now on it may have pages in its range.
    pub fn there(&self, life: u32, phase: Phase) -> Result<()> {
        let phase = match phase {
            Phase::Born => 0,
            Phase::Reborn => 1,
        };
        self.line(&format!("there {life} {phase} {}", now()))
    }

    /// From now on it may be another program.
    pub fn leaves(&self, life: u32) -> Result<()> {
        self.line(&format!("leaves {life} {}", now()))
    }

    /// It has ended before now.
    pub fn died(&self, life: u32) -> Result<()> {
        self.line(&format!("died {life} {}", now()))
    }

    /// One write, so that lines of several processes do not mix.
    fn line(&self, line: &str) -> Result<()> {
        (&self.0)
            .write_all(format!("{line}\n").as_bytes())
            .context("write the log")
    }
}

impl MoveLine {
    /// Who moves pages holds on to the address space: it may outlive the exec that gave it up, and the process. The exact
    /// backend says so; the other one knows such a page by its earlier move.
    fn outlives(&self) -> bool {
        matches!(self.owner_source.as_deref(), Some("kernel_exiting" | "chain"))
    }
}

/// What is known of one life. Times as [`now`]; 0: not told.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    pid: u32,
    begin: u64,
    there: [u64; 2],
    /// From then on it may have had its later name.
    leaves: u64,
    end: u64,
}

/// All lives.
pub struct Lives(BTreeMap<u32, Life>);

/// What was found in the lines of a trace.
#[derive(Debug, Default)]
pub struct Found {
    /// Pages in the range of a life that were that life's.
    pub pages: u64,
    /// Of those, with the name.
    pub named: u64,
    /// Pages in the range of a life without an owner.
    pub unowned: u64,
    /// Of those, moved after their process's end.
    pub outlived: u64,
    /// Lives with a page.
    pub lives: usize,
    /// Numbers under which more than one of these lived.
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

    /// Holds every line against the lives: a page in the range of a life is that life's, at that time and under that
    /// name; any other page of a process that is no life's at that time must be of one of `others`.
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
            // It may end between the moment when its mapping is looked at and the one when that is in place again.
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
                // Who moves a page holds on to the address space of the old program while the new one takes over.
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

    /// Whether there was a life of this number at that time, or had been.
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

    /// A page of the second life, moved at that time, said to be of that process under that name.
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
