//! The facts about a machine that decide whether and how it can be traced.
//! Input: collected by the command that reads the machine; used by the checks.

use crate::{
    confinement::Means,
    kernel::{
        capabilities::Capabilities,
        config::BuildConfig,
        hooks::{Hook, Kinds},
        release::Lockdown,
        topology::Node,
        vmstat::Vmstat,
    },
    run::backend::Backend,
    source::bpf::trial::Tried,
};

/// All that the findings are drawn from. A `None` or an error is itself a fact: it could not be read.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub arch: String,
    /// Bytes in a page.
    pub page_size: u64,
    /// Levels of page tables, if the machine reports them: 4 or 5 on x86-64.
    pub paging_levels: Option<u8>,
    /// The caller.
    pub caller: Caller,
    /// How far the kernel is locked down.
    pub lockdown: Lockdown,
    /// The options that the kernel was built with; None if no file lists them.
    pub config: Option<BuildConfig>,
    /// The kernel's BTF, or why it cannot be read.
    pub btf: Result<Btf, String>,
    /// The kernel's answer to the hooks.
    pub hooks: Hooks,
    /// Whether it is known where the kernel has its `struct page`s, with which the programs find owners.
    pub memory_map: bool,
    /// Settings of the kernel.
    pub settings: Settings,
    /// The kernel's means to confine tracer itself.
    pub confinement: Means,
    /// Readings of /proc.
    pub proc: ProcFiles,
    /// NUMA nodes, or why they are unknown.
    pub nodes: Result<Vec<Node>, String>,
}

/// The kernel's description of its types.
#[derive(Clone, Debug)]
pub struct Btf {
    /// Size of the file.
    pub bytes: u64,
    /// Whether it has every offset that the programs need, or the one that it lacks.
    pub offsets: Result<(), String>,
}

/// The process that requests the diagnosis.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Its capabilities; None if /proc does not list them.
    pub capabilities: Option<Capabilities>,
    /// Whether its user namespace is the first one, in which capabilities hold for the machine.
    pub initial_user_namespace: Option<bool>,
    /// Whether its PID namespace is the first one, whose numbers the kernel reports.
    pub initial_pid_namespace: Option<bool>,
    /// Whether a seccomp filter checks its system calls.
    pub seccomp: bool,
}

/// The outcome of trying the hooks.
#[derive(Clone, Debug)]
pub enum Hooks {
    /// They were not tried: the programs cannot be made without the kernel's offsets.
    NotTried,
    /// The kernel refused the maps, before any hook.
    Refused(String),
    /// Each hook was tried.
    Tried(Vec<Tried>),
}

/// Settings under /proc/sys and /sys; None if this kernel does not have one, or does not show it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u64>,
    /// `kernel.bpf_stats_enabled`.
    pub bpf_stats: Option<u64>,
    /// `kernel.numa_balancing`: 0 off, 1 on, 2 between tiers of memory.
    pub numa_balancing: Option<u64>,
    /// `vm.compaction_proactiveness`, 0 to 100.
    pub compaction_proactiveness: Option<u64>,
    /// `vm.zone_reclaim_mode`.
    pub zone_reclaim_mode: Option<u64>,
    /// The chosen word of transparent_hugepage/enabled.
    pub huge_pages: Option<String>,
    /// numa/demotion_enabled.
    pub demotion: Option<bool>,
}

/// The answer of pagemap for a page that was touched immediately before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnFrame {
    /// It shows the frame number.
    Visible,
    /// It shows that the page is in memory, without the frame number.
    Hidden,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// The readings of /proc by the caller.
#[derive(Clone, Debug)]
pub struct ProcFiles {
    /// The answer of pagemap.
    pub own_frame: OwnFrame,
    /// The files with a word per frame: name, and why it cannot be opened.
    pub frame_files: Vec<(&'static str, Result<(), String>)>,
    /// The kernel's counters, or why they cannot be read.
    pub vmstat: Result<Vmstat, String>,
    /// The value of the mount option `hidepid`, if it is set.
    pub hidepid: Option<String>,
}

impl Facts {
    /// Whether every hook that the backend requires attaches.
    pub(super) fn attaches(&self, backend: Backend) -> bool {
        match &self.hooks {
            Hooks::NotTried | Hooks::Refused(_) => false,
            Hooks::Tried(all) => backend
                .hooks(Kinds::DEFAULT)
                .filter(|hook| hook.loses.is_none())
                .all(|hook| outcome(all, hook).is_some_and(|tried| tried.refusal.is_none())),
        }
    }
}

/// The outcome for a hook; None if it was not tried.
pub(super) fn outcome<'a>(all: &'a [Tried], hook: &Hook) -> Option<&'a Tried> {
    all.iter().find(|tried| tried.hook.program == hook.program)
}
