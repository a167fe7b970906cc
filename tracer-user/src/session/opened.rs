//! The result of opening a source, or the reason why it cannot be opened.
//! Input: none: each source's way of opening fills it in.

use std::collections::BTreeSet;

use crate::{
    kernel::{hooks::Kinds, topology::TopologyError, types::TypesError},
    run::{backend::Backend, header::MissingHook},
    session::{command::CommandError, filters::FilterError, privileges::PrivilegeError, targets::TargetsError},
    source::{Source, bpf::attach::CaptureError},
    units::Tgid,
};

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

/// An opened source, and its part of the run's header.
pub(super) struct Opened {
    pub source: Box<dyn Source>,
    pub backend: Backend,
    pub kinds: Kinds,
    /// Why better backends did not work.
    pub fallbacks: Vec<String>,
    pub refused: Vec<MissingHook>,
    /// The processes that were requested by number, with their children by now.
    pub lineage: BTreeSet<Tgid>,
    /// The filters in words.
    pub filters: String,
}
