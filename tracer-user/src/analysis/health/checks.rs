//! The checks, one function each: they turn facts into findings for the person who has to act on them.
//! Input: the facts.

use super::{
    facts::{Btf, Caller, Facts, Hooks, OwnFrame, Settings, outcome},
    finding::{Finding, Status},
};
use crate::{
    confinement::Means,
    kernel::{
        capabilities::Capability,
        hooks::Hook,
        release::{Lockdown, Version},
        topology::Node,
        vmstat::Vmstat,
    },
    run::{backend::Backend, coverage::Owners},
    source::bpf::{
        attach::{NO_BASES, Refusal},
        trial::Tried,
    },
    units::PAGE_SIZE,
    words::quantity::Bytes,
};

/// The first kernel whose tracepoints report single mappings: `set_migration_pte`, `remove_migration_pte` and their
/// pmd variants (include/trace/events/{migrate,thp}.h).
const FIRST_KERNEL: Version = Version(6, 1, 0);
/// The first kernel that charges BPF memory to the cgroup and ignores RLIMIT_MEMLOCK.
const MEMLOCK_UNTIL: Version = Version(5, 11, 0);

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EOPNOTSUPP: i32 = 95;
/// The kernel's internal "not supported" (include/linux/errno.h), which trampolines return to user space.
const ENOTSUPP: i32 = 524;

/// The only required check whose failure need not prevent tracing: of all capabilities only CAP_SYS_ADMIN is required.
pub(super) const PRIVILEGES: &str = "privileges";

/// Tracing needs CAP_SYS_ADMIN: it implies CAP_BPF and CAP_PERFMON (include/linux/capability.h, `bpf_capable`,
/// `perfmon_capable`), and frame numbers require it.
pub(super) fn may_trace(caller: Caller) -> bool {
    caller.initial_user_namespace != Some(false)
        && caller.capabilities.is_some_and(|held| held.has(Capability::SysAdmin))
}

/// Whether the caller's capabilities are enough for BPF; None if they are not known.
fn may_attach(caller: Caller) -> Option<bool> {
    let held = caller.capabilities?;
    let enough = held.has(Capability::SysAdmin) || (held.has(Capability::Bpf) && held.has(Capability::Perfmon));
    Some(enough && caller.initial_user_namespace != Some(false))
}

pub(super) fn kernel(facts: &Facts) -> Finding {
    const NAME: &str = "kernel";
    let paging = facts
        .paging_levels
        .map_or_else(String::new, |levels| format!(", {levels}-level paging"));
    let found = format!(
        "{}, {}{paging}, {} KiB pages",
        facts.release,
        facts.arch,
        facts.page_size >> 10
    );
    if facts.page_size != PAGE_SIZE {
        return Finding::missing(NAME, found)
            .loses("correct addresses and sizes: tracer counts in pages of 4 KiB")
            .remedy("boot a kernel with 4 KiB pages");
    }
    if facts.arch != "x86_64" {
        return Finding::note(NAME, found)
            .loses("frame numbers of the tracepoint backend: it decodes page tables of x86_64");
    }
    match Version::parse(&facts.release) {
        None => Finding::new(NAME, Status::Unknown, found),
        Some(version) if version < FIRST_KERNEL => Finding::note(NAME, found)
            .loses("the tracepoint backend: it is tested from 6.1 on")
            .remedy("boot Linux 6.1 or later"),
        Some(_) => Finding::ok(NAME, found),
    }
}

