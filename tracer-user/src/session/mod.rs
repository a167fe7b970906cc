//! A session: from a configuration to an attached, enrolled source and the header of its run. It is independent of the
//! command line.
//! Input: a [`TraceConfig`]; the machine.

mod bpf;
pub mod command;
pub mod config;
pub mod filters;
mod opened;
pub mod privileges;
pub mod targets;

use std::{collections::BTreeSet, fs};

use rustix::system::uname;

use crate::{
    escape::Printable,
    kernel::{clock, release, topology::Topology},
    run::{
        backend::Backend,
        header::{Header, NodeFrames},
    },
    session::{
        command::Held,
        config::{Scope, TraceConfig},
        opened::Opened,
        privileges::PrivilegeError,
        targets::Targets,
    },
    source::{self, Needs, Source},
    units::Tgid,
};

pub use opened::OpenError;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

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
        let candidates = permitted(config.candidates())?;
        privileges::warn_of_refusals();
        let mut targets = match &config.scope {
            Scope::Processes(pids) => Some(Targets::resolve(pids, config.follow)?),
            Scope::Everybody | Scope::Command(_) | Scope::EverybodyWhile(_) => None,
        };
        let held = config.scope.command().map(command::hold).transpose()?;
        let topology = Topology::read()?;
        let lineage = lineage(&config.scope, targets.as_ref(), held.as_ref());
        let (frames, nodes) = (frames(&topology), topology.nodes().len());
        let Opened {
            source,
            backend,
            kinds,
            fallbacks,
            refused,
            lineage,
            filters,
        } = bpf::open(config, &candidates, &lineage, topology)?;
        if let Some(targets) = &mut targets {
            targets.tgids = lineage;
        }
        let header = Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: uname().nodename().to_string_lossy().into_owned(),
            boot_id: fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
            command_line: config.command_line.clone(),
            begun: clock::now(),
            frames,
            kernel: release::release(),
            nodes,
            backend: backend.into(),
            kinds: kinds.into(),
            fallbacks,
            refused,
            targets: describe(&config.scope, targets.as_ref(), held.as_ref()) + &filters,
            clock_offset: clock::since_epoch(),
        };
        Ok(Self {
            header,
            source,
            command: held,
            gone: targets.map(|targets| targets.describe_end()),
        })
    }
}

/// The needs of a backend's source on this process.
fn needs(backend: Backend) -> &'static Needs {
    match backend {
        Backend::Exact | Backend::Tracepoint => &source::bpf::NEEDS,
    }
}

/// The candidates whose needs this process meets.
fn permitted(candidates: Vec<Backend>) -> Result<Vec<Backend>, PrivilegeError> {
    let mut refusal = None;
    let mut permitted = candidates;
    permitted.retain(|&backend| match privileges::check(needs(backend)) {
        Ok(()) => true,
        Err(error) => {
            refusal = Some(error);
            false
        }
    });
    match refusal {
        Some(error) if permitted.is_empty() => Err(error),
        _ => Ok(permitted),
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
