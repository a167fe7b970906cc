//! Tests which hooks the kernel accepts: loads and attaches the real programs one by one, and detaches each again.
//! Input: the embedded object, the offsets from the kernel's BTF; nothing is recorded.

use tracer_common::{
    config::Config,
    filter::{Filter, MAX_ACTORS, MAX_CGROUPS, MAX_RANGES, MAX_SPANS, membership},
};

use crate::{
    kernel::{
        hooks::{HOOKS, Hook, Kinds},
        types::KernelTypes,
    },
    source::bpf::{
        attach::{self, CaptureError, Refusal},
        ring,
        rings::RingBytes,
    },
};

/// Every filter is present at its full size and lets nothing through, so that the verifier examines all of each
/// program.
#[expect(clippy::cast_possible_truncation, reason = "lengths of small arrays")]
const NOTHING: Filter = Filter {
    need: membership::LINEAGE | membership::CGROUP | membership::COMM,
    by_reason: 1,
    by_actor: 1,
    min_order: 1,
    range_count: MAX_RANGES as u32,
    by_nodes: 1,
    span_count: MAX_SPANS as u32,
    cgroup_count: MAX_CGROUPS as u32,
    actor_count: MAX_ACTORS as u32,
    ..Filter::EVERYTHING
};

/// One hook, and the result of its trial.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The hook.
    pub hook: &'static Hook,
    /// The reason why the kernel refused it. None: it attaches.
    pub refusal: Option<Refusal>,
}

/// Tries every hook of the catalogue, each alone. The filter lets no process through, so events are dropped while a
/// program is attached.
///
/// # Errors
/// [`CaptureError::Object`] when the kernel refuses even the maps: then no hook was tried.
pub fn every_hook(types: &KernelTypes, config: &Config) -> Result<Vec<Tried>, CaptureError> {
    let btf = ring::functions(types)?;
    let config = &Config {
        kinds: Kinds::ALL.bits(),
        ..*config
    };
    let mut bpf = ring::load(config, &NOTHING, RingBytes::DEFAULT)?;
    let outcomes = HOOKS.iter().map(|hook| {
        let refusal = attach::attach(&mut bpf, hook, types, config, &btf).err();
        if let Err(error) = attach::take_off(&mut bpf, hook) {
            log::debug!("taking off {}: {error}", hook.label());
        }
        Tried { hook, refusal }
    });
    Ok(outcomes.collect())
}