pub(super) fn privileges(facts: &Facts) -> Finding {
    const NAME: &str = PRIVILEGES;
    let caller = facts.caller;
    let who = match caller.uid {
        0 => "root".to_owned(),
        uid => format!("user {uid}"),
    };
    let Some(held) = caller.capabilities else {
        return Finding::unknown(NAME, "/proc/self/status does not list the capabilities").remedy("mount /proc");
    };
    if caller.initial_user_namespace == Some(false) {
        return Finding::missing(
            NAME,
            format!("{who} of a user namespace: its capabilities do not hold for the machine"),
        )
        .loses("everything: the kernel takes no BPF programs and shows no frame numbers")
        .remedy("run tracer as root on the host, not in a rootless container");
    }
    let lacking: Vec<Capability> = BY_WEIGHT.into_iter().filter(|&c| !held.has(c)).collect();
    if lacking.is_empty() {
        return Finding::ok(NAME, format!("{who}, with every capability that matters"));
    }
    let costs: Vec<(Capability, Option<&str>)> = lacking.iter().map(|&c| (c, cost(facts, c))).collect();
    let named = |wanted: bool| {
        let names: Vec<String> = costs
            .iter()
            .filter(|(_, cost)| cost.is_some() == wanted)
            .map(|(capability, _)| capability.to_string())
            .collect();
        names.join(", ")
    };
    let (needed, idle) = (named(true), named(false));
    let found = match (needed.is_empty(), idle.is_empty()) {
        (true, _) => format!("{who}, without {idle} (not needed)"),
        (false, true) => format!("{who}, without {needed}"),
        (false, false) => format!("{who}, without {needed} (and {idle}, not needed)"),
    };
    if needed.is_empty() {
        return Finding::ok(NAME, found);
    }
    let losses: Vec<String> = costs
        .iter()
        .filter_map(|(capability, cost)| Some(format!("{} ({capability})", (*cost)?)))
        .collect();
    let remedy = if caller.uid == 0 {
        "add these capabilities: --privileged or --cap-add for a container, CapabilityBoundingSet= for a service"
    } else {
        "run with sudo"
    };
    let everything = if may_trace(caller) {
        ""
    } else {
        "everything; in particular "
    };
    Finding::missing(NAME, found)
        .loses(format!("{everything}{}", losses.join(", ")))
        .remedy(remedy)
}

/// The capabilities; the ones that cost most to lack come first.
const BY_WEIGHT: [Capability; 8] = [
    Capability::SysAdmin,
    Capability::Bpf,
    Capability::Perfmon,
    Capability::SysPtrace,
    Capability::DacReadSearch,
    Capability::DacOverride,
    Capability::SysResource,
    Capability::Syslog,
];

/// The loss without a capability; None if nothing is lost.
fn cost(facts: &Facts, capability: Capability) -> Option<&'static str> {
    let held = |other| facts.caller.capabilities.is_some_and(|all| all.has(other));
    let admin = held(Capability::SysAdmin);
    match capability {
        Capability::SysAdmin => Some("frame numbers"),
        Capability::Bpf => (!admin).then_some("loading of BPF programs"),
        Capability::Perfmon => (!admin).then_some("their hooks"),
        Capability::SysPtrace => Some("memory maps of other users' processes"),
        // Either of the two opens files for reading.
        Capability::DacReadSearch => (!held(Capability::DacOverride)).then_some("pagemap of other users' processes"),
        Capability::SysResource => Version::parse(&facts.release)
            .is_some_and(|version| version < MEMLOCK_UNTIL)
            .then_some("more locked memory for BPF maps than ulimit -l allows, before Linux 5.11"),
        // CAP_DAC_OVERRIDE matters only in place of CAP_DAC_READ_SEARCH, CAP_KILL to a COMMAND that changes its user;
        // kernel addresses are not read.
        Capability::DacOverride | Capability::Kill | Capability::Syslog => None,
    }
}

pub(super) fn pid_namespace(caller: Caller) -> Finding {
    const NAME: &str = "PID namespace";
    match caller.initial_pid_namespace {
        Some(true) => Finding::ok(NAME, "the machine's own"),
        Some(false) => Finding::missing(NAME, "one of its own (a container?)")
            .loses("everything: the kernel's process numbers mean nothing in it")
            .remedy("run tracer on the host, or the container with --pid=host"),
        None => Finding::unknown(NAME, "/proc/self/ns/pid cannot be read").remedy("mount /proc"),
    }
}

