//! Opens the BPF source: attaches the best backend that works, enrols the processes to trace, and builds the correlator.
//! Input: a [`TraceConfig`]; the kernel's types.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tracer_common::filter::membership;

use crate::{
    correlate::{Correlator, processes::Processes},
    kernel::{
        hooks::Hook,
        preemption,
        topology::Topology,
        types::{self, KernelTypes},
    },
    run::{backend::Backend, coverage::Owners, header::MissingHook},
    session::{
        config::TraceConfig,
        filters::Compiled,
        opened::{OpenError, Opened},
        targets,
    },
    source::bpf::{
        Bpf, bases,
        ring::{Asked, Capture},
    },
    units::Tgid,
};

/// Attaches the best of the candidates that works, and enrols the processes to trace. `lineage` holds the processes that
/// were requested by number, with their children.
///
/// # Errors
/// [`OpenError`], with everything detached again.
pub(super) fn open(
    config: &TraceConfig,
    candidates: &[Backend],
    lineage: &BTreeSet<Tgid>,
    topology: Topology,
) -> Result<Opened, OpenError> {
    let types = KernelTypes::read(Path::new(types::VMLINUX))?;
    let names = types.names();
    let wanted = config
        .filters
        .compile(!lineage.is_empty(), config.follow, &names, &topology)?;
    let (mut capture, fallbacks) = attach(config, candidates, &types, &topology, &wanted, lineage)?;
    drop(types); // the kernel's BTF: several MiB
    // These are processes that existed before the hooks on processes, and children that were made between the scan of
    // /proc and the attachment of the hook on fork.
    let members = if wanted.filter.need == 0 {
        BTreeMap::new()
    } else {
        targets::enrol(&mut capture, &wanted, lineage)?
    };
    log_attached(&capture, &wanted, members.len());

    let (backend, kinds) = (capture.backend, capture.kinds);
    let refused = capture.refused.iter().map(MissingHook::from).collect();
    let in_lineage = members.iter().filter(|(_, bits)| **bits & membership::LINEAGE != 0);
    let lineage = in_lineage.map(|(tgid, _)| *tgid).collect();
    let find_owners = capture.coverage().owners != Owners::Kernel;
    let processes = Processes::new(wanted.filter.need, members);
    let unowned = wanted.filter.need == 0 && wanted.filter.range_count == 0;
    let correlator = Correlator::new(processes, topology, names, find_owners, unowned);
    Ok(Opened {
        source: Box::new(Bpf::new(capture, correlator)),
        backend,
        kinds,
        fallbacks,
        refused,
        lineage,
        filters: wanted.words,
    })
}

/// Attaches the best backend that works; returns it with the errors of better ones.
fn attach(
    config: &TraceConfig,
    candidates: &[Backend],
    types: &KernelTypes,
    topology: &Topology,
    wanted: &Compiled,
    lineage: &BTreeSet<Tgid>,
) -> Result<(Capture, Vec<String>), OpenError> {
    let mut of_kernel = types.config()?;
    of_kernel.pfn_bits = topology.pfn_bits();
    bases::add(&mut of_kernel);
    of_kernel.twice = preemption::preempts().into();
    of_kernel.kinds = config.kinds.bits();
    let asked = Asked {
        kinds: config.kinds,
        must: config.must,
    };
    match Capture::start(
        candidates,
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
