//! `tracer pages`: where the pages of processes are, and the contents of the machine's frames.
//! Input: the command line; `pages` reads everything else.

use std::{
    fs,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail};

use crate::{
    cli::{
        progress::Meter,
        values::{self, process_number},
        view,
    },
    confinement::{Work, confine},
    kernel::topology::Topology,
    pages::{
        self,
        extent::State,
        filter::{self, Choice, Filter, Flags},
        frames::Machine,
        map,
        sums::Sums,
        survey::{Frames, Groups, Places, by_place},
        walk::{Step, WalkError, Walked, walk},
    },
    proc::{
        cgroup::{self, Cgroup, Hierarchy},
        process, zones,
    },
    render::pages::{
        Format, ProcessCounts, Who,
        csv::Csv,
        help,
        json::Json,
        map::Map,
        survey,
        text::{Rows, Text},
    },
    session::filters::values::Range,
    units::{NodeId, Order, PAGE_SHIFT, Pfn, Tgid},
};

/// The default number of rows of a table.
const ROWS: usize = 40;
/// The width of text that is not written to a terminal.
const WIDTH: usize = 120;

const EXAMPLES: &str = "\
Examples:
  sudo tracer pages -p 4711                      by mapping: size, present, swapped, by node, by page size, flags
  sudo tracer pages -p 4711 --node 1 --each      each extent of pages that is on node 1
  sudo tracer pages -p 4711 --vma '[heap]'       is the heap where it was bound to
  sudo tracer pages -a                           every process, the largest first
  tracer pages -p $$                             without root: sizes and states, frames are hidden
  sudo tracer pages -p 4711 --map                its address space as a map, by node
  sudo tracer pages --all-memory                 every frame of the machine: free, anonymous, slab, ...
  tracer pages --flags-help                      every flag and state, and what it means

Nothing is touched: no page is faulted in, and holes stay holes.
Exit codes: 0 complete, 1 something is missing (a process ended or may not be read), 2 could not.";

/// Options of `tracer pages`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// These processes
    #[arg(short, long, value_name = "PID", value_delimiter = ',', num_args = 1.., value_parser = process_number)]
    pub pid: Vec<u32>,

    /// Every process
    #[arg(short, long, conflicts_with = "pid")]
    pub all: bool,

    /// Only processes in this cgroup (v2) or below it; a path, or 0::PATH as /proc/PID/cgroup prints it; may be repeated
    #[arg(long, value_name = "PATH", value_parser = values::cgroup)]
    pub cgroup: Vec<String>,

    /// Only processes of this name: * any characters, ? one
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub comm: Vec<String>,

    /// A row for each process or for each mapping [default: vma with --pid, else process]
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "each")]
    pub by: Option<By>,

    /// A row for each extent of pages that have all properties in common
    #[arg(long)]
    pub each: bool,

    /// A map of each address space, one character for each stretch of memory, by node, size or state
    #[arg(long, value_name = "BY", value_enum, num_args = 0..=1, require_equals = true,
          default_missing_value = "node", conflicts_with_all = ["each", "by", "json", "csv"])]
    pub map: Option<Shades>,

    /// The physical side: the frames of this range, hexadecimal, by flags, node, zone and size; free ones included
    #[arg(long, value_name = "START-END", value_parser = values::range,
          conflicts_with_all = ["pid", "all", "cgroup", "comm", "by", "map", "all_memory", "vma", "address", "state"])]
    pub pfn: Option<Range>,

    /// The physical side of the whole machine
    #[arg(long, conflicts_with_all = ["pid", "all", "cgroup", "comm", "by", "map", "vma", "address", "state"])]
    pub all_memory: bool,

    /// The number of rows of each table
    #[arg(short = 'n', long, value_name = "N", default_value_t = ROWS)]
    pub rows: usize,

    /// Print JSON, one object a line
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,

    /// Print CSV
    #[arg(long)]
    pub csv: bool,

    /// List every flag and state with its meaning, and end
    #[arg(long)]
    pub flags_help: bool,

    /// Which pages
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// The selection of pages.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Filters (all that are given must match, each with any of its values)")]
pub struct FilterArgs {
    /// Only pages with all of these flags, or with !NAME without it: dirty,!lru; --flags-help lists them
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub flags: Vec<String>,

