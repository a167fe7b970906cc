//! The kernel as a source: tries the hooks, best backend first, and drains the ring.
//! Input: the embedded object, the offsets from the kernel's BTF, the wanted processes.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap as BpfHashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint},
};
use tracer_common::{
    config::{Config, kinds},
    counter::{Counter, REASONS, SLOTS},
    filter::{Filter, membership},
};

use crate::{
    kernel::{
        hooks::{Attach, HOOKS, Hook, Kinds, Used},
        types::KernelTypes,
    },
    source::object,
    units::{PAGE_SIZE, Tgid},
};

/// Why hooks are of no use that see folios or page tables, not frames.
const NO_BASES: &str = "/proc/kcore does not show where this kernel keeps its struct pages";

/// Pages on swap whose last frame is remembered: 4 GiB of them.
const MAX_SWAPPED: u32 = 1 << 20;

/// How events are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Function hooks: every folio and mapping with its owner, from the kernel.
    Exact,
    /// Tracepoints only: mappings by address, owners from pagemap.
    Tracepoint,
}

impl Backend {
    /// Best first.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Tracepoint];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// The kinds of moves that it can see.
    #[must_use]
    pub fn sees(self) -> Kinds {
        match self {
            Self::Exact => Kinds::ALL,
            Self::Tracepoint => Kinds::MOVE,
        }
    }

    fn uses(self, hook: &Hook, kinds: Kinds) -> bool {
        let moves = kinds.any_of(Kinds::MOVE);
        match hook.used {
            Used::Always => true,
            Used::Moves => moves,
            Used::Exact => self == Self::Exact && moves,
            Used::Tracepoint => self == Self::Tracepoint && moves,
            Used::Kinds(wanting) => self == Self::Exact && kinds.any_of(wanting),
        }
    }

    /// The hooks that this backend wants for these kinds of moves, in the order in which they are attached.
    pub fn hooks(self, kinds: Kinds) -> impl Iterator<Item = &'static Hook> {
        HOOKS.iter().filter(move |hook| self.uses(hook, kinds))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Size of the ring between the kernel and tracer: a power of two, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingBytes(u32);

impl RingBytes {
    /// Room for 150 ms of moves at the highest rate that a kernel offers (1.7 M a second, 64 bytes each): several times
    /// what the reader's timer needs.
    pub const DEFAULT: Self = Self(1 << 24);

    /// The least power of two that holds `bytes`; None beyond 1 GiB.
    #[must_use]
    pub fn holding(bytes: u64) -> Option<Self> {
        let bytes = bytes.max(PAGE_SIZE).checked_next_power_of_two()?;
        (bytes <= 1 << 30)
            .then(|| u32::try_from(bytes).ok())
            .flatten()
            .map(Self)
    }
}

/// A hook that the kernel refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The hook.
    pub hook: &'static Hook,
    /// What the kernel said.
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

/// Why tracing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The object or its maps were refused.
    #[error("cannot load the BPF object: {0}")]
    Object(String),
    /// A hook without which the backend does not work was refused.
    #[error("cannot attach {}: {}", .0.hook.label(), .0.reason)]
    Hook(Refusal),
    /// A map of the object is missing or of another type.
    #[error("BPF map {name}: {reason}")]
    Map {
        /// The map.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl CaptureError {
    /// Whether the kernel refused for want of a privilege (EPERM, EACCES).
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Hook(refusal) => matches!(refusal.errno, Some(1 | 13)),
            Self::Object(reason) => reason.contains("os error 1)") || reason.contains("os error 13)"),
            Self::Map { .. } => false,
        }
    }
}

/// The kinds of moves that a run is to show.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// All of them.
    pub kinds: Kinds,
    /// Of those, the ones that are not to be done without.
    pub must: Kinds,
}

/// Hooks attached, ring mapped. Dropping it detaches everything: nothing is pinned, so the kernel
/// does the same when the process dies in any way.
pub struct Capture {
    bpf: Ebpf,
    ring: RingBuf<MapData>,
    reader_sleeps: Array<MapData, u32>,
    counters: PerCpuArray<MapData, [u64; SLOTS]>,
    targets: BpfHashMap<MapData, u32, u32>,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// The kinds of moves that were asked for.
    pub kinds: Kinds,
    /// The backend that works.
    pub backend: Backend,
    /// Optional hooks that the kernel refused: what they do is missing.
    pub refused: Vec<Refusal>,
}

