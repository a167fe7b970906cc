//! Page cache that nobody maps: a file on tmpfs, moved by taking its memory block offline.
//! Input: the size and the file's name; on stdin any order, answered by the moves.

use std::fs::{self, File};
use std::io::Write;

use anyhow::{Context, Result, bail};

use super::protocol::{Workload, next_order, say};
use crate::machine::memory::Memory;
use crate::machine::numa;
use crate::machine::provoke::Block;
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "cached",
    what: "cached MIB FILE: writes MIB of FILE; any order moves it from node 0, and reports the number of \
           moved pages that nobody maps, and the moved pages of the file by their place in it",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let [mib, path] = args else {
        bail!("usage: cached MIB FILE")
    };
    let mib = mib.parse::<usize>().context("parse MIB")?;
    let bytes = mib << 20;
    numa::run_on(0)?;
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("open {path}"))?;
    // The file is written in pieces, so that the source of a write does not take the movable memory that the file
    // needs.
    let piece = vec![1; 1 << 20];
    for _ in 0..mib {
        file.write_all(&piece).with_context(|| format!("write {path}"))?;
    }
    let _programs = programs()?;
    let before = look(&file, bytes)?;
    let block = Block::of_most(before.frames())?;
    say("ready")?;
    while next_order()?.is_some() {
        let unmapped = unmapped(&block)?;
        block.offline()?;
        let moved = Moves::between_files(&before, &look(&file, bytes)?);
        say(&format!(
            "{unmapped} {}",
            Report::new(0..bytes as u64, moved).to_line()?
        ))?;
    }
    Ok(())
}

/// The programs of the initramfs, mapped as a whole. Otherwise a process that runs one could map more of its pages at
/// any time, 16 around each missing page (mm/memory.c, `do_fault_around`), even after the unmapped pages are counted
/// and before they move.
fn programs() -> Result<Vec<Memory>> {
    let programs = fs::read_dir("/bin").context("list /bin")?;
    let mapped = programs.map(|program| {
        let path = program?.path();
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Memory::of_all_pages(&file)
    });
    mapped.collect()
}

/// The frames of the file's pages, which are mapped only for this look.
fn look(file: &File, bytes: usize) -> Result<Snapshot> {
    let memory = Memory::of_file(file, bytes)?;
    std::hint::black_box(memory.read());
    Snapshot::take(memory.addresses())
}

/// The number of page cache pages in a block that are part of no mapped folio, by /proc/kpageflags
/// (Documentation/admin-guide/mm/pagemap.rst, 6.1 to 7.3).
/// (Documentation/admin-guide/mm/pagemap.rst, 6.1 to 7.3).
fn unmapped(block: &Block) -> Result<usize> {
    /// UPTODATE and LRU.
    const CONTENT: u64 = 1 << 3 | 1 << 5;
    /// MMAP and ANON: an anonymous page without a mapping is not cache, but will be freed soon.
    const OTHERS: u64 = 1 << 11 | 1 << 12;
    let unmapped = |flags: &u64| flags & CONTENT != 0 && flags & OTHERS == 0;
    Ok(block.page_flags()?.into_iter().filter(unmapped).count())
}
