//! The ways to make the kernel move pages for its own reasons, on the pages of this process.
//! Input: the range; sysfs, cgroupfs, io_uring. All are for VMs only, and each restores its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::{Range, RangeInclusive};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::truth::{Moves, Snapshot};

/// Background work has moved its pages after this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Work that has moved nothing for this time has ended.
const STILL: Duration = Duration::from_secs(2);

/// `KPF_RESERVED` of /proc/kpageflags (include/linux/kernel-page-flags.h, 6.1 to 7.3).
const RESERVED: u64 = 1 << 32;

pub fn write(path: impl AsRef<Path>, value: &str) -> Result<()> {
    let path = path.as_ref();
    fs::write(path, value).with_context(|| format!("write {value:?} to {}", path.display()))
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// A setting of the kernel, for the lifetime of this value.
pub struct Knob {
    path: PathBuf,
    usual: String,
}

impl Knob {
    /// Sets it. Drop restores the old value.
    pub fn set(path: impl AsRef<Path>, value: &str) -> Result<Self> {
        let path = path.as_ref();
        let usual = read(path)?;
        write(path, value)?;
        Ok(Self {
            path: path.to_owned(),
            usual,
        })
    }

    /// Sets another value meanwhile.
    pub fn change(&self, value: &str) -> Result<()> {
        write(&self.path, value)
    }
}

impl Drop for Knob {
    fn drop(&mut self) {
        // The outcome of the case is already decided.
        let _ = write(&self.path, &self.usual);
    }
}

/// A memory block that can be taken offline (Documentation/admin-guide/mm/memory-hotplug.rst, 6.1 to 7.3).
pub struct Block {
    dir: PathBuf,
    /// Its frames.
    frames: Range<u64>,
}

impl Block {
    /// The block in a movable zone with most of these frames, and without any that was taken at boot and stays.
    pub fn of_most(frames: impl Iterator<Item = u64>) -> Result<Self> {
        let devices = Path::new("/sys/devices/system/memory");
        let bytes = u64::from_str_radix(&read(devices.join("block_size_bytes"))?, 16).context("a block's size")?;
        let per_block = bytes / rustix::param::page_size() as u64;
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for frame in frames {
            *counts.entry(frame / per_block).or_default() += 1;
        }
        let dir = |number: &u64| devices.join(format!("memory{number}"));
        // An online block has one valid zone, the one that it is in.
        counts.retain(|number, _| read(dir(number).join("valid_zones")).is_ok_and(|zone| zone == "Movable"));
        let mut best: Option<(usize, Self)> = None;
        for (number, count) in counts {
            let block = Self {
                dir: dir(&number),
                frames: number * per_block..(number + 1) * per_block,
            };
            let reserved = block.page_flags()?.iter().any(|flags| flags & RESERVED != 0);
            if !reserved && best.as_ref().is_none_or(|(most, _)| count > *most) {
                best = Some((count, block));
            }
        }
        Ok(best.context("no page in a block that can be taken offline")?.1)
    }

    /// The flags of each of its frames.
    pub fn page_flags(&self) -> Result<Vec<u64>> {
        let mut bytes = vec![0; (self.frames.end - self.frames.start) as usize * 8];
        let file = File::open("/proc/kpageflags").context("open /proc/kpageflags")?;
        file.read_exact_at(&mut bytes, self.frames.start * 8)
            .context("read /proc/kpageflags")?;
        let (words, _) = bytes.as_chunks::<8>();
        Ok(words.iter().map(|word| u64::from_ne_bytes(*word)).collect())
    }

    /// Takes it offline, which moves all its pages, and online again.
    pub fn offline(&self) -> Result<()> {
        let state = self.dir.join("state");
        // The attempt fails while another task holds a reference to one of its pages.
        let started = Instant::now();
        while let Err(error) = fs::write(&state, "offline") {
            ensure!(
                error.kind() == ErrorKind::ResourceBusy && started.elapsed() < PATIENCE,
                "take {} offline: {error}",
                self.dir.display()
            );
        }
        write(&state, "online_movable")
    }
}

/// The frames with one of these flags in /proc/kpageflags (Documentation/admin-guide/mm/pagemap.rst).
pub fn frames_with(wanted: u64) -> Result<BTreeSet<u64>> {
    let flags = fs::read("/proc/kpageflags").context("read /proc/kpageflags")?;
    let (words, _) = flags.as_chunks::<8>();
    let flags = words.iter().map(|word| u64::from_ne_bytes(*word));
    let frames = (0..).zip(flags).filter(|(_, flags)| flags & wanted != 0);
    Ok(frames.map(|(frame, _)| frame).collect())
}

/// Makes a gigabyte into one page, which moves all pages in it.
pub fn gigantic_page(node: u32) -> Result<()> {
    let knob = format!("/sys/devices/system/node/node{node}/hugepages/hugepages-1048576kB/nr_hugepages");
    write(&knob, "1")?;
    ensure!(read(&knob)? == "1", "the kernel could not make a page of a gigabyte");
    write(&knob, "0")
}

/// `MemFree` of /proc/meminfo, MiB.
pub fn free_mib() -> Result<u64> {
    let meminfo = read("/proc/meminfo")?;
    let free = meminfo.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let kib = free.context("no MemFree")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<u64>().context("parse MemFree")? >> 10)
}