pub(super) fn lockdown(lockdown: Lockdown) -> Finding {
    const NAME: &str = "lockdown";
    match lockdown {
        Lockdown::None => Finding::ok(NAME, "none"),
        Lockdown::Integrity => Finding::note(NAME, "integrity: mainline refuses none of tracer's hooks for it"),
        Lockdown::Confidentiality => Finding::note(
            NAME,
            "confidentiality: the kernel refuses kprobes, /proc/kcore, and BPF programs that read its memory",
        ),
        Lockdown::Unknown => Finding::unknown(NAME, "only root may see it, or the kernel has none"),
    }
}

/// Options that hooks of the exact backend need to attach, and those hooks.
const OPTIONS: [(&str, &str); 5] = [
    ("BPF_JIT", "function hooks"),
    ("FUNCTION_TRACER", "function hooks"),
    ("DYNAMIC_FTRACE_WITH_DIRECT_CALLS", "function hooks"),
    ("KPROBES", "kprobe/migrate_pages"),
    ("BPF_EVENTS", "kprobe/migrate_pages"),
];

pub(super) fn configuration(facts: &Facts) -> Finding {
    const NAME: &str = "configuration";
    let Some(config) = &facts.config else {
        let files = format!("neither /proc/config.gz nor /boot/config-{} can be read", facts.release);
        return Finding::unknown(NAME, &files);
    };
    let lacking = OPTIONS.iter().filter(|(option, _)| !config.has(option));
    let (options, mut hooks): (Vec<String>, Vec<&str>) = lacking
        .map(|(option, hooks)| (format!("CONFIG_{option}"), *hooks))
        .unzip();
    if options.is_empty() {
        return Finding::ok(NAME, format!("{}: every option that hooks need", config.file));
    }
    hooks.dedup();
    let options = options.join(", ");
    Finding::note(NAME, format!("{}: without {options}", config.file))
        .loses(hooks.join("; "))
        .remedy(format!("boot a kernel built with {options}"))
}

pub(super) fn btf(facts: &Facts) -> Finding {
    const NAME: &str = "BTF";
    match &facts.btf {
        Err(why) => Finding::missing(NAME, format!("/sys/kernel/btf/vmlinux: {why}"))
            .loses("everything: tracer takes every structure offset of the kernel from it")
            .remedy("boot a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount /sys into it"),
        Ok(Btf { offsets: Err(why), .. }) => Finding::missing(NAME, why.clone())
            .loses("everything: tracer does not guess an offset")
            .remedy("boot another kernel: one from 6.1 to 7.3, built with CONFIG_MEMCG=y and CONFIG_MIGRATION=y"),
        Ok(Btf { bytes, .. }) => Finding::ok(
            NAME,
            format!(
                "/sys/kernel/btf/vmlinux, {}; every needed structure member is in it",
                Bytes(*bytes)
            ),
        ),
    }
}

