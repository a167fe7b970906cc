//! Attaches the hooks of the best backend that works, and holds what the programs share with user space.
//! Input: the embedded object, the offsets from the kernel's BTF, the traced processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Btf, Ebpf, EbpfLoader, Endianness,
    maps::{Array, HashMap as BpfHashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{Program, ProgramError, raw_trace_point::RawTracePointLink},
};
use tracer_common::{
    config::{Config, kinds},
    counter::{Counter, SLOTS},
    filter::{Filter, membership},
    task::Task,
};

use crate::{
    decode::Raw,
    kernel::{
        hooks::{Hook, Kinds},
        types::KernelTypes,
    },
    run::{
        backend::Backend,
        counters::{Counters, MissedRuns},
        coverage::Coverage,
    },
    source::{
        UnderWay,
        bpf::{
            attach::{CaptureError, Refusal, attach_all, chain, open_calls, take_off},
            object,
            rings::{RingBytes, Rings},
        },
    },
    units::{Nanos, Tgid},
};

/// The number of pages on swap whose last frame is remembered: 4 GiB of them.
const MAX_SWAPPED: u32 = 1 << 20;

/// The number of tasks for which the copy of a program that ran last is remembered: more than run at the same time.
const MAX_TURNS: u32 = 1 << 14;

/// The limit of steps through the map of targets: twice its size, because the kernel begins again where an entry is gone.
const MOST_STEPS: usize = 1 << 17;

/// The kinds of moves that a run shows.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// All kinds that were requested.
    pub kinds: Kinds,
    /// The kinds among them that the run requires.
    pub must: Kinds,
}

/// The state of a task in the programs.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct TaskState(Task);

// SAFETY: integers only, so any bytes are a value.
unsafe impl aya::Pod for TaskState {}

/// Attached hooks and the mapped rings. Dropping it detaches everything: nothing is pinned, so the kernel does the same
/// when the process dies in any way.
pub struct Capture {
    bpf: Ebpf,
    /// The events of the programs.
    pub rings: Rings,
    counters: PerCpuArray<MapData, [u64; SLOTS]>,
    targets: BpfHashMap<MapData, u32, u32>,
    tasks: BpfHashMap<MapData, u32, TaskState>,
    /// 1: the programs are to leave calls of migrate_pages alone.
    stopped: Array<MapData, u32>,
    config: Config,
    /// The links of the hook that sees calls begin.
    opening: Vec<RawTracePointLink>,
    logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    /// The kinds of moves that were requested.
    pub kinds: Kinds,
    /// The backend that works.
    pub backend: Backend,
    /// Optional hooks that the kernel refused: their facts are missing.
    pub refused: Vec<Refusal>,
}

impl Capture {
    /// Loads the object once and attaches the hooks of the first of the `candidates` that works, except the hook that sees
    /// calls of migrate_pages begin. Returns with it the reasons why the candidates before it did not work. `config` holds
    /// the offsets; `lineage` holds the processes that were requested by number, with their children.
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
        let btf = functions(types)?;
        let mut bpf = load(config, filter, ring_bytes)?;
        let logger = log::log_enabled!(log::Level::Info)
            .then(|| {
                aya_log::EbpfLogger::init(&mut bpf).map_err(|e| log::warn!("no diagnostics from the BPF side: {e}"))
            })
            .and_then(Result::ok);
        let mut targets: BpfHashMap<MapData, u32, u32> = take(&mut bpf, "TARGETS")?;
        for &tgid in lineage {
            set_membership(&mut targets, tgid, membership::LINEAGE)?;
        }
        let mut ring = |name| RingBuf::try_from(take_any(&mut bpf, name)?).map_err(|e| map_error(name, &e));
        let (moves, processes) = (ring("RING")?, ring("PROCESSES")?);
        let reader_sleeps = take(&mut bpf, "READER_SLEEPS")?;
        let rings = Rings::new(moves, processes, reader_sleeps, ring_bytes).map_err(|error| CaptureError::Map {
            name: "PROCESSES",
            reason: error.to_string(),
        })?;
        let counters = take(&mut bpf, "COUNTERS")?;
        let tasks = take(&mut bpf, "TASKS")?;
        let stopped = take(&mut bpf, "STOPPED")?;
        let Asked { kinds, must } = asked;
        let mut failures = Vec::new();
        for (at, &backend) in candidates.iter().enumerate() {
            match attach_all(&mut bpf, backend.hooks(kinds), must, types, config, &btf) {
                Ok(refused) => {
                    let enters = |hook: &Hook| hook.program == "migrate_enter";
                    if backend.hooks(kinds).any(enters) && !refused.iter().any(|refusal| enters(refusal.hook)) {
                        let mut lists_seen: Array<MapData, u32> = take(&mut bpf, "LISTS_SEEN")?;
                        lists_seen.set(0, 1, 0).map_err(|e| map_error("LISTS_SEEN", &e))?;
                    }
                    let capture = Self {
                        bpf,
                        rings,
                        counters,
                        targets,
                        tasks,
                        stopped,
                        config: *config,
                        opening: Vec::new(),
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
                    // Hooks that did attach are detached, so that nothing is observed twice.
                    for hook in backend.hooks(kinds) {
                        take_off(&mut bpf, hook).map_err(|e| CaptureError::Hook(Refusal::new(hook, &e)))?;
                    }
                }
            }
        }
        Err(CaptureError::Object("no backend to try".to_owned()))
    }

