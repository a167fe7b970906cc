//! Pages that go to swap, on a RAM disk of this VM, and come back.
//! Input: the module brd in the initramfs; the kind of pages, or the names; on stdin `mark`, then `swap`, answered by
//! the report.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::set_name;

use super::mover::{MTHP, Pages, huge_pages_of};
use super::protocol::{Workload, serve};
use crate::machine::memory::{HUGE, Memory};
use crate::machine::provoke;
use crate::truth::{Moves, Report, Snapshot};

pub const WORKLOAD: Workload = Workload {
    name: "swap",
    what: "swap [reuse|mthp|thp]: `mark`, then `swap` sends pages to swap and back; reuse: under several names",
    run,
};

/// The module in the initramfs, if this kernel has one.
pub const MODULE: &str = "/lib/modules/brd.ko";
pub const PAGES: usize = 128;
/// Twice this number of pages takes every slot.
pub const MANY_PAGES: usize = DEVICE_PAGES as usize / 2;
/// The process's name while it is requested; it has another name while it is not.
pub const ASKED_FOR: &str = "swaps-asked";
const ANOTHER: &str = "swaps-other";
const DEVICE: &str = "/dev/ram0";
const DEVICE_PAGES: u32 = 8192;
/// The size of the memory that takes the free frames, MiB.
const OTHERS: usize = 16;
/// Reclaim takes every page within this time, or never.
const PATIENCE: Duration = Duration::from_secs(30);

fn run(args: &[String]) -> Result<()> {
    let what = match args {
        [] => "base",
        [what] => what.as_str(),
        _ => bail!("usage: swap [reuse|mthp|thp]"),
    };
    let reuse = what == "reuse";
    swap_on()?;
    if reuse {
        rename(ASKED_FOR)?;
    }
    // khugepaged would bring pages back to collapse them.
    let khugepaged = "/sys/kernel/mm/transparent_hugepage/khugepaged";
    provoke::write(format!("{khugepaged}/scan_sleep_millisecs"), "1000000")?;
    let mut memory = match what {
        "base" => Memory::base_pages(PAGES * rustix::param::page_size())?,
        "reuse" => Memory::base_pages(MANY_PAGES * rustix::param::page_size())?,
        "mthp" => Pages::Mthp.map(MTHP.len() * HUGE, 0)?,
        "thp" => Pages::Thp.map(2 * HUGE, 0)?,
        other => bail!("no pages {other}"),
    };
    if what == "mthp" {
        // Folios may come back as a whole, too.
        huge_pages_of(&MTHP)?;
    }
    memory.fill();
    let range = memory.addresses();
    serve(&range, "swap", |before| {
        if !reuse {
            swap_out(&memory)?;
            swap_in(&memory)?;
            let moves = Moves::between(before, &Snapshot::take(range.clone())?)?;
            return Report::new(range.clone(), moves).to_line();
        }
        swap_out(&memory)?;
        swap_in(&memory)?;
        rename(ANOTHER)?;
        for _ in 0..2 {
            swap_out(&memory)?;
            swap_in(&memory)?;
        }
        let before = Snapshot::take(range.clone())?;
        swap_out(&memory)?;
        rename(ASKED_FOR)?;
        swap_in(&memory)?;
        let moves = Moves::between(&before, &Snapshot::take(range.clone())?)?;
        Report::new(range.clone(), moves).to_line()
    })
}

/// Sends every page to swap.
pub fn swap_out(memory: &Memory) -> Result<()> {
    let started = Instant::now();
    while Snapshot::take(memory.addresses())?.frames().next().is_some() {
        ensure!(started.elapsed() < PATIENCE, "some pages stay");
        memory.advise(libc::MADV_PAGEOUT).context("MADV_PAGEOUT")?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn swap_in(memory: &Memory) -> Result<()> {
    // Other memory takes the free frames; otherwise a page could get its own frame again.
    let mut others = Memory::base_pages(OTHERS << 20)?;
    others.fill();
    std::hint::black_box(memory.read());
    Ok(())
}

fn rename(name: &str) -> Result<()> {
    set_name(&CString::new(name)?).context("change this process's name")
}

/// Makes the RAM disk, writes mkswap(8)'s header (`union swap_header`, include/linux/swap.h), and swaps there.
pub fn swap_on() -> Result<()> {
    if !fs::exists(DEVICE)? {
        provoke::load_module(MODULE, &format!("rd_nr=1 rd_size={}", DEVICE_PAGES * 4))?;
    }
    // The swap may be of a workload before this one.
    if fs::read_to_string("/proc/swaps")
        .context("read /proc/swaps")?
        .contains(DEVICE)
    {
        return Ok(());
    }
    let device = OpenOptions::new()
        .write(true)
        .open(DEVICE)
        .with_context(|| format!("open {DEVICE}"))?;
    let mut header = [0; 4096];
    header[1024..1028].copy_from_slice(&1u32.to_le_bytes()); // version
    header[1028..1032].copy_from_slice(&(DEVICE_PAGES - 1).to_le_bytes()); // last page
    header[4086..].copy_from_slice(b"SWAPSPACE2");
    device.write_all_at(&header, 0).context("write the swap header")?;
    device.sync_all().context("write the swap header")?;
    drop(device);
    let path = CString::new(DEVICE)?;
    // SAFETY: a C string, alive during the call.
    let result = unsafe { libc::swapon(path.as_ptr(), 0) };
    ensure!(result == 0, "swapon {DEVICE}: {}", std::io::Error::last_os_error());
    Ok(())
}