/// One backend's hooks: how many attach, and the refusals by reason.
pub(super) fn hooks(facts: &Facts, backend: Backend, usable: &[Backend]) -> Finding {
    let name = backend.name();
    let tried = match &facts.hooks {
        Hooks::NotTried => return Finding::unknown(name, "the programs need the kernel's structure offsets (BTF)"),
        Hooks::Refused(_) if may_attach(facts.caller) == Some(false) => {
            return Finding::unknown(name, "without the privileges above the kernel takes no BPF programs");
        }
        Hooks::Refused(reason) => {
            let remedy = if facts.caller.seccomp {
                "allow bpf() in the container's seccomp filter (--privileged, or --security-opt seccomp=unconfined)"
            } else if reason.contains("os error 12)") {
                "raise the memory limit of this cgroup, or free memory"
            } else {
                "see what forbids bpf() to root: lockdown=confidentiality, a security module, a kernel without CONFIG_BPF_SYSCALL (dmesg may say so)"
            };
            return Finding::missing(name, reason.clone())
                .loses("everything: tracer sees no page move without BPF")
                .remedy(remedy);
        }
        Hooks::Tried(tried) => tried,
    };
    let wanted: Vec<&Tried> = backend
        .hooks(backend.coverage().kinds)
        .filter_map(|hook| outcome(tried, hook))
        .collect();
    let refused: Vec<&Refusal> = wanted.iter().filter_map(|tried| tried.refusal.as_ref()).collect();
    let count = format!("{} of {} hooks attach", wanted.len() - refused.len(), wanted.len());
    if refused.is_empty() {
        return match backend.coverage().owners.with_memory_map(facts.memory_map) {
            Owners::Pagemap => Finding::note(name, format!("{count}; owners by pagemap"))
                .loses("owners of pages that are gone a moment after their move; every traced process is searched")
                .remedy(KERNEL_WITH_BASES),
            Owners::ReverseMapping => Finding::ok(name, format!("{count}; owners by the reverse mapping")),
            Owners::Kernel => Finding::ok(name, count),
        };
    }
    let found = by_reason(&refused).into_iter().fold(count, |text, (reason, hooks)| {
        let labels: Vec<String> = hooks.iter().map(|hook| hook.label()).collect();
        format!("{text}; {}: {reason}", labels.join(", "))
    });
    if usable.contains(&backend) {
        let losses: Vec<&str> = refused.iter().filter_map(|refusal| refusal.hook.loses).collect();
        return Finding::note(name, found)
            .loses(losses.join("; "))
            .remedy(remedy(facts, &refused));
    }
    let mut better = Backend::ALL.into_iter().take_while(|other| *other != backend);
    match better.find(|other| usable.contains(other)) {
        Some(better) => Finding::note(name, found).loses(format!("nothing while the {better} backend works")),
        None => Finding::missing(name, found)
            .loses(backend.loses())
            .remedy(remedy(facts, &refused)),
    }
}

/// Reasons in the order of their first hook, each with all its hooks.
fn by_reason<'a>(refused: &[&'a Refusal]) -> Vec<(&'a str, Vec<&'static Hook>)> {
    let mut groups: Vec<(&str, Vec<&Hook>)> = Vec::new();
    for refusal in refused {
        match groups.iter_mut().find(|(reason, _)| *reason == refusal.reason) {
            Some((_, hooks)) => hooks.push(refusal.hook),
            None => groups.push((&refusal.reason, vec![refusal.hook])),
        }
    }
    groups
}

/// The remedy if lockdown=confidentiality refuses `bpf_probe_read_kernel`, with which programs read the kernel's
/// structures (kernel/bpf/helpers.c, `bpf_base_func_proto`, 5.4 to 7.3).
const CONFIDENTIALITY: &str = "boot without lockdown=confidentiality, which refuses kprobes, /proc/kcore and BPF programs that read the kernel's memory";

/// The remedy if it is not known where the kernel has its `struct page`s.
const KERNEL_WITH_BASES: &str = "boot a kernel built with CONFIG_VMAP_STACK=y or CONFIG_PROC_KCORE=y";

