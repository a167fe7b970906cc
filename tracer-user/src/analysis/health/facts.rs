//! What there is to know about a machine before anything is traced on it.
//! Made by the command that asks the machine; read by the checks.

use crate::{
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

/// Everything the findings are drawn from. A `None` or an error is itself a fact: it could not be asked.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// `uname -m`.
    pub arch: String,
    /// Bytes.
    pub page_size: u64,
    /// Levels of page tables, where the machine tells: 4 or 5 on x86-64.
    pub paging_levels: Option<u8>,
    /// The caller.
    pub caller: Caller,
    /// How far the kernel is locked down.
    pub lockdown: Lockdown,
    /// What the kernel was built with; None: no file says so.
    pub config: Option<BuildConfig>,
    /// The kernel's BTF, or why it cannot be read.
    pub btf: Result<Btf, String>,
    /// What the kernel said to the hooks.
    pub hooks: Hooks,
    /// Settings of the kernel.
    pub settings: Settings,
    /// What /proc shows.
    pub proc: ProcFiles,
    /// NUMA nodes, or why they are unknown.
    pub nodes: Result<Vec<Node>, String>,
}

/// What the kernel tells of its types.
#[derive(Clone, Debug)]
pub struct Btf {
    /// Size of the file.
    pub bytes: u64,
    /// Whether it has every offset that the programs need, or which one it lacks.
    pub offsets: Result<(), String>,
}

/// Who runs the program.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// What it may do; None: /proc does not say.
    pub capabilities: Option<Capabilities>,
    /// Whether its user namespace is the first one, where capabilities hold for the machine.
    pub initial_user_namespace: Option<bool>,
    /// Whether its PID namespace is the first one, whose numbers the kernel reports.
    pub initial_pid_namespace: Option<bool>,
    /// A seccomp filter looks at its system calls.
    pub seccomp: bool,
}

/// What became of the hooks.
#[derive(Clone, Debug)]
pub enum Hooks {
    /// They were not tried: the programs cannot be made without the kernel's offsets.
    NotTried,
    /// The kernel refused the maps, before any hook.
    Refused(String),
    /// Each was tried.
    Tried(Vec<Tried>),
}

/// Settings under /proc/sys and /sys; None: this kernel does not have it, or does not show it.
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

/// What pagemap showed of a page that was touched a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnFrame {
    /// Its frame number.
    Visible,
    /// That it is in memory, but not where.
    Hidden,
    /// Nothing, and why.
    Unreadable(String),
}

/// What /proc shows to the caller.
#[derive(Clone, Debug)]
pub struct ProcFiles {
    /// From pagemap.
    pub own_frame: OwnFrame,
    /// The files with a word per frame: name, and why it cannot be opened.
    pub frame_files: Vec<(&'static str, Result<(), String>)>,
    /// The kernel's counters, or why they cannot be read.
    pub vmstat: Result<Vmstat, String>,
    /// The value of the mount option `hidepid`, where it is set.
    pub hidepid: Option<String>,
}

impl Facts {
    /// Whether every hook that the backend cannot do without attaches.
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

/// What became of a hook; None: it was not tried.
pub(super) fn outcome<'a>(all: &'a [Tried], hook: &Hook) -> Option<&'a Tried> {
    all.iter().find(|tried| tried.hook.program == hook.program)
}
