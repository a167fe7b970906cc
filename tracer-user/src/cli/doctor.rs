//! `tracer doctor`: collects the facts, examines them and prints the findings.
//! Input: /proc, /sys, the kernel's answers to each hook. An unreadable fact is itself a finding, never an error.

use std::{
    fs::{self, File},
    hint::black_box,
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::ExitCode,
    str::FromStr,
};

use anyhow::Context as _;

use crate::{
    analysis::health::{self, Btf, Caller, Facts, Hooks, OwnFrame, ProcFiles, Settings},
    cli::view,
    confinement::Means,
    kernel::{
        capabilities::Capabilities,
        config::BuildConfig,
        preemption,
        release::{self, Lockdown},
        topology::Topology,
        types::{self, KernelTypes, TypesError},
        vmstat::Vmstat,
    },
    proc::{
        pagemap::{Frame, LookupError, Pagemap},
        process,
    },
    render::json,
    source::bpf::{bases, trial},
    units::{Tgid, VirtAddr},
};

/// `PROC_USER_INIT_INO`, include/linux/proc_ns.h (6.18 and later: `USER_NS_INIT_INO`, include/uapi/linux/nsfs.h).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The options of `tracer doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 some backend works, 1 none does.")]
pub struct Args {
    /// Print one JSON object a line: one for each check, and one with the backend
    #[arg(long)]
    pub json: bool,
}

/// Runs `tracer doctor`; 0 if some backend works, 1 if none does.
///
/// # Errors
/// Only when the findings cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let health = health::examine(&collect());
    let sections = health.sections();
    if args.json {
        let mut lines = Vec::new();
        json::lines(&mut lines, &sections).context("cannot write the findings")?;
        view::print(&String::from_utf8_lossy(&lines))?;
    } else {
        view::print_sections(&sections)?;
    }
    Ok(ExitCode::from(u8::from(health.backend.is_none())))
}

fn collect() -> Facts {
    let nodes = Topology::read();
    let (btf, hooks, memory_map) = kernel_types(nodes.as_ref().ok());
    Facts {
        release: release::release(),
        arch: rustix::system::uname().machine().to_string_lossy().into_owned(),
        page_size: rustix::param::page_size() as u64,
        paging_levels: paging_levels(),
        caller: caller(),
        lockdown: Lockdown::read(),
        config: BuildConfig::read(),
        btf,
        hooks,
        memory_map,
        settings: settings(),
        confinement: Means::of_kernel(),
        proc: ProcFiles {
            own_frame: own_frame(),
            frame_files: ["kpageflags", "kpagecount", "kpagecgroup"]
                .map(|name| (name, first_word(&Path::new("/proc").join(name))))
                .into(),
            vmstat: Vmstat::read().map_err(|e| e.to_string()),
            hidepid: hidepid(&fs::read_to_string("/proc/self/mounts").unwrap_or_default()),
        },
        nodes: nodes
            .map(|topology| topology.nodes().to_vec())
            .map_err(|e| e.to_string()),
    }
}

/// The kernel's types, the trial of every hook with their offsets, and whether it is known where the kernel has its
/// `struct page`s.
fn kernel_types(topology: Option<&Topology>) -> (Result<Btf, String>, Hooks, bool) {
    let path = Path::new(types::VMLINUX);
    let config = match KernelTypes::read(path).and_then(|types| Ok((types.config()?, types))) {
        Ok((mut config, types)) => {
            config.pfn_bits = topology.map_or(0, Topology::pfn_bits);
            bases::add(&mut config);
            config.twice = preemption::preempts().into();
            Ok((config, types))
        }
        Err(TypesError::Read { source, .. }) => return (Err(source.to_string()), Hooks::NotTried, false),
        Err(error) => Err(error.to_string()),
    };
    let hooks = config.as_ref().map_or(Hooks::NotTried, |(config, types)| {
        trial::every_hook(types, config).map_or_else(|error| Hooks::Refused(error.to_string()), Hooks::Tried)
    });
    let memory_map = config.as_ref().is_ok_and(|(config, _)| config.vmemmap_base != 0);
    let types = Btf {
        bytes: fs::metadata(path).map_or(0, |metadata| metadata.len()),
        offsets: config.map(|_| ()),
    };
    (Ok(types), hooks, memory_map)
}

/// `la57` is among the flags only if the kernel uses it (arch/x86/kernel/cpu/common.c).
fn paging_levels() -> Option<u8> {
    if !cfg!(target_arch = "x86_64") {
        return None;
    }
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    Some(if flags.split_whitespace().any(|flag| flag == "la57") {
        5
    } else {
        4
    })
}

