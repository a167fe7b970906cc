//! What the kernel answers to each hook: loads and attaches the real programs one by one, and takes each off again.
//! Input: the embedded object, the offsets from the kernel's BTF; nothing is recorded.

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use tracer_common::config::Config;

use crate::{
    kernel::hooks::{HOOKS, Hook},
    source::{
        object,
        ring::{self, CaptureError, Refusal},
    },
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
pub fn every_hook(config: &Config) -> Result<Vec<Tried>, CaptureError> {
    let object_error = |error: &dyn std::error::Error| CaptureError::Object(ring::chain(error));
    let btf = Btf::from_sys_fs().map_err(|e| object_error(&e))?;
    let config = Config { all: 0, ..*config };
    let mut bpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("CONFIG", config.as_bytes(), true)
        .load(object::BYTES)
        .map_err(|e| object_error(&e))?;
    let outcomes = HOOKS.iter().map(|hook| {
        let refusal = ring::attach(&mut bpf, hook, &btf)
            .err()
            .map(|error| Refusal::new(hook, &error));
        if let Err(error) = take_off(&mut bpf, hook) {
            log::debug!("taking off {}: {error}", hook.label());
        }
        Tried { hook, refusal }
    });
    Ok(outcomes.collect())
}

/// Unloads the hook's program, which closes its links with it; one that was never loaded is fine.
fn take_off(bpf: &mut Ebpf, hook: &Hook) -> Result<(), ProgramError> {
    let result = match bpf.program_mut(hook.program) {
        Some(Program::FEntry(p)) => p.unload(),
        Some(Program::FExit(p)) => p.unload(),
        Some(Program::RawTracePoint(p)) => p.unload(),
        _ => Ok(()),
    };
    match result {
        Err(ProgramError::NotLoaded) => Ok(()),
        other => other,
    }
}