    /// Only pages on this NUMA node
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub node: Vec<u32>,

    /// Only mappings of this name, as tables show it with its whole path: '[heap]', '*libc*', anon
    #[arg(long, value_name = "PATTERN")]
    pub vma: Vec<String>,

    /// Only pages in this range of virtual addresses, hexadecimal as in /proc/PID/maps
    #[arg(long, value_name = "START-END", value_delimiter = ',', value_parser = values::range)]
    pub address: Vec<Range>,

    /// Only pages of folios of this order or size: 0 or 4K, 9 or 2M
    #[arg(long, value_name = "ORDER|SIZE", value_delimiter = ',', value_parser = values::order)]
    pub size: Vec<Order>,

    /// Only pages in this state: present, swapped, migrating, guard; --flags-help lists them
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state)]
    pub state: Vec<State>,
}

/// The subject of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// A process.
    Process,
    /// A mapping.
    Vma,
}

/// The property that the cells of a map show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shades {
    /// By node.
    Node,
    /// By the size of the folios.
    Size,
    /// By state.
    State,
}

impl From<Shades> for map::By {
    fn from(shades: Shades) -> Self {
        match shades {
            Shades::Node => Self::Node,
            Shades::Size => Self::Size,
            Shades::State => Self::State,
        }
    }
}

fn state(text: &str) -> Result<State, String> {
    State::by_name(text).ok_or_else(|| {
        let known: Vec<&str> = State::ALL.into_iter().map(State::name).collect();
        format!("a page is {}", known.join(", "))
    })
}

impl FilterArgs {
    fn check(&self) -> anyhow::Result<Filter> {
        let mut flags = Flags::default();
        for word in &self.flags {
            flags.add(word).map_err(|error| anyhow::anyhow!("--flags: {error}"))?;
        }
        Ok(Filter {
            flags,
            nodes: self.node.iter().copied().map(NodeId).collect(),
            vmas: self.vma.clone(),
            addresses: self.address.iter().map(|range| (range.start, range.end)).collect(),
            orders: self.size.clone(),
            states: self.state.clone(),
        })
    }
}

/// Runs `tracer pages`.
///
/// # Errors
/// When the options make no sense, or nothing can be shown.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.flags_help {
        view::print(&help::flags())?;
        return Ok(ExitCode::SUCCESS);
    }
    let filter = args.filter.check()?;
    if let Some(range) = frame_range(args) {
        return unless_unread(physical(args, range, &filter)).map(|()| ExitCode::SUCCESS);
    }
    let chosen = Chosen::of(args)?;
    let machine = Machine::open();
    confine(Work::Processes, None);
    known_nodes(&filter, &machine)?;
    let out = view::stdout(None)?;
    let width = view::columns().unwrap_or(WIDTH);
    let by = args
        .by
        .unwrap_or(if args.pid.is_empty() { By::Process } else { By::Vma });
    let rows = match by {
        _ if args.each => Rows::Runs,
        By::Vma => Rows::Vmas,
        By::Process => Rows::Processes,
    };
    let shown = if let Some(by) = args.map {
        chosen.show(&machine, &filter, Map::new(out, by.into(), width))
    } else if args.json {
        chosen.show(&machine, &filter, Json::new(out, args.each, rows != Rows::Processes))
    } else if args.csv {
        chosen.show(&machine, &filter, Csv::new(out, args.each)?)
    } else {
        chosen.show(&machine, &filter, Text::new(out, rows, width, args.rows))
    };
    unless_unread(shown).map(|counts| ExitCode::from(u8::from(!counts.complete())))
}

/// Ignores the error that the reader of the output is gone.
fn unless_unread<T: Default>(shown: anyhow::Result<T>) -> anyhow::Result<T> {
    match shown {
        Err(error) if is_broken_pipe(&error) => Ok(T::default()),
        shown => shown,
    }
}

/// The requested frames.
fn frame_range(args: &Args) -> Option<std::ops::Range<Pfn>> {
    let given = args.pfn.map(|range| Pfn(range.start.0)..Pfn(range.end.0));
    given.or(args.all_memory.then_some(Pfn(0)..Pfn(u64::MAX)))
}

