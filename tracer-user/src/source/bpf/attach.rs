//! Attaches and detaches hooks, and reports the kernel's refusals.
//! Input: the loaded object, the catalogue of hooks, the kernel's BTF.

use std::io;

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError, RawTracePoint, raw_trace_point::RawTracePointLink},
};
use tracer_common::config::Config;

use crate::{
    kernel::{
        hooks::{Attach, Hook, Kinds},
        types::KernelTypes,
    },
    run::header::MissingHook,
};

/// The reason why tracing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The object or its maps were refused.
    #[error("cannot load the BPF object: {0}")]
    Object(String),
    /// A hook that the backend requires was refused.
    #[error("cannot attach {}: {}", .0.hook.label(), .0.reason)]
    Hook(Refusal),
    /// A map of the object is missing or of another type.
    #[error("BPF map {name}: {reason}")]
    Map {
        /// The map's name.
        name: &'static str,
        /// The problem.
        reason: String,
    },
}

impl CaptureError {
    /// Whether the kernel refused because a privilege is missing (EPERM, EACCES).
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Hook(refusal) => matches!(refusal.errno, Some(1 | 13)),
            Self::Object(reason) => reason.contains("os error 1)") || reason.contains("os error 13)"),
            Self::Map { .. } => false,
        }
    }
}

/// The refusal of hooks that see folios or page tables instead of frames.
pub(crate) const NO_BASES: &str = "it is not known where this kernel keeps its struct pages (see tracer -v)";

/// A hook that the kernel refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The hook.
    pub hook: &'static Hook,
    /// The kernel's answer.
    pub reason: String,
    /// The error number behind it, if there is one.
    pub errno: Option<i32>,
}

impl Refusal {
    fn differs(hook: &'static Hook, reason: String) -> Self {
        Self {
            hook,
            reason,
            errno: None,
        }
    }

    pub(crate) fn new(hook: &'static Hook, error: &ProgramError) -> Self {
        Self {
            hook,
            reason: explain(error),
            errno: errno(error),
        }
    }
}

/// Attaches hooks and returns the optional ones that were refused. A hook of a kind in `must` is not optional. The hook
/// that sees calls begin is loaded, and [`open_calls`] attaches it.
pub(super) fn attach_all(
    bpf: &mut Ebpf,
    hooks: impl Iterator<Item = &'static Hook>,
    must: Kinds,
    types: &KernelTypes,
    config: &Config,
    btf: &Btf,
) -> Result<Vec<Refusal>, CaptureError> {
    let mut refused = Vec::new();
    for hook in hooks {
        let taken = if hook.opens_calls() {
            load(bpf, hook, types, config, btf).map(drop)
        } else {
            attach(bpf, hook, types, config, btf)
        };
        if let Err(refusal) = taken {
            if hook.loses.is_none() || hook.is_needed_by(must) {
                return Err(CaptureError::Hook(refusal));
            }
            refused.push(refusal);
        }
    }
    Ok(refused)
}

/// Attaches the loaded hook that sees calls begin. It stays attached as long as the links exist.
pub(super) fn open_calls(
    bpf: &mut Ebpf,
    hook: &'static Hook,
    config: &Config,
) -> Result<Vec<RawTracePointLink>, Refusal> {
    let again = hook.again().filter(|_| config.twice != 0);
    let names = in_order(hook.attach, hook.program, again.as_deref());
    let links = names.map(|name| {
        let program: &mut RawTracePoint = program(bpf, name)?.try_into()?;
        let link = program.attach(hook.target)?;
        program.take_link(link)
    });
    links
        .collect::<Result<_, _>>()
        .map_err(|error| Refusal::new(hook, &error))
}

/// Unloads a hook's programs, which closes their links. A program that was never loaded is no error.
pub(crate) fn take_off(bpf: &mut Ebpf, hook: &Hook) -> Result<(), ProgramError> {
    let again = hook.again().map_or(Ok(()), |again| unload(bpf, &again));
    unload(bpf, hook.program).and(again)
}

fn unload(bpf: &mut Ebpf, program: &str) -> Result<(), ProgramError> {
    let result = match bpf.program_mut(program) {
        Some(Program::FEntry(p)) => p.unload(),
        Some(Program::FExit(p)) => p.unload(),
        Some(Program::KProbe(p)) => p.unload(),
        Some(Program::RawTracePoint(p)) => p.unload(),
        _ => Ok(()),
    };
    match result {
        Err(ProgramError::NotLoaded) => Ok(()),
        other => other,
    }
}