    /// The facts that it can know about moves.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let coverage = self.backend.coverage();
        Coverage {
            owners: coverage.owners.with_memory_map(self.config.vmemmap_base != 0),
            ..coverage
        }
    }

    /// The hooks of this run, including those that were refused.
    pub fn hooks(&self) -> impl Iterator<Item = &'static Hook> {
        self.backend.hooks(self.kinds)
    }

    /// The conditions that a process fulfils according to the kernel side, bits of [`membership`].
    #[must_use]
    pub fn membership(&self, tgid: Tgid) -> u32 {
        self.targets.get(&tgid.0, 0).unwrap_or(0)
    }

    /// The conditions that each process fulfils, except those that are ending.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn memberships(&self) -> io::Result<BTreeMap<Tgid, u32>> {
        let all = self
            .targets
            .iter()
            .take(MOST_STEPS)
            .map(|entry| entry.map_err(io::Error::other));
        all.map(|entry| entry.map(|(tgid, bits)| (Tgid(tgid), bits)))
            .filter(|entry| !matches!(entry, Ok((_, bits)) if bits & membership::EXITED != 0))
            .collect()
    }

    /// Reports to the kernel side which conditions a process fulfils.
    ///
    /// # Errors
    /// When the kernel's table is full.
    pub fn set_membership(&mut self, tgid: Tgid, bits: u32) -> Result<(), CaptureError> {
        set_membership(&mut self.targets, tgid, bits)
    }

    /// Lets the programs see calls of migrate_pages begin. Calls that began earlier are not recorded.
    ///
    /// # Errors
    /// When the kernel refuses the hook.
    pub fn open_calls(&mut self) -> Result<(), CaptureError> {
        for hook in self.backend.hooks(self.kinds).filter(|hook| hook.opens_calls()) {
            let links = open_calls(&mut self.bpf, hook, &self.config).map_err(CaptureError::Hook)?;
            self.opening.extend(links);
        }
        Ok(())
    }

    /// Lets the programs see no more calls begin. Calls under way are recorded until they end.
    pub fn close_calls(&mut self) {
        self.opening.clear();
    }

    /// Returns the calls that are under way, with the base pages of their events.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn under_way(&self) -> io::Result<UnderWay> {
        self.tasks.iter().try_fold(UnderWay::default(), |sum, task| {
            let (_, TaskState(task)) = task.map_err(io::Error::other)?;
            Ok(UnderWay {
                calls: sum.calls + u64::from(task.depth),
                pages: sum.pages + task.unbooked(0),
            })
        })
    }

    /// Appends records as [`Rings::take`] does, and passes on what the programs log.
    pub fn take(&mut self, limit: usize, now: Nanos, records: &mut Vec<Raw>) -> usize {
        let taken = self.rings.take(limit, now, records);
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        taken
    }

    /// The number of process events that found no room in their ring.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn lost_processes(&self) -> io::Result<u64> {
        let by_cpu = self.counters.get(&0, 0).map_err(io::Error::other)?;
        Ok(by_cpu.iter().map(|slots| slots[Counter::LostProcesses as usize]).sum())
    }

    /// The counters of every CPU.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counters(&self) -> io::Result<Counters> {
        let by_cpu = self.counters.get(&0, 0).map_err(io::Error::other)?;
        Ok(Counters::new(
            (0..SLOTS)
                .map(|slot| by_cpu.iter().map(|slots| slots[slot]).collect())
                .collect(),
        ))
    }

    /// The number of times that a program was not run because it, or a task that was preempted inside it, was already
    /// running on that CPU (`recursion_misses`, kernel/bpf/syscall.c `bpf_prog_show_fdinfo`), and that no second copy
    /// of it stood in.
    ///
    /// # Errors
    /// When /proc or the counters cannot be read.
    pub fn missed_runs(&self) -> io::Result<MissedRuns> {
        let (mut missed, mut both) = (MissedRuns::default(), MissedRuns::default());
        let mut of_first_copies = 0;
        for hook in self.hooks() {
            let Some(times) = self.misses(hook.program)? else {
                continue; // refused
            };
            let again = hook.again().map(|again| self.misses(&again)).transpose()?;
            if times > 0 {
                log::debug!("{} was skipped {times} times, its second copy {again:?}", hook.label());
            }
            match again.flatten() {
                Some(again) => {
                    of_first_copies += times;
                    both.add(hook, times.min(again));
                }
                None => missed.add(hook, times),
            }
        }
        // This is read after the misses, so that a miss in between is not counted as lost.
        missed.stood_in = self.counters()?.sum(Counter::StoodIn);
        let lost = of_first_copies.saturating_sub(missed.stood_in);
        missed.events += both.events.min(lost);
        missed.details += both.details.min(lost.saturating_sub(both.events));
        Ok(missed)
    }

    /// The number of times that the kernel skipped this program. None: it is not loaded.
    fn misses(&self, program: &str) -> io::Result<Option<u64>> {
        let Some(Ok(fd)) = self.bpf.program(program).map(Program::fd) else {
            return Ok(None);
        };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
        let times = info
            .lines()
            .find_map(|line| line.strip_prefix("recursion_misses:"))
            .and_then(|n| n.trim().parse().ok());
        Ok(Some(times.unwrap_or(0)))
    }

    /// Stops recording calls of migrate_pages at once, then detaches every hook, which takes seconds. The records in the
    /// ring stay readable.
    ///
    /// # Errors
    /// The first detachment that failed; the others are done nevertheless.
    pub fn detach(&mut self) -> Result<(), ProgramError> {
        let mut first = self.stopped.set(0, 1, 0).map_err(ProgramError::from);
        self.close_calls();
        let hooks: Vec<&Hook> = self.hooks().collect();
        for hook in hooks.into_iter().rev() {
            first = first.and(take_off(&mut self.bpf, hook));
        }
        first
    }
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

