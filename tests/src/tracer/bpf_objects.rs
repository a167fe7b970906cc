//! The BPF programs, links and maps that a process holds in the kernel, and whether they are freed.
//! Input: /proc/PID/fdinfo, and the kernel's lists of programs, links and maps.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The kernel frees unused objects within this time: it does so after a grace period.
const FREED: Duration = Duration::from_secs(2);

/// The BPF programs, links and maps of a process, by the numbers that the kernel gives them.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded {
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Loaded {
    /// The objects that a process holds (kernel/bpf/syscall.c, `bpf_prog_show_fdinfo` and its like, 6.1 to 7.3).
    pub fn of(pid: u32) -> Result<Self> {
        let mut held = Self {
            programs: BTreeSet::new(),
            links: BTreeSet::new(),
            maps: BTreeSet::new(),
        };
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("list tracer's files")? {
            let info = fs::read_to_string(entry?.path()).context("read about one of tracer's files")?;
            let number = |key: &str| {
                let value = info.lines().find_map(|line| line.strip_prefix(key))?;
                value.trim().parse::<u32>().ok()
            };
            // A link's file names its program too.
            if let Some(id) = number("link_id:") {
                held.links.insert(id);
            } else if let Some(id) = number("prog_id:") {
                held.programs.insert(id);
            } else if let Some(id) = number("map_id:") {
                held.maps.insert(id);
            }
        }
        ensure!(
            !held.programs.is_empty() && !held.links.is_empty() && !held.maps.is_empty(),
            "tracer holds too little to trace: {held:?}"
        );
        ensure!(
            held.remaining() == held,
            "the kernel does not list what tracer holds: {held:?}"
        );
        Ok(held)
    }

    /// The objects that the kernel still has. An object that vanishes while it is listed is freed.
    fn remaining(&self) -> Self {
        let listed = |ids: &BTreeSet<u32>, all: BTreeSet<u32>| ids.intersection(&all).copied().collect();
        Self {
            programs: listed(
                &self.programs,
                aya::programs::loaded_programs().flatten().map(|p| p.id()).collect(),
            ),
            links: listed(
                &self.links,
                aya::programs::loaded_links().flatten().map(|l| l.id()).collect(),
            ),
            maps: listed(&self.maps, aya::maps::loaded_maps().flatten().map(|m| m.id()).collect()),
        }
    }

    /// Waits until the kernel has freed the objects, and fails if it does not.
    pub fn ensure_freed(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let left = self.remaining();
            if left.programs.is_empty() && left.links.is_empty() && left.maps.is_empty() {
                return Ok(());
            }
            ensure!(started.elapsed() < FREED, "left in the kernel: {left:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