/// Shows the frames of the machine.
fn physical(args: &Args, range: std::ops::Range<Pfn>, filter: &Filter) -> anyhow::Result<()> {
    if filter.flags.entry != Choice::default() {
        bail!("--flags: a frame has none of the flags of a page table entry; tracer pages --flags-help lists them");
    }
    let machine = Machine::open();
    confine(Work::Processes, None);
    known_nodes(filter, &machine)?;
    if !machine.has_flags() {
        let missing = machine.missing.map_or_else(String::new, |error| error.to_string());
        bail!("{missing}\n  the frames of the machine are shown to root only: run with sudo");
    }
    let places = Places::new(machine.topology.as_ref(), zones::read().unwrap_or_default());
    let style = match (args.json, args.csv) {
        (true, _) => survey::Style::Json,
        (false, true) => survey::Style::Csv,
        (false, false) => survey::Style::Text,
    };
    let mut out = view::stdout(None)?;
    let mut groups = Groups::default();
    let mut written = Ok(());
    if args.each {
        survey::heading(&mut out, style)?;
    }
    let whole = machine.topology.iter().flat_map(Topology::frames);
    let last = whole
        .map(|(frames, _)| frames.end.0)
        .max()
        .unwrap_or(0)
        .min(range.end.0);
    let mut meter = Meter::new(last.saturating_sub(range.start.0) << PAGE_SHIFT, true);
    let mut show = |frames: &Frames| {
        by_place(frames, &places, &mut |frames, node, zone| {
            let wanted = (filter.nodes.is_empty() || node.is_some_and(|node| filter.nodes.contains(&node)))
                && (filter.orders.is_empty() || frames.order.is_some_and(|order| filter.orders.contains(&order)))
                && filter.flags.frame.holds(frames.flags.bits());
            if !wanted {
                return;
            }
            if !args.each {
                groups.add(frames, node, zone);
            } else if written.is_ok() {
                written = survey::extent(&mut out, style, frames, node, zone);
            }
        });
    };
    let seen = pages::survey::survey(&machine, range, &mut show, &mut |pages| {
        meter.advance(pages << PAGE_SHIFT);
    })?;
    drop(meter);
    written?;
    if seen == 0 {
        bail!("--pfn: the machine has no such frames");
    }
    if !args.each {
        survey::groups(&mut out, style, &groups, args.rows)?;
    }
    out.flush()?;
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |cause: &(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is)
}

fn known_nodes(filter: &Filter, machine: &Machine) -> anyhow::Result<()> {
    let Some(topology) = &machine.topology else {
        return Ok(());
    };
    let known = topology.nodes();
    for &node in &filter.nodes {
        if !known.iter().any(|known| known.id == node) {
            let known: Vec<String> = known.iter().map(|known| known.id.to_string()).collect();
            bail!("--node: no node {node}; this machine has {}", known.join(", "));
        }
    }
    Ok(())
}

/// The requested processes.
struct Chosen {
    processes: Vec<Who>,
    /// Whether they were requested by number: then a read error is fatal if there is only one.
    by_number: bool,
}

impl Chosen {
    fn of(args: &Args) -> anyhow::Result<Self> {
        let by_number = !args.pid.is_empty();
        if !by_number && !args.all && args.cgroup.is_empty() && args.comm.is_empty() {
            bail!(
                "no process is given\n  one: tracer pages -p PID; all: tracer pages -a; its options: tracer pages --help"
            );
        }
        let cgroups = match args.cgroup.as_slice() {
            [] => Vec::new(),
            given => {
                let hierarchy = Hierarchy::find()?;
                let resolved = given.iter().map(|path| hierarchy.resolve(path));
                resolved.collect::<Result<Vec<Cgroup>, _>>()?
            }
        };
        let mut processes = if by_number {
            let mut given = Vec::new();
            for &pid in &args.pid {
                let target = process::check_target(pid)?;
                if target.given_tid.0 != target.tgid.0 {
                    log::warn!("{pid} is a thread of {0}: showing {0}", target.tgid);
                }
                given.push(Who {
                    tgid: target.tgid,
                    comm: target.comm,
                });
            }
            given
        } else {
            everybody()?
        };
        processes.retain(|who| {
            let name = args.comm.is_empty() || args.comm.iter().any(|pattern| filter::matches(pattern, &who.comm));
            name && (cgroups.is_empty() || is_in(&cgroups, who.tgid))
        });
        if processes.is_empty() {
            bail!("no process fits");
        }
        Ok(Self { processes, by_number })
    }