/// Remedies for refused hooks, one sentence for each kind of refusal.
fn remedy(facts: &Facts, refused: &[&Refusal]) -> String {
    let mut sentences: Vec<&str> = Vec::new();
    for refusal in refused {
        let sentence = match (refusal.errno, facts.lockdown) {
            (Some(EPERM | EACCES), _) if may_attach(facts.caller) == Some(false) => "see privileges, above",
            (Some(EPERM), Lockdown::Confidentiality) => CONFIDENTIALITY,
            (Some(EPERM), Lockdown::Integrity | Lockdown::None | Lockdown::Unknown) => {
                "find what refuses them; the cause is not known: a security module (dmesg may name it), or a patch of this kernel"
            }
            (None, Lockdown::Confidentiality) if refusal.reason == NO_BASES => CONFIDENTIALITY,
            (None, _) if refusal.reason == NO_BASES => KERNEL_WITH_BASES,
            (_, _) if refusal.reason.contains("/kprobe/type") => {
                "boot a kernel built with CONFIG_KPROBES=y and CONFIG_BPF_EVENTS=y"
            }
            (None, _) if differs(&refusal.reason) => {
                "report this kernel's release with the lines above: this version of tracer does not know its prototype"
            }
            (Some(ENOENT | ESRCH) | None, _) => {
                "nothing: this kernel does not have them, is older than 6.1, or has inlined the function"
            }
            (Some(EBUSY), _) => "a live patch or another tracer has the function in use: end that first",
            (Some(ENOTSUPP | EOPNOTSUPP), _) => {
                "boot a kernel built with CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y and CONFIG_BPF_JIT=y"
            }
            (Some(_), _) => "this kernel is not known to work: report its release with the lines above",
        };
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    sentences.join("; ")
}

/// Whether the reason is a prototype that differs from the one that the program expects (`KernelTypes::check`).
fn differs(reason: &str) -> bool {
    reason.starts_with("this kernel's takes (") || reason.starts_with("this kernel's passes ")
}

pub(super) fn bpf_settings(facts: &Facts) -> Finding {
    const NAME: &str = "BPF settings";
    let old = Version::parse(&facts.release).is_some_and(|version| version < MEMLOCK_UNTIL);
    let memory = if old {
        "the ring counts against ulimit -l (before 5.11)"
    } else {
        "the ring counts against the cgroup's memory, not ulimit -l"
    };
    let disabled = match facts.settings.unprivileged_bpf_disabled {
        Some(value) => format!("kernel.unprivileged_bpf_disabled={value} (does not concern root); "),
        None => String::new(),
    };
    match facts.settings.bpf_stats {
        Some(1..) => Finding::note(NAME, format!("kernel.bpf_stats_enabled=1; {disabled}{memory}"))
            .loses("speed: the kernel measures each run of every BPF program")
            .remedy("sysctl kernel.bpf_stats_enabled=0, unless these statistics are needed"),
        _ => Finding::ok(NAME, format!("{disabled}{memory}")),
    }
}

pub(super) fn pagemap(facts: &Facts) -> Finding {
    const NAME: &str = "pagemap";
    const LOSES: &str = "frame numbers, owners by pagemap, and the check of every move";
    match &facts.proc.own_frame {
        OwnFrame::Visible => Finding::ok(NAME, "frame numbers visible"),
        OwnFrame::Hidden => Finding::missing(NAME, "frame numbers hidden: they need CAP_SYS_ADMIN")
            .loses(LOSES)
            .remedy(if facts.caller.uid == 0 {
                "add CAP_SYS_ADMIN (of the machine, not of a user namespace)"
            } else {
                "run with sudo"
            }),
        OwnFrame::Unreadable(why) => Finding::missing(NAME, format!("/proc/self/pagemap: {why}"))
            .loses(LOSES)
            .remedy("mount /proc; if it is, boot a kernel built with CONFIG_PROC_PAGE_MONITOR=y"),
    }
}

/// The use of a file with a word per frame.
fn frame_file_use(name: &str) -> &'static str {
    match name {
        "kpageflags" => "what kind of page a frame holds (kpageflags)",
        "kpagecount" => "how often a frame is mapped (kpagecount)",
        _ => "which cgroup a frame is charged to (kpagecgroup)",
    }
}