/// The functions that programs attach to, in a form that the loader searches fast: it goes through all types for each
/// program.
pub(crate) fn functions(types: &KernelTypes) -> Result<Btf, CaptureError> {
    Btf::parse(&types.hooked_functions(), Endianness::default()).map_err(|e| CaptureError::Object(chain(&e)))
}

/// Creates the maps and prepares the programs for loading. The log's verbosity decides which messages the BPF side
/// writes.
pub(crate) fn load(config: &Config, filter: &Filter, ring_bytes: RingBytes) -> Result<Ebpf, CaptureError> {
    let verbosity: u8 = match log::max_level() {
        log::LevelFilter::Off => 0,
        level => level as u8,
    };
    let mut loader = EbpfLoader::new();
    // The kernel allocates a map's memory, or at least its buckets, when it creates the map. None: the object's size.
    let (swap, cow) = (config.kinds & kinds::SWAP != 0, config.kinds & kinds::COW != 0);
    let sizes = [
        ("SWAPPED", swap, Some(MAX_SWAPPED)),
        ("LEAVING", swap, None),
        ("RETURNING", swap, None),
        ("FAULTS", cow, None),
        ("TURNS", config.twice != 0, Some(MAX_TURNS)),
        ("TARGETS", filter.need != 0, None),
    ];
    for (map, used, entries) in sizes {
        if let Some(entries) = if used { entries } else { Some(1) } {
            loader.map_max_entries(map, entries);
        }
    }
    // The object does not refer to the kernel's types: it has no CO-RE relocations.
    loader
        .btf(None)
        .override_global("CONFIG", config.as_bytes(), true)
        .override_global("FILTER", filter.as_bytes(), true)
        .override_global(aya_log::LEVEL, &verbosity, false)
        .map_max_entries("RING", ring_bytes.entries())
        .map_max_entries("PROCESSES", ring_bytes.of_processes().entries())
        .load(object::BYTES)
        .map_err(|e| CaptureError::Object(chain(&e)))
}
