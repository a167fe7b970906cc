//! A session: from a configuration to an attached, enrolled source and the header of its run. It is independent of the
//! command line.
//! Input: a [`TraceConfig`]; the machine.

pub mod command;
pub mod config;
pub mod filters;
pub mod privileges;
pub mod targets;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use rustix::{
    system::uname,
    time::{ClockId, clock_gettime},
};
use tracer_common::filter::membership;

use crate::{
    correlate::{Correlator, processes::Processes},
    escape::Printable,
    kernel::{
        hooks::Hook,
        kcore, preemption, release,
        topology::{Topology, TopologyError},
        types::{self, KernelTypes, TypesError},
    },
    run::{
        backend::Backend,
        clock::now,
        coverage::Owners,
        header::{Header, MissingHook, NodeFrames},
    },
    session::{
        command::{CommandError, Held},
        config::{Scope, TraceConfig},
        filters::{Compiled, FilterError},
        privileges::PrivilegeError,
        targets::{Targets, TargetsError},
    },
    source::{
        Source,
        bpf::{
            self, Bpf,
            attach::CaptureError,
            ring::{Asked, Capture},
        },
    },
    units::Tgid,
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why a session cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This process may not trace.
    #[error("{0}")]
    Privileges(#[from] PrivilegeError),
    /// The given processes cannot be traced.
    #[error("{0}")]
    Targets(#[from] TargetsError),
    /// The program cannot be started.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// The kernel's types are not as required.
    #[error("{0}")]
    Types(#[from] TypesError),
    /// The memory of the nodes is not known.
    #[error("cannot determine the NUMA node of a frame")]
    Topology(#[from] TopologyError),
    /// The filters cannot be set.
    #[error("{0}")]
    Filters(#[from] FilterError),
    /// No backend works.
    #[error("{error}")]
    Attach {
        /// The last backend that was tried.
        backend: Backend,
        /// Its error.
        error: CaptureError,
    },
}

/// A source that traces moves, and the facts about its run.
pub struct Session {
    /// How the run is made.
    pub header: Header,
    /// The attached source; all processes to trace are enrolled.
    pub source: Box<dyn Source>,
    /// The program that was started and does not run yet.
    pub command: Option<Held>,
    /// The message that the given processes have ended: `postgres[4711] has ended`. None: no processes were given.
    pub gone: Option<String>,
}

impl Session {
    /// Examines the machine, attaches the best backend that works, and enrols the processes to trace.
    ///
    /// # Errors
    /// [`OpenError`], with everything detached again.
    pub fn open(config: &TraceConfig) -> Result<Self, OpenError> {
        privileges::check(&bpf::NEEDS)?;
        let mut targets = match &config.scope {
            Scope::Processes(pids) => Some(Targets::resolve(pids, config.follow)?),
            Scope::Everybody | Scope::Command(_) | Scope::EverybodyWhile(_) => None,
        };
        let held = config.scope.command().map(command::hold).transpose()?;
        let types = KernelTypes::read(Path::new(types::VMLINUX))?;
        let topology = Topology::read()?;
        let names = types.names();
        let lineage = lineage(&config.scope, targets.as_ref(), held.as_ref());
        let wanted = config
            .filters
            .compile(!lineage.is_empty(), config.follow, &names, &topology)?;

        let (mut capture, fallbacks) = attach(config, &types, &topology, &wanted, &lineage)?;
        drop(types); // the kernel's BTF: several MiB
        // These are processes that existed before the hooks on processes, and children that were made between the scan
        // of /proc and the attachment of the hook on fork.
        let members = if wanted.filter.need == 0 {
            BTreeMap::new()
        } else {
            targets::enrol(&mut capture, &wanted, &lineage)?
        };
        log_attached(&capture, &wanted, members.len());
        if let Some(targets) = &mut targets {
            let lineage = members.iter().filter(|(_, bits)| **bits & membership::LINEAGE != 0);
            targets.tgids = lineage.map(|(tgid, _)| *tgid).collect();
        }

        let header = Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: uname().nodename().to_string_lossy().into_owned(),
            boot_id: fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
            command_line: env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
            begun: now(),
            frames: frames(&topology),
            kernel: release::release(),
            nodes: topology.nodes().len(),
            backend: capture.backend.into(),
            kinds: capture.kinds.into(),
            fallbacks,
            refused: capture.refused.iter().map(MissingHook::from).collect(),
            targets: describe(&config.scope, targets.as_ref(), held.as_ref()) + &wanted.words,
            clock_offset: clock_offset(),
        };
        let find_owners = capture.backend.coverage().owners == Owners::Pagemap;
        let processes = Processes::new(wanted.filter.need, members);
        let unowned = wanted.filter.need == 0 && wanted.filter.range_count == 0;
        let correlator = Correlator::new(processes, topology, names, find_owners, unowned);
        Ok(Self {
            header,
            source: Box::new(Bpf::new(capture, correlator)),
            command: held,
            gone: targets.map(|targets| targets.describe_end()),
        })
    }
}

/// The processes that were requested by number, or as the program to start, with their children.
fn lineage(scope: &Scope, targets: Option<&Targets>, held: Option<&Held>) -> BTreeSet<Tgid> {
    match scope {
        Scope::Everybody | Scope::EverybodyWhile(_) => BTreeSet::new(),
        Scope::Processes(_) => targets.map(|targets| targets.tgids.clone()).unwrap_or_default(),
        Scope::Command(_) => held.map(|held| held.tgid).into_iter().collect(),
    }
}

/// Attaches the best backend that works; returns it with the errors of better ones.
fn attach(
    config: &TraceConfig,
    types: &KernelTypes,
    topology: &Topology,
    wanted: &Compiled,
    lineage: &BTreeSet<Tgid>,
) -> Result<(Capture, Vec<String>), OpenError> {
    let mut of_kernel = types.config()?;
    of_kernel.pfn_bits = topology.pfn_bits();
    kcore::add_bases(&mut of_kernel);
    of_kernel.twice = preemption::preempts().into();
    of_kernel.kinds = config.kinds.bits();
    let candidates = config.candidates();
    let asked = Asked {
        kinds: config.kinds,
        must: config.must,
    };
    match Capture::start(
        &candidates,
        asked,
        types,
        &of_kernel,
        &wanted.filter,
        config.ring,
        lineage,
    ) {
        Ok((capture, failures)) => Ok((capture, failures.iter().map(ToString::to_string).collect())),
        Err(error) => Err(OpenError::Attach {
            backend: candidates.last().copied().unwrap_or(Backend::Tracepoint),
            error,
        }),
    }
}

/// Logs for `-v` the attached hooks, and the number of processes that fulfil a part of the filters.
fn log_attached(capture: &Capture, wanted: &Compiled, members: usize) {
    let refused = |hook: &Hook| capture.refused.iter().any(|refusal| std::ptr::eq(refusal.hook, hook));
    for hook in capture.hooks().filter(|hook| !refused(hook)) {
        log::info!("attached {}", hook.label());
    }
    match wanted.filter.need {
        0 => log::info!("every process is traced"),
        _ => log::info!("processes to trace at the start: {members}"),
    }
}

/// A description of the traced processes.
fn describe(scope: &Scope, targets: Option<&Targets>, held: Option<&Held>) -> String {
    let held = held.map(|held| format!("{}[{}]", Printable(&held.name().to_string_lossy()), held.tgid));
    match (scope, targets, held) {
        (Scope::Processes(_), Some(targets), _) => targets.describe(),
        (Scope::Command(_), _, Some(held)) => held,
        (Scope::EverybodyWhile(_), _, Some(held)) => format!("every process, while {held} runs"),
        (Scope::Everybody | Scope::Processes(_) | Scope::Command(_) | Scope::EverybodyWhile(_), ..) => {
            "every process".to_owned()
        }
    }
}

fn frames(topology: &Topology) -> Vec<NodeFrames> {
    let spans = topology.frames().map(|(frames, node)| NodeFrames {
        first: frames.start,
        end: frames.end,
        node,
    });
    spans.collect()
}

fn clock_offset() -> i128 {
    let nanos = |id| {
        let time = clock_gettime(id);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    nanos(ClockId::Realtime) - nanos(ClockId::Monotonic)
}