impl Capture {
    /// Loads the object once and attaches the hooks of the first of the `candidates` that works; returns with it why
    /// the ones before did not. `config` holds the offsets; `lineage` are the processes that were asked for by
    /// number, with their children.
    ///
    /// # Errors
    /// [`CaptureError`] of the last candidate, with everything detached again.
    pub fn start(
        candidates: &[Backend],
        asked: Asked,
        types: &KernelTypes,
        config: &Config,
        filter: &Filter,
        ring_bytes: RingBytes,
        lineage: &BTreeSet<Tgid>,
    ) -> Result<(Self, Vec<CaptureError>), CaptureError> {
        let btf = Btf::from_sys_fs().map_err(|e| CaptureError::Object(chain(&e)))?;
        let mut bpf = load(config, filter, ring_bytes, &btf)?;
        let logger = log::log_enabled!(log::Level::Info)
            .then(|| {
                aya_log::EbpfLogger::init(&mut bpf).map_err(|e| log::warn!("no diagnostics from the BPF side: {e}"))
            })
            .and_then(Result::ok);
        let mut targets: BpfHashMap<MapData, u32, u32> = take(&mut bpf, "TARGETS")?;
        for &tgid in lineage {
            set_membership(&mut targets, tgid, membership::LINEAGE)?;
        }
        let ring = RingBuf::try_from(take_any(&mut bpf, "RING")?).map_err(|e| map_error("RING", &e))?;
        let reader_sleeps = take(&mut bpf, "READER_SLEEPS")?;
        let counters = take(&mut bpf, "COUNTERS")?;
        let Asked { kinds, must } = asked;
        let mut failures = Vec::new();
        for (at, &backend) in candidates.iter().enumerate() {
            match attach_all(&mut bpf, backend.hooks(kinds), must, types, config, &btf) {
                Ok(refused) => {
                    let capture = Self {
                        bpf,
                        ring,
                        reader_sleeps,
                        counters,
                        targets,
                        logger,
                        kinds,
                        backend,
                        refused,
                    };
                    return Ok((capture, failures));
                }
                Err(error) if at + 1 == candidates.len() => return Err(error),
                Err(error) => {
                    failures.push(error);
                    // What did attach, so that nothing is seen twice.
                    for hook in backend.hooks(kinds) {
                        take_off(&mut bpf, hook).map_err(|e| CaptureError::Hook(Refusal::new(hook, &e)))?;
                    }
                }
            }
        }
        Err(CaptureError::Object("no backend to try".to_owned()))
    }