    fn show(self, machine: &Machine, filter: &Filter, mut format: impl Format) -> anyhow::Result<ProcessCounts> {
        let mut counts = ProcessCounts::default();
        let mut all = Sums::default();
        let total = self.processes.iter().map(|who| mapped(who.tgid)).sum();
        let mut meter = Meter::new(total, true);
        let lonely = self.by_number && self.processes.len() == 1;
        for who in &self.processes {
            match one(who, machine, filter, &mut format, &mut meter) {
                Ok((walked, sums)) => {
                    if walked.ended {
                        counts.ended += 1;
                    } else {
                        counts.whole += 1;
                    }
                    all.merge(&sums);
                }
                Err(WalkError::Read { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(source.into());
                }
                Err(error) if lonely => return Err(hint(error)),
                Err(WalkError::Ended(_)) => counts.ended += usize::from(self.by_number),
                Err(error) => {
                    if self.by_number {
                        log::warn!("{error}");
                    }
                    counts.unreadable += 1;
                }
            }
        }
        drop(meter);
        if counts.whole + counts.ended == 0 {
            bail!("none of {} processes may be read: run with sudo", counts.unreadable);
        }
        format.finish(&counts, &all)?;
        Ok(counts)
    }
}

fn hint(error: WalkError) -> anyhow::Error {
    match &error {
        WalkError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{error}\n  another user's process is shown to root only: run with sudo")
        }
        WalkError::Read { .. } | WalkError::Ended(_) => error.into(),
    }
}

/// Shows one process.
fn one(
    who: &Who,
    machine: &Machine,
    filter: &Filter,
    format: &mut impl Format,
    meter: &mut Meter,
) -> Result<(Walked, Sums), WalkError> {
    let failed = |source| WalkError::Read { tgid: who.tgid, source };
    let (mut all, mut sums) = (Sums::default(), Sums::default());
    let mut vma = None;
    let mut begun = false;
    let walked = walk(who.tgid, machine, filter, &mut |step| {
        if !std::mem::replace(&mut begun, true) {
            format.begin(who)?;
        }
        match (step, &vma) {
            (Step::Vma(next), _) => {
                vma = Some(Arc::clone(next));
                sums = Sums::default();
            }
            (Step::Extent(extent), Some(vma)) => {
                sums.add(extent);
                format.extent(who, vma, extent)?;
            }
            (Step::End(outcome), Some(vma)) => {
                all.merge(&sums);
                // With a filter for pages, a mapping without matching pages is left out.
                if sums.entries() > 0 || !filter.chooses_pages() {
                    format.vma(who, vma, &sums, outcome.unread)?;
                }
            }
            (Step::Bytes(bytes), _) => meter.advance(bytes),
            (Step::Extent(_) | Step::End(_), None) => {}
        }
        Ok(())
    })?;
    format.end(who, &walked, &all).map_err(failed)?;
    Ok((walked, all))
}

/// Every process with memory, except this one.
fn everybody() -> anyhow::Result<Vec<Who>> {
    let own = Tgid(std::process::id());
    let all = process::list().context("cannot list the processes")?;
    let others = all.into_iter().filter(|&tgid| tgid != own);
    // A process that has ended, a kernel thread or a zombie has no memory.
    let known = others.filter_map(|tgid| {
        let status = process::Status::read(tgid.0).ok()?;
        status.vm_size_kib?;
        Some(Who {
            tgid,
            comm: status.comm,
        })
    });
    Ok(known.collect())
}

fn is_in(cgroups: &[Cgroup], tgid: Tgid) -> bool {
    cgroup::read(tgid).is_ok_and(|text| cgroups.iter().any(|cgroup| cgroup.holds(&text)))
}

/// Bytes of address space, only for the progress line.
fn mapped(tgid: Tgid) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{tgid}/statm")).unwrap_or_default();
    let pages = statm.split(' ').next().and_then(|word| word.parse::<u64>().ok());
    pages.unwrap_or(0) << PAGE_SHIFT
}
