//! What the kernel answers to each hook: loads and attaches the real programs one by one, and takes each off again.
//! Input: the embedded object, the offsets from the kernel's BTF; nothing is recorded.

use aya::Btf;
use tracer_common::config::Config;

use crate::{
    kernel::{
        hooks::{HOOKS, Hook, Kinds},
        types::KernelTypes,
    },
    source::ring::{self, CaptureError, Refusal, RingBytes},
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
    let btf = Btf::from_sys_fs().map_err(|e| CaptureError::Object(ring::chain(&e)))?;
    let mut bpf = ring::load(
        &Config {
            all: 0,
            kinds: Kinds::ALL.bits(),
            ..*config
        },
        RingBytes::DEFAULT,
        &btf,
    )?;
    let outcomes = HOOKS.iter().map(|hook| {
        let refusal = ring::attach(&mut bpf, hook, types, config, &btf).err();
        if let Err(error) = ring::take_off(&mut bpf, hook) {
            log::debug!("taking off {}: {error}", hook.label());
        }
        Tried { hook, refusal }
    });
    Ok(outcomes.collect())
}