pub(super) fn frame_files(files: &[(&'static str, Result<(), String>)]) -> Finding {
    const NAME: &str = "frame files";
    let readable: Vec<&str> = files.iter().filter(|(_, file)| file.is_ok()).map(|(n, _)| *n).collect();
    if readable.len() == files.len() {
        return Finding::ok(NAME, format!("{} readable in /proc", readable.join(", ")));
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, why) in files
        .iter()
        .filter_map(|(name, file)| Some((*name, file.as_ref().err()?)))
    {
        match reasons.iter_mut().find(|(reason, _)| reason == why) {
            Some((_, names)) => names.push(name),
            None => reasons.push((why, vec![name])),
        }
    }
    let texts: Vec<String> = reasons
        .iter()
        .map(|(why, names)| format!("{}: {why}", names.join(", ")))
        .collect();
    let losses: Vec<&str> = reasons
        .iter()
        .flat_map(|(_, names)| names)
        .map(|name| frame_file_use(name))
        .collect();
    let absent = reasons.iter().all(|(why, _)| why.contains("os error 2)"));
    Finding::missing(NAME, texts.join("; "))
        .loses(losses.join("; "))
        .remedy(if absent {
            "mount /proc; if it is, boot a kernel built with CONFIG_PROC_PAGE_MONITOR=y (kpagecgroup: CONFIG_MEMCG=y)"
        } else {
            "run with sudo; in a container, unmask these files of /proc"
        })
}

pub(super) fn counters(vmstat: &Result<Vmstat, String>) -> Finding {
    const NAME: &str = "kernel counts";
    const LOSES: &str = "the books: tracer's own count cannot be compared with the kernel's";
    match vmstat {
        Err(why) => Finding::missing(NAME, format!("/proc/vmstat: {why}"))
            .loses(LOSES)
            .remedy("mount /proc"),
        Ok(vmstat) => match vmstat.get("pgmigrate_success") {
            Some(_) => Finding::ok(NAME, "/proc/vmstat has pgmigrate_success"),
            None => Finding::missing(
                NAME,
                "/proc/vmstat has no pgmigrate_success: built without CONFIG_MIGRATION?",
            )
            .loses(format!("{LOSES}; without CONFIG_MIGRATION no page moves at all"))
            .remedy("boot a kernel built with CONFIG_MIGRATION=y"),
        },
    }
}

pub(super) fn confinement(means: Means) -> Finding {
    const NAME: &str = "confinement";
    let Means { paths, calls } = means;
    let (found, loses) = match (paths, calls) {
        (true, true) => return Finding::ok(NAME, "Landlock and seccomp"),
        (false, true) => ("no Landlock", "readers of recordings may open any file of their user"),
        (true, false) => (
            "no seccomp",
            "tracer may make any system call while it traces and reads",
        ),
        (false, false) => (
            "neither Landlock nor seccomp",
            "tracer may make any system call, and readers of recordings may open any file of their user",
        ),
    };
    Finding::note(NAME, found).loses(loses)
}

pub(super) fn hidepid(facts: &Facts) -> Option<Finding> {
    const NAME: &str = "hidepid";
    let value = facts.proc.hidepid.as_deref()?;
    let sees_all = facts
        .caller
        .capabilities
        .is_some_and(|held| held.has(Capability::SysPtrace));
    let found = format!("/proc is mounted with hidepid={value}");
    Some(if sees_all {
        Finding::ok(NAME, format!("{found}; with CAP_SYS_PTRACE tracer sees every process"))
    } else {
        Finding::missing(NAME, found)
            .loses("names and memory of other users' processes")
            .remedy("run with sudo (it takes CAP_SYS_PTRACE)")
    })
}

pub(super) fn numa(nodes: &Result<Vec<Node>, String>) -> Finding {
    const NAME: &str = "NUMA";
    let nodes = match nodes {
        Err(why) => {
            return Finding::missing(NAME, why.clone())
                .loses("everything: tracer does not start without the node of each frame")
                .remedy("mount /proc");
        }
        Ok(nodes) => nodes,
    };
    let each: Vec<String> = nodes
        .iter()
        .map(|node| {
            let cpus = match node.cpus.trim() {
                "" => "no CPUs".to_owned(),
                cpus if cpus.contains(['-', ',']) => format!("CPUs {cpus}"),
                cpus => format!("CPU {cpus}"),
            };
            format!("{}: {cpus}, {}", node.id, Bytes(node.bytes))
        })
        .collect();
    match nodes.as_slice() {
        [only] => Finding::note(
            NAME,
            format!("1 node ({}): moves between nodes cannot happen here", {
                let text = &each[0];
                text.strip_prefix(&format!("{}: ", only.id)).unwrap_or(text)
            }),
        ),
        several => Finding::ok(NAME, format!("{} nodes; {}", several.len(), each.join("; "))),
    }
}

pub(super) fn balancing(facts: &Facts) -> Finding {
    const NAME: &str = "balancing";
    let several = facts.nodes.as_ref().is_ok_and(|nodes| nodes.len() > 1);
    match (facts.settings.numa_balancing, several) {
        (None, _) if facts.proc.vmstat.is_err() => Finding::unknown(NAME, "/proc is not readable"),
        (None, _) => Finding::note(NAME, "no kernel.numa_balancing: built without CONFIG_NUMA_BALANCING")
            .loses("moves of pages to the node that uses them: this kernel makes none by itself"),
        (Some(0), true) => Finding::note(NAME, "kernel.numa_balancing=0 (off)")
            .loses("moves of pages to the node that uses them: the kernel makes none by itself")
            .remedy("sysctl kernel.numa_balancing=1, to see it at work"),
        (Some(0), false) => Finding::ok(NAME, "kernel.numa_balancing=0 (off)"),
        (Some(value), false) => Finding::ok(
            NAME,
            format!("kernel.numa_balancing={value}, without effect on one node"),
        ),
        (Some(value), true) => {
            let mode = match value {
                1 => "on",
                2 => "between tiers of memory",
                _ => "on, also between tiers of memory",
            };
            Finding::ok(NAME, format!("kernel.numa_balancing={value} ({mode})"))
        }
    }
}

pub(super) fn compaction(facts: &Facts) -> Finding {
    const NAME: &str = "compaction";
    let built = facts
        .proc
        .vmstat
        .as_ref()
        .map(|vmstat| vmstat.get("compact_stall").is_some());
    let huge = match &facts.settings.huge_pages {
        Some(word) => format!("; transparent huge pages: {word}"),
        None => String::new(),
    };
    match (built, facts.settings.compaction_proactiveness) {
        (Ok(false), _) => Finding::note(NAME, format!("built without CONFIG_COMPACTION{huge}"))
            .loses("moves for compaction: this kernel makes none"),
        (_, Some(0)) => Finding::note(
            NAME,
            format!("vm.compaction_proactiveness=0: only on demand, not proactively{huge}"),
        ),
        (_, Some(value)) => Finding::ok(NAME, format!("vm.compaction_proactiveness={value} of 100{huge}")),
        (_, None) => Finding::unknown(NAME, &format!("vm.compaction_proactiveness is not readable{huge}")),
    }
}

pub(super) fn reclaim(settings: &Settings) -> Option<Finding> {
    let zone = settings.zone_reclaim_mode.map(|value| {
        let meaning = if value == 0 { "off" } else { "own node first" };
        format!("vm.zone_reclaim_mode={value} ({meaning})")
    });
    let demotion = settings
        .demotion
        .map(|on| format!("demotion to slower memory {}", if on { "on" } else { "off" }));
    let parts: Vec<String> = zone.into_iter().chain(demotion).collect();
    (!parts.is_empty()).then(|| Finding::ok("reclaim", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::health::made_up::{fine, tried},
        kernel::hooks::HOOKS,
    };

    #[test]
    fn an_unknown_prototype_is_to_be_reported() {
        for reason in ["this kernel's takes (folio, vma)", "this kernel's passes 2 arguments"] {
            let refusal = Refusal {
                hook: &HOOKS[0],
                reason: reason.to_owned(),
                errno: None,
            };
            assert!(remedy(&fine(), &[&refusal]).contains("report this kernel's release"));
        }
    }

    #[test]
    fn a_function_that_is_not_there_leaves_nothing_to_do() {
        let facts = fine();
        let hooks = tried(|hook| (hook.loses.is_some()).then_some(("this kernel has no such function", None)));
        let finding = hooks_of(&Facts { hooks, ..facts });
        assert!(finding.remedy.is_some_and(|remedy| remedy.starts_with("nothing: ")));
    }

    fn hooks_of(facts: &Facts) -> Finding {
        hooks(facts, Backend::Exact, &Backend::ALL)
    }
}