    /// The hooks of this run, also those that were refused.
    pub fn hooks(&self) -> impl Iterator<Item = &'static Hook> {
        self.backend.hooks(self.kinds)
    }

    /// What the kernel side knows that a process fulfils, bits of [`membership`].
    #[must_use]
    pub fn membership(&self, tgid: Tgid) -> u32 {
        self.targets.get(&tgid.0, 0).unwrap_or(0)
    }

    /// Tells the kernel side what a process fulfils.
    ///
    /// # Errors
    /// When the kernel's table is full.
    pub fn set_membership(&mut self, tgid: Tgid, bits: u32) -> Result<(), CaptureError> {
        set_membership(&mut self.targets, tgid, bits)
    }

    /// Hands over every record that is in the ring now, oldest first, at most `limit`. Returns how
    /// many there were.
    pub fn drain(&mut self, limit: usize, mut record: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while taken < limit {
            let Some(item) = self.ring.next() else { break };
            record(&item);
            taken += 1;
        }
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        taken
    }

    /// Asks to be woken by the next event: the ring's file descriptor becomes readable then, and only
    /// then. Look into the ring once more before sleeping.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn wake_me(&mut self) -> io::Result<()> {
        self.reader_sleeps.set(0, 1, 0).map_err(io::Error::other)
    }

    /// The ring's file descriptor, to wait on after [`Capture::wake_me`]; valid as long as the capture.
    #[must_use]
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    /// The counters of every CPU.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> io::Result<Counters> {
        let by_cpu = self.counters.get(&0, 0).map_err(io::Error::other)?;
        Ok(Counters(
            (0..SLOTS)
                .map(|slot| by_cpu.iter().map(|slots| slots[slot]).collect())
                .collect(),
        ))
    }

    /// Times a program was not run because it, or a task that was preempted inside it, was already
    /// running on that CPU (`recursion_misses`, kernel/bpf/syscall.c `bpf_prog_show_fdinfo`).
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn missed_runs(&self) -> io::Result<MissedRuns> {
        let mut missed = MissedRuns::default();
        for hook in self.hooks() {
            let Some(Ok(fd)) = self.bpf.program(hook.program).map(Program::fd) else {
                continue; // refused
            };
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
            let times = info
                .lines()
                .find_map(|line| line.strip_prefix("recursion_misses:"))
                .and_then(|n| n.trim().parse::<u64>().ok())
                .unwrap_or(0);
            match (hook.loses, hook.used) {
                (None, _) | (_, Used::Kinds(_)) => missed.moves += times,
                _ => missed.details += times,
            }
        }
        Ok(missed)
    }

    /// Detaches every hook, in the opposite order of attaching: a call whose begin is seen is seen to its end, and its
    /// moves whole. What is in the ring stays readable.
    ///
    /// # Errors
    /// The first detachment that failed; the others are done all the same.
    pub fn detach(&mut self) -> Result<(), ProgramError> {
        let mut first = Ok(());
        let hooks: Vec<&Hook> = self.hooks().collect();
        for hook in hooks.into_iter().rev() {
            first = first.and(take_off(&mut self.bpf, hook));
        }
        first
    }
}

/// Runs of BPF programs that the kernel skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissedRuns {
    /// Of programs without which a move is missing.
    pub moves: u64,
    /// Of programs without which a name, a blackout time or a line of the books is missing.
    pub details: u64,
}

/// The BPF side's counters, then its sums by reason; of each one value per CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(Vec<Vec<u64>>);

impl Counters {
    /// Over all CPUs.
    #[must_use]
    pub fn sum(&self, counter: Counter) -> u64 {
        self.by_cpu(counter).iter().sum()
    }

    /// One value per possible CPU.
    #[must_use]
    pub fn by_cpu(&self, counter: Counter) -> &[u64] {
        self.0.get(counter as usize).map_or(&[], Vec::as_slice)
    }

    /// Base pages that moved, were released, or are unseen, for the reason of that number; over all CPUs.
    #[must_use]
    pub fn moved_for(&self, reason: u8) -> u64 {
        let slot = Counter::ALL.len() + usize::from(reason) % REASONS;
        self.0.get(slot).map_or(0, |by_cpu| by_cpu.iter().sum())
    }

    /// Counters of a single CPU, for tests: those given, the others 0.
    #[cfg(test)]
    pub(crate) fn made_up(values: &[(Counter, u64)]) -> Self {
        let mut slots = vec![vec![0]; SLOTS];
        for &(counter, value) in values {
            slots[counter as usize] = vec![value];
        }
        Self(slots)
    }

    /// The same, with a reason's pages.
    #[cfg(test)]
    pub(crate) fn with_moved_for(mut self, reason: u8, pages: u64) -> Self {
        self.0[Counter::ALL.len() + usize::from(reason)] = vec![pages];
        self
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |(now, before): (&Vec<u64>, &Vec<u64>)| {
            now.iter()
                .zip(before)
                .map(|(now, before)| now.wrapping_sub(*before))
                .collect()
        };
        Self(self.0.iter().zip(&earlier.0).map(difference).collect())
    }
}