/// Requests more huge pages than are free without the holes, so that this task makes room for them; enough memory is
/// left for other processes. Returns the huge pages.
pub fn direct_compaction() -> Result<()> {
    let asked = write(
        "/proc/sys/vm/nr_hugepages",
        &(free_mib()?.saturating_sub(64) / 2).to_string(),
    );
    write("/proc/sys/vm/nr_hugepages", "0")?;
    asked
}

/// Requests huge pages, one at a time, until `times` requests have found no room.
pub fn huge_pages_in_vain(times: u32) -> Result<()> {
    const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";
    let number = || -> Result<u64> { read(HUGE_PAGES)?.parse().context("parse nr_hugepages") };
    let mut in_vain = 0;
    while in_vain < times {
        let pages = number()?;
        write(HUGE_PAGES, &(pages + 1).to_string())?;
        in_vain += u32::from(number()? == pages);
    }
    Ok(())
}

/// Registers the range as a buffer of an io_uring, which pins its pages for long: pages in a movable zone have to leave
/// it first (mm/gup.c, `check_and_migrate_movable_pages` of 6.1 and its successors to 7.3). They are pinned until the
/// ring is closed.
pub fn pin_for_long(range: &Range<u64>) -> Result<OwnedFd> {
    /// `IORING_REGISTER_BUFFERS`, include/uapi/linux/io_uring.h.
    const REGISTER_BUFFERS: u32 = 0;
    // struct io_uring_params: 120 bytes.
    let mut params = [0u64; 15];
    // SAFETY: the parameters live through the call.
    let ring = checked(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1u32, params.as_mut_ptr()) })?;
    // SAFETY: a new file descriptor that nobody else has.
    let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(ring)?) };
    let buffer = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(range.start as usize),
        iov_len: (range.end - range.start) as usize,
    };
    // SAFETY: one vector over a live mapping, which outlives the ring.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_BUFFERS,
            &raw const buffer,
            1u32,
        )
    };
    checked(registered).context("register a buffer")?;
    Ok(ring)
}

/// Loads a module of the initramfs, unless it is loaded.
pub fn load_module(path: &str, options: &str) -> Result<()> {
    let module = File::open(path).with_context(|| format!("open {path}"))?;
    let options = CString::new(options)?;
    // SAFETY: a file of this function and a C string, both alive during the call.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), options.as_ptr(), 0) };
    let error = io::Error::last_os_error();
    ensure!(
        result == 0 || error.kind() == ErrorKind::AlreadyExists,
        "load {path}: {error}"
    );
    Ok(())
}

fn checked(result: i64) -> Result<i64> {
    if result < 0 {
        return Err(io::Error::last_os_error()).context("io_uring");
    }
    Ok(result)
}

/// A control group with this process in it: its memory from then on belongs to the group. Drop returns the process to
/// the root group and removes the group.
pub struct Group(PathBuf);

impl Group {
    const ROOT: &str = "/sys/fs/cgroup";

    pub fn enter(controller: &str) -> Result<Self> {
        write(
            Path::new(Self::ROOT).join("cgroup.subtree_control"),
            &format!("+{controller}"),
        )?;
        let dir = Path::new(Self::ROOT).join("provoked");
        fs::create_dir(&dir).context("make a control group")?;
        let group = Self(dir);
        if controller == "cpuset" {
            group.write("cpuset.mems", "0")?;
        }
        group.write("cgroup.procs", "0")?;
        Ok(group)
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        write(self.0.join(file), value)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A failure to undo this ends with the VM.
        let _ = write(Path::new(Self::ROOT).join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.0);
        // If groups have cpusets, a process that changes its group has its pages moved.
        let _ = write(Path::new(Self::ROOT).join("cgroup.subtree_control"), "-cpuset");
    }
}

