//! A zram disk, whose pages belong to a driver, among pages of this process, in memory that goes offline.
//! Input: the module zram and its requirements in the initramfs; on stdin any order, answered by the moves of the
//! process's pages when the block of memory with most of them went offline.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use anyhow::{Context, Result, ensure};

use super::protocol::{Workload, serve_steps};
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::machine::provoke::{self, Block};
use crate::truth::Snapshot;

pub const WORKLOAD: Workload = Workload {
    name: "zram",
    what: "zram: a zram disk and pages beside its own; any order takes their memory offline, and reports which of \
           the pages beside moved",
    run,
};

/// The module in the initramfs, if this kernel has one.
pub const MODULE: &str = "/lib/modules/zram.ko";
/// Modules of some kernels that others have built in, or do not need.
const NEEDED: [&str; 3] = ["zsmalloc", "lz4_compress", "lz4hc_compress"];
const DISK: &str = "/dev/zram0";
/// The size of the disk. Compressed, it takes more than half of that, besides the process's pages: as much of node 0 as
/// `reasons/hot_remove` takes, so that some are in the block that goes offline.
const BYTES: usize = 240 << 20;
/// The size of one write, after which the process fills some pages of its own.
const PIECE: usize = 1 << 20;
const BESIDE: usize = PIECE / 4;

fn run(args: &[String]) -> Result<()> {
    ensure!(args.is_empty(), "usage: zram");
    numa::run_on(0)?;
    if !fs::exists(DISK)? {
        for module in NEEDED {
            let path = format!("/lib/modules/{module}.ko");
            if fs::exists(&path)? {
                provoke::load_module(&path, "")?;
            }
        }
        provoke::load_module(MODULE, "")?;
    }
    provoke::write("/sys/block/zram0/disksize", &BYTES.to_string())?;
    // O_DIRECT avoids the page cache, so that this task makes zram's pages, on its node.
    let disk = File::options().write(true).custom_flags(libc::O_DIRECT).open(DISK);
    let disk = disk.with_context(|| format!("open {DISK}"))?;
    let mut piece = Memory::base_pages(PIECE)?;
    let mut beside = Memory::base_pages(BYTES / PIECE * BESIDE)?;
    let range = beside.addresses();
    let mut noise = Noise(1);
    for (index, start) in range.clone().step_by(BESIDE).enumerate() {
        noise.fill_half(&mut piece);
        disk.write_all_at(piece.bytes(), (index * PIECE) as u64)
            .with_context(|| format!("write to {DISK}"))?;
        beside.touch(&(start..start + BESIDE as u64));
    }
    serve_steps(&range, |_| {
        Block::of_most(Snapshot::take(range.clone())?.frames())?.offline()
    })?;
    drop(disk);
    // The reset frees its pages.
    provoke::write("/sys/block/zram0/reset", "1")
}

/// Numbers without a pattern (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Fills half of each page. A page that cannot be compressed at all takes a page of its own, and one that can be
    /// compressed well takes next to nothing.
    fn fill_half(&mut self, memory: &mut Memory) {
        for page in memory.bytes_mut().chunks_exact_mut(rustix::param::page_size()) {
            let (half, _) = page.split_at_mut(rustix::param::page_size() / 2);
            for word in half.chunks_exact_mut(size_of::<u64>()) {
                word.copy_from_slice(&self.next().to_ne_bytes());
            }
        }
    }
}