/// Creates the maps and makes the programs ready to load. The verbosity of the log decides what the BPF side says.
pub(crate) fn load(config: &Config, filter: &Filter, ring_bytes: RingBytes, btf: &Btf) -> Result<Ebpf, CaptureError> {
    let verbosity: u8 = match log::max_level() {
        log::LevelFilter::Off => 0,
        level => level as u8,
    };
    // The buckets of so large a map are memory, whether they are used or not.
    let swapped = if config.kinds & kinds::SWAP == 0 {
        1
    } else {
        MAX_SWAPPED
    };
    EbpfLoader::new()
        .btf(Some(btf))
        .override_global("CONFIG", config.as_bytes(), true)
        .override_global("FILTER", filter.as_bytes(), true)
        .override_global(aya_log::LEVEL, &verbosity, false)
        .map_max_entries("RING", ring_bytes.0)
        .map_max_entries("SWAPPED", swapped)
        .load(object::BYTES)
        .map_err(|e| CaptureError::Object(chain(&e)))
}

fn take_any(bpf: &mut Ebpf, name: &'static str) -> Result<Map, CaptureError> {
    bpf.take_map(name).ok_or_else(|| CaptureError::Map {
        name,
        reason: "not in the object".to_owned(),
    })
}

fn take<T: TryFrom<Map, Error = MapError>>(bpf: &mut Ebpf, name: &'static str) -> Result<T, CaptureError> {
    T::try_from(take_any(bpf, name)?).map_err(|e| map_error(name, &e))
}

fn map_error(name: &'static str, error: &MapError) -> CaptureError {
    CaptureError::Map {
        name,
        reason: chain(error),
    }
}

fn set_membership(targets: &mut BpfHashMap<MapData, u32, u32>, tgid: Tgid, bits: u32) -> Result<(), CaptureError> {
    if bits == 0 {
        // It may not have been there.
        let _ = targets.remove(&tgid.0);
        return Ok(());
    }
    targets.insert(tgid.0, bits, 0).map_err(|e| map_error("TARGETS", &e))
}

/// Attaches hooks; returns the optional ones that were refused. A hook of a kind in `must` is not optional.
fn attach_all(
    bpf: &mut Ebpf,
    hooks: impl Iterator<Item = &'static Hook>,
    must: Kinds,
    types: &KernelTypes,
    config: &Config,
    btf: &Btf,
) -> Result<Vec<Refusal>, CaptureError> {
    let mut refused = Vec::new();
    for hook in hooks {
        if let Err(refusal) = attach(bpf, hook, types, config, btf) {
            if hook.loses.is_none() || hook.is_of(must) {
                return Err(CaptureError::Hook(refusal));
            }
            refused.push(refusal);
        }
    }
    Ok(refused)
}

/// Unloads a hook's program, which closes its links with it; one that was never loaded is fine.
pub(crate) fn take_off(bpf: &mut Ebpf, hook: &Hook) -> Result<(), ProgramError> {
    let result = match bpf.program_mut(hook.program) {
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

/// Loads one program and puts it on its hook, which must pass what the program takes; it stays there until it is
/// unloaded.
pub(crate) fn attach(
    bpf: &mut Ebpf,
    hook: &'static Hook,
    types: &KernelTypes,
    config: &Config,
    btf: &Btf,
) -> Result<(), Refusal> {
    let target = types.check(hook).map_err(|reason| Refusal::differs(hook, reason))?;
    if hook.is_of(Kinds::OUTSIDE) && config.page_offset_base == 0 {
        return Err(Refusal::differs(hook, NO_BASES.to_owned()));
    }
    load_and_attach(bpf, hook, target, btf).map_err(|error| Refusal::new(hook, &error))
}

fn load_and_attach(bpf: &mut Ebpf, hook: &Hook, target: &str, btf: &Btf) -> Result<(), ProgramError> {
    let program = bpf.program_mut(hook.program).ok_or_else(|| ProgramError::InvalidName {
        name: hook.program.to_owned(),
    })?;
    match hook.attach {
        Attach::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Attach::Fexit => {
            let program: &mut FExit = program.try_into()?;
            program.load(target, btf)?;
            program.attach()?;
        }
        Attach::Kprobe => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(target, 0)?;
        }
        Attach::RawTracepoint => {
            let program: &mut RawTracePoint = program.try_into()?;
            program.load()?;
            program.attach(target)?;
        }
    }
    Ok(())
}

/// The error in one line: the system's words, and the verifier's last where it has any.
fn explain(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        if !log.trim().is_empty() {
            log::debug!("verifier: {log}");
        }
        // The statistics come after the complaint.
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