fn caller() -> Caller {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        capabilities: Capabilities::parse(status.as_bytes()),
        initial_user_namespace: match fs::metadata("/proc/self/ns/user") {
            Ok(namespace) => Some(namespace.ino() == INITIAL_USER_NAMESPACE),
            Err(_) => None,
        },
        initial_pid_namespace: process::in_initial_pid_namespace().ok(),
        seccomp: seccomp.is_some_and(|mode| mode.trim() != "0"),
    }
}

fn settings() -> Settings {
    Settings {
        unprivileged_bpf_disabled: setting("/proc/sys/kernel/unprivileged_bpf_disabled"),
        bpf_stats: setting("/proc/sys/kernel/bpf_stats_enabled"),
        numa_balancing: setting("/proc/sys/kernel/numa_balancing"),
        compaction_proactiveness: setting("/proc/sys/vm/compaction_proactiveness"),
        zone_reclaim_mode: setting("/proc/sys/vm/zone_reclaim_mode"),
        huge_pages: setting::<String>("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|words| chosen(&words)),
        demotion: setting("/sys/kernel/mm/numa/demotion_enabled"),
    }
}

fn setting<T: FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The word in brackets of "always \[madvise\] never".
fn chosen(words: &str) -> Option<String> {
    let mut words = words.split_whitespace();
    words.find_map(|word| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
}

/// The frame of a page that was touched just now, as pagemap shows it.
fn own_frame() -> OwnFrame {
    let touched = black_box(Box::new(1u8));
    let address = VirtAddr((&raw const *touched).addr() as u64);
    let mut words = Vec::new();
    let looked = Pagemap::open(Tgid(own_number())).and_then(|pagemap| pagemap.lookup(&[address], &mut words));
    match looked {
        Ok(()) => match words.first().map(|&word| Frame::decode(word)) {
            Some(Frame::Present(_)) => OwnFrame::Visible,
            Some(Frame::Hidden) => OwnFrame::Hidden,
            // The page was just moved or swapped out, or the kernel lacks CONFIG_PROC_PAGE_MONITOR.
            _ => OwnFrame::Unreadable("a page in use is shown as absent".to_owned()),
        },
        Err(LookupError::Open { source, .. } | LookupError::Read(source)) => OwnFrame::Unreadable(source.to_string()),
        Err(error @ LookupError::Silent(_)) => OwnFrame::Unreadable(error.to_string()),
        Err(LookupError::ProcessGone) => OwnFrame::Unreadable("No such file or directory (os error 2)".to_owned()),
    }
}

/// The number of this process in this /proc, which may belong to another namespace.
fn own_number() -> u32 {
    fs::read_link("/proc/self")
        .ok()
        .and_then(|link| link.to_str()?.parse().ok())
        .unwrap_or_else(std::process::id)
}

/// Checks that the file can be opened and that a word can be read.
fn first_word(path: &Path) -> Result<(), String> {
    let read = File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut [0; 8]));
    read.map_err(|e| e.to_string())
}

/// The value of `hidepid` among the options of the last mount on /proc; None if it is absent or hides nothing.
fn hidepid(mounts: &str) -> Option<String> {
    let mut fields = mounts
        .lines()
        .map(|line| line.split(' '))
        .filter_map(|mut fields| Some((fields.nth(1)?, fields.next()?, fields.next()?)));
    let (.., options) = fields.rfind(|&(point, kind, _)| point == "/proc" && kind == "proc")?;
    let value = options.split(',').find_map(|option| option.strip_prefix("hidepid="))?;
    (!matches!(value, "0" | "off")).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_on_proc_counts() {
        let mounts = "proc /proc proc rw,relatime 0 0\n/dev/vda / ext4 rw,hidepid=2 0 0\n";
        assert_eq!(hidepid(mounts), None);
        let again = format!("{mounts}proc /proc proc rw,relatime,gid=4,hidepid=invisible 0 0\nshort\n");
        assert_eq!(hidepid(&again).as_deref(), Some("invisible"));
        assert_eq!(hidepid("proc /proc proc rw,hidepid=0 0 0"), None);
    }

    #[test]
    fn the_chosen_word_stands_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(chosen("always madvise never"), None);
    }

    #[test]
    fn facts_can_be_collected_by_anyone() {
        let health = health::examine(&collect());
        assert!(!health.findings.is_empty());
        assert_eq!(health.backend.is_none(), !health.remedies.is_empty());
    }
}
