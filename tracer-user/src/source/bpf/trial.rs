//! What the kernel answers to each hook: loads and attaches the real programs one by one, and takes each off again.
//! Input: the embedded object, the offsets from the kernel's BTF; nothing is recorded.

use aya::Btf;
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
        ring::{self, RingBytes},
    },
};

/// Every filter is there, with as much as it can hold, and lets nothing through: the verifier sees all of each program.
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

/// One hook, and what became of it.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The hook.
    pub hook: &'static Hook,
    /// Why the kernel refused it; None: it attaches.
    pub refusal: Option<Refusal>,
}

/// Tries every hook of the catalogue, each alone. The filter lets no process through, so what a program sees while it
/// hangs on its hook is dropped.
///
/// # Errors
/// [`CaptureError::Object`] when the kernel takes not even the maps: then no hook was tried.
pub fn every_hook(types: &KernelTypes, config: &Config) -> Result<Vec<Tried>, CaptureError> {
    let btf = Btf::from_sys_fs().map_err(|e| CaptureError::Object(attach::chain(&e)))?;
    let config = &Config {
        kinds: Kinds::ALL.bits(),
        ..*config
    };
    let mut bpf = ring::load(config, &NOTHING, RingBytes::DEFAULT, &btf)?;
    let outcomes = HOOKS.iter().map(|hook| {
        let refusal = attach::attach(&mut bpf, hook, types, config, &btf).err();
        if let Err(error) = attach::take_off(&mut bpf, hook) {
            log::debug!("taking off {}: {error}", hook.label());
        }
        Tried { hook, refusal }
    });
    Ok(outcomes.collect())
}