/// Takes node 0 from a cpuset and gives it node 1: cgroup v2 moves the pages of its processes.
pub fn change_cpuset(group: &Group, range: &Range<u64>) -> Result<()> {
    let before = Snapshot::take(range.clone())?;
    group.write("cpuset.mems", "1")?;
    // The kernel moves them in the background.
    settle(&before, range)
}

/// Reclaims the group's memory, which demotes it if there is a lower tier.
pub fn demote(group: &Group, range: &Range<u64>) -> Result<()> {
    write("/sys/kernel/mm/numa/demotion_enabled", "1")?;
    // The write fails with EAGAIN if it reclaimed less.
    let _ = group.write("memory.reclaim", &((range.end - range.start) / 2).to_string());
    write("/sys/kernel/mm/numa/demotion_enabled", "0")
}

/// Runs DAMON's scheme `migrate_cold` on the frames of the range, until they have moved.
pub fn damon_migrate(range: &Range<u64>, node: u32) -> Result<()> {
    let before = Snapshot::take(range.clone())?;
    let first = before.frames().min().context("no page")?;
    let last = before.frames().max().context("no page")?;
    damon_migrate_frames(first..=last, node, || settle(&before, range))
}

/// Runs DAMON's scheme `migrate_cold` (since 6.11, mm/damon/paddr.c) on these frames repeatedly, until `ended` returns
/// (Documentation/admin-guide/mm/damon/usage.rst).
pub fn damon_migrate_frames(frames: RangeInclusive<u64>, node: u32, ended: impl FnOnce() -> Result<()>) -> Result<()> {
    // Since 6.17, another DAMON may run from the start, and there can be only one.
    let stat = Path::new("/sys/module/damon_stat/parameters/enabled");
    if stat.exists() {
        write(stat, "N")?;
    }
    let page = rustix::param::page_size() as u64;
    let (first, last) = (frames.start(), frames.end());
    let all = u32::MAX.to_string();
    let kdamonds = Path::new("/sys/kernel/mm/damon/admin/kdamonds");
    for (file, value) in [
        ("nr_kdamonds", "1"),
        ("0/contexts/nr_contexts", "1"),
        ("0/contexts/0/operations", "paddr"),
        ("0/contexts/0/monitoring_attrs/intervals/sample_us", "5000"),
        ("0/contexts/0/monitoring_attrs/intervals/aggr_us", "50000"),
        ("0/contexts/0/targets/nr_targets", "1"),
        ("0/contexts/0/targets/0/regions/nr_regions", "1"),
        ("0/contexts/0/targets/0/regions/0/start", &(first * page).to_string()),
        ("0/contexts/0/targets/0/regions/0/end", &((last + 1) * page).to_string()),
        ("0/contexts/0/schemes/nr_schemes", "1"),
        ("0/contexts/0/schemes/0/action", "migrate_cold"),
        ("0/contexts/0/schemes/0/target_nid", &node.to_string()),
        ("0/contexts/0/schemes/0/access_pattern/sz/max", &all),
        ("0/contexts/0/schemes/0/access_pattern/nr_accesses/max", &all),
        ("0/contexts/0/schemes/0/access_pattern/age/max", &all),
        ("0/state", "on"),
    ] {
        write(kdamonds.join(file), value)?;
    }
    ended()?;
    write(kdamonds.join("0/state"), "off")?;
    write(kdamonds.join("nr_kdamonds"), "0")
}

/// Waits until pages have moved and no more do.
fn settle(before: &Snapshot, range: &Range<u64>) -> Result<()> {
    let started = Instant::now();
    let (mut moved, mut since) = (0, started);
    loop {
        let now = Moves::between(before, &Snapshot::take(range.clone())?)?.len();
        if now != moved {
            (moved, since) = (now, Instant::now());
        }
        if moved > 0 && since.elapsed() > STILL {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!("{moved} pages moved in {PATIENCE:?}, and it goes on");
        }
        thread::sleep(Duration::from_millis(50));
    }
}