/// Loads a hook's program and attaches it to the hook, which must pass the arguments of the program. If the kernel
/// preempts programs, the second copy is attached too, if there is one. They stay attached until they are unloaded.
pub(crate) fn attach(
    bpf: &mut Ebpf,
    hook: &'static Hook,
    types: &KernelTypes,
    config: &Config,
    btf: &Btf,
) -> Result<(), Refusal> {
    let target = load(bpf, hook, types, config, btf)?;
    put_on(bpf, hook, target, config).map_err(|error| Refusal::new(hook, &error))
}

/// Loads a hook's program, and its second copy where it is needed. Returns which of the hook's targets this kernel has.
fn load(
    bpf: &mut Ebpf,
    hook: &'static Hook,
    types: &KernelTypes,
    config: &Config,
    btf: &Btf,
) -> Result<&'static str, Refusal> {
    let target = types.check(hook).map_err(|reason| Refusal::differs(hook, reason))?;
    if hook.is_only_of(Kinds::OUTSIDE) && config.page_offset_base == 0 {
        return Err(Refusal::differs(hook, NO_BASES.to_owned()));
    }
    let again = hook.again().filter(|_| config.twice != 0);
    for name in [hook.program].into_iter().chain(again.as_deref()) {
        load_one(bpf, name, target, btf).map_err(|error| Refusal::new(hook, &error))?;
        log::debug!("{name}: {} instructions verified", verified(bpf, name));
    }
    Ok(target)
}

fn put_on(bpf: &mut Ebpf, hook: &Hook, target: &str, config: &Config) -> Result<(), ProgramError> {
    let again = hook.again().filter(|_| config.twice != 0);
    in_order(hook.attach, hook.program, again.as_deref()).try_for_each(|name| attach_one(bpf, name, target))
}

/// The number of instructions that the verifier examined for a loaded program, summed over all paths. The verifier
/// rejects a program at a million, and needs memory for each branch (kernel/bpf/verifier.c). 0: the kernel does not
/// report it.
fn verified(bpf: &Ebpf, name: &str) -> u32 {
    let info = bpf.program(name).and_then(|program| program.info().ok());
    info.and_then(|info| info.verified_instruction_count()).unwrap_or(0)
}

/// A program and its second copy in the order of attaching, so that the first one runs first: a trampoline begins with
/// the program that was attached last (`__bpf_trampoline_link_prog`, kernel/bpf/trampoline.c), a tracepoint ends with
/// it (`func_add`, kernel/tracepoint.c).
fn in_order<'a>(attach: Attach, first: &'a str, again: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let trampoline = matches!(attach, Attach::Fentry | Attach::Fexit);
    let (before, after) = if trampoline { (again, None) } else { (None, again) };
    before.into_iter().chain([first]).chain(after)
}

fn load_one(bpf: &mut Ebpf, name: &str, target: &str, btf: &Btf) -> Result<(), ProgramError> {
    match program(bpf, name)? {
        Program::FEntry(program) => program.load(target, btf),
        Program::FExit(program) => program.load(target, btf),
        Program::KProbe(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach_one(bpf: &mut Ebpf, name: &str, target: &str) -> Result<(), ProgramError> {
    match program(bpf, name)? {
        Program::FEntry(program) => program.attach().map(drop),
        Program::FExit(program) => program.attach().map(drop),
        Program::KProbe(program) => program.attach(target, 0).map(drop),
        Program::RawTracePoint(program) => program.attach(target).map(drop),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn program<'a>(bpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, ProgramError> {
    let missing = || ProgramError::InvalidName { name: name.to_owned() };
    bpf.program_mut(name).ok_or_else(missing)
}

/// The error in one line: the system's words, and the verifier's last line if there is one.
fn explain(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        if !log.trim().is_empty() {
            log::debug!("verifier: {log}");
        }
        // The statistics come after the error.
        let statistics = ["processed ", "stack depth ", "verification time "];
        let complaint =
            |line: &&str| !line.trim().is_empty() && !statistics.iter().any(|prefix| line.starts_with(prefix));
        let last = log.lines().rev().find(complaint);
        return match last {
            Some(line) => format!("{io_error}; the verifier says: {}", line.trim()),
            None => io_error.to_string(),
        };
    }
    chain(error)
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

fn errno(error: &ProgramError) -> Option<i32> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        source = cause.source();
    }
    None
}

impl From<&Refusal> for MissingHook {
    fn from(refusal: &Refusal) -> Self {
        Self {
            hook: refusal.hook.label(),
            reason: refusal.reason.clone(),
            loses: refusal.hook.loses.unwrap_or("nothing").to_owned(),
        }
    }
}
