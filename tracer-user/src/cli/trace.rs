//! Tracing live: checks, attaches, runs the pipeline into the wanted sink, and says how it went.
//! Input: the parsed command line.

mod args;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    future::pending,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    system::uname,
    time::{ClockId, clock_gettime},
};
use tracer_common::filter::membership;

use args::BackendChoice;
pub use args::{Args, process_number};

use crate::{
    analysis::{books, nodes},
    cli::{
        Refused,
        command::{self, Held, Running},
        filters::Compiled,
        signals::Signals,
        targets::{self, Targets},
    },
    correlate::{Correlator, processes::Processes},
    escape::Printable,
    kernel::{
        capabilities::{Capabilities, Capability},
        hooks::{Hook, Kinds},
        kcore, preemption, release,
        topology::Topology,
        types::{self, KernelTypes},
    },
    pipeline::{End, Pipeline},
    proc::process,
    render::text::{sentence, words},
    run::{
        backend::Backend,
        clock::now,
        header::{Header, MissingHook, NodeFrames},
        summary::Summary,
    },
    section::{Cell, joined},
    sink::Sink,
    source::bpf::{
        attach::CaptureError,
        ring::{Asked, Capture},
    },
    units::Tgid,
};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where events go.
pub struct Output {
    /// All of these.
    pub sinks: Vec<Box<dyn Sink>>,
    /// One of them is standard output: the run ends when nobody reads it.
    pub to_stdout: bool,
}

/// The exit code that shells show for SIGINT.
const INTERRUPTED: u8 = 128 + 2;

/// Traces into the sinks that `open` gives when the kernel has taken the hooks.
///
/// # Errors
/// Whatever keeps tracing from starting; what happens later is reported and shows in the exit code.
pub fn run(args: &Args, open: impl FnOnce(&Header) -> anyhow::Result<Output>) -> anyhow::Result<ExitCode> {
    if args.pid.is_empty() && !args.all && args.command.is_empty() && !args.filters.select() {
        return Err(Refused(
            "whose pages? Give -p PID, -a for every process, or -- COMMAND to start one (tracer --help)".to_owned(),
        )
        .into());
    }
    check_privileges()?;
    let follow = !args.no_children;
    let mut targets = if args.pid.is_empty() {
        None
    } else {
        Some(Targets::resolve(&args.pid, follow)?)
    };
    let held = if args.command.is_empty() {
        None
    } else {
        Some(command::hold(&args.command)?)
    };
    let types = KernelTypes::read(Path::new(types::VMLINUX))?;
    let topology = Topology::read().context("cannot tell the NUMA node of a frame")?;
    let names = types.names();
    let lineage = match (&targets, &held) {
        (Some(targets), _) => targets.tgids.clone(),
        (None, Some(held)) if !args.all => BTreeSet::from([held.tgid]),
        (None, _) => BTreeSet::new(),
    };
    let wanted = args.filters.compile(!lineage.is_empty(), follow, &names, &topology)?;

    let (mut capture, fallbacks) = attach(args, &types, &topology, &wanted, &lineage)?;
    // Those that were there before the hooks on processes, and children made between the look into /proc and the hook
    // on fork.
    let members = if wanted.filter.need == 0 {
        BTreeMap::new()
    } else {
        targets::enrol(&mut capture, &wanted, &lineage)?
    };
    tell(&capture, &wanted, members.len());
    if let Some(targets) = &mut targets {
        let lineage = members.iter().filter(|(_, bits)| **bits & membership::LINEAGE != 0);
        targets.tgids = lineage.map(|(tgid, _)| *tgid).collect();
    }

    let header = Header {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: uname().nodename().to_string_lossy().into_owned(),
        boot_id: fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned(),
        command_line: env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        begun: now(),
        frames: frames(&topology),
        kernel: release::release(),
        nodes: topology.nodes().len(),
        backend: capture.backend,
        kinds: capture.kinds,
        fallbacks,
        refused: capture.refused.iter().map(MissingHook::from).collect(),
        targets: describe(targets.as_ref(), held.as_ref(), args.all) + &wanted.words,
        clock_offset: clock_offset(),
    };
    let find_owners = capture.backend == Backend::Tracepoint;
    let processes = Processes::new(wanted.filter.need, members);
    let unowned = wanted.filter.need == 0 && wanted.filter.range_count == 0;
    let correlator = Correlator::new(processes, topology, names, find_owners, unowned);
    drop(types); // the kernel's BTF: several MiB

    // A fifo is open when somebody reads it: until then signals end the process by themselves.
    let Output { sinks, to_stdout } = open(&header)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::catch().context("cannot catch signals")?
    };
    let pipeline = Pipeline::begin(capture, correlator, sinks, &header).context("cannot begin")?;
    if !args.quiet {
        greet(&header, args.duration);
    }
    let running = held.map(Held::release).transpose()?;
    let gone = targets.filter(|_| !args.quiet).map(|targets| targets.describe_end());
    runtime.block_on(follow_through(args, pipeline, running, signals, (gone, to_stdout)))
}

/// Runs the pipeline to its end, then waits for the COMMAND if there is one. `gone` says that the targets have ended.
async fn follow_through(
    args: &Args,
    mut pipeline: Pipeline,
    mut running: Option<Running>,
    mut signals: Signals,
    (gone, to_stdout): (Option<String>, bool),
) -> anyhow::Result<ExitCode> {
    let stdout = io::stdout();
    let reader_gone = || {
        if !to_stdout {
            return false;
        }
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && fds[0].revents().contains(PollFlags::ERR)
    };
    let ran = pipeline
        .run(asked_to_end(args.duration, running.as_mut(), &mut signals), reader_gone)
        .await;
    if let (Ok(End::TargetsGone), Some(gone)) = (&ran, gone) {
        let _ = writeln!(io::stderr(), "tracer: {gone}");
    }
    if let Ok(End::Full) = ran {
        let _ = writeln!(
            io::stderr(),
            "tracer: the recording is as large as --max-size lets it be: that is the end of it"
        );
    }
    let outcome = judge(ran, pipeline.finish(), args.strict);
    let Some(mut running) = running else {
        return outcome.map(ExitCode::from);
    };
    if let Err(error) = outcome {
        super::report(&error);
    }
    outlive(&mut running, &mut signals).await.map(ExitCode::from)
}

/// Waits for the COMMAND's end, unless its user insists; returns the exit code.
async fn outlive(running: &mut Running, signals: &mut Signals) -> anyhow::Result<u8> {
    loop {
        if let Some(status) = running.ended().context("cannot wait for the command")? {
            return Ok(command::exit_code(status));
        }
        if running.abandoned() {
            log::warn!("{} ignores Ctrl-C and goes on", running.tgid());
            return Ok(INTERRUPTED);
        }
        if let Some(signal) = signals.next().await {
            running.hear(signal);
        }
    }
}

/// The exit code of a run without a COMMAND: 1 where something was lost, or where `strict` asks for a proof that there
/// is not.
fn judge(ran: io::Result<End>, finished: io::Result<Summary>, strict: bool) -> anyhow::Result<u8> {
    let end = ran.context("the run ended early")?;
    let summary = match finished {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
        other => other.context("the run has no complete end")?,
    };
    if end == End::BrokenPipe {
        return Ok(0);
    }
    let unproven = strict && !summary.books.proven();
    if unproven {
        let whole = &summary.books.whole;
        let mut why = books::complaints(whole);
        why.extend(books::unbalanced(&summary.books.intervals, whole.begin));
        if why.is_empty() {
            why.push(books::unproven(whole));
        }
        let why = sentence(&joined(why, "; "));
        let _ = writeln!(io::stderr(), "tracer: --strict: {why}");
    }
    Ok(u8::from(unproven || summary.books.lost.events() > 0))
}

/// Ready when a signal, the clock or the COMMAND's end says so.
async fn asked_to_end(duration: Option<Duration>, mut running: Option<&mut Running>, signals: &mut Signals) {
    let clock = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => pending().await,
        }
    };
    let mut clock = pin!(clock);
    loop {
        // The COMMAND is its user's to end; its end ends the run. An error is told by the last wait for it.
        if let Some(running) = &mut running
            && (running.abandoned() || !matches!(running.ended(), Ok(None)))
        {
            return;
        }
        let caught = tokio::select! {
            () = &mut clock => return,
            caught = signals.next() => caught,
        };
        match (caught, &mut running) {
            (Some(signal), Some(running)) => running.hear(signal),
            (Some(_), None) => return,
            (None, _) => {}
        }
    }
}

fn check_privileges() -> anyhow::Result<()> {
    let capabilities = Capabilities::read().context("cannot read this process's capabilities")?;
    let missing = if capabilities.has(Capability::SysAdmin) {
        None
    } else {
        [Capability::Bpf, Capability::Perfmon, Capability::SysAdmin]
            .into_iter()
            .find(|&c| !capabilities.has(c))
    };
    if let Some(missing) = missing {
        return Err(Refused(format!(
            "tracing the kernel and reading frame numbers needs {missing}: run with sudo (tracer doctor shows what else is missing)"
        ))
        .into());
    }
    if !process::in_initial_pid_namespace().context("cannot look at /proc/self/ns/pid")? {
        return Err(Refused(
            "this is a PID namespace of its own (a container?), where the kernel's process numbers mean nothing: \
             run tracer on the host, or the container with --pid=host"
                .to_owned(),
        )
        .into());
    }
    Ok(())
}

/// Attaches the best backend that works; says which better ones were refused.
fn attach(
    args: &Args,
    types: &KernelTypes,
    topology: &Topology,
    wanted: &Compiled,
    lineage: &BTreeSet<Tgid>,
) -> anyhow::Result<(Capture, Vec<String>)> {
    let mut config = types.config()?;
    config.pfn_bits = topology.pfn_bits();
    kcore::add_bases(&mut config);
    config.twice = preemption::preempts().into();
    let (kinds, must) = kinds(args)?;
    config.kinds = kinds.bits();
    // What was asked for by name is not traded for another backend.
    let sees = |backend: &&Backend| !must.any_of(Kinds::OUTSIDE) || backend.sees().any_of(Kinds::OUTSIDE);
    let candidates: Vec<Backend> = args.backend.candidates().iter().filter(sees).copied().collect();
    let asked = Asked { kinds, must };
    match Capture::start(
        &candidates,
        asked,
        types,
        &config,
        &wanted.filter,
        args.ring_size,
        lineage,
    ) {
        Ok((capture, failures)) => Ok((capture, failures.iter().map(ToString::to_string).collect())),
        Err(error) => Err(refused(
            candidates.last().copied().unwrap_or(Backend::Tracepoint),
            &error,
        )),
    }
}

/// The kinds of moves to show, and those of them that were asked for by name.
fn kinds(args: &Args) -> anyhow::Result<(Kinds, Kinds)> {
    let Some(asked) = args.kinds.iter().map(|kind| kind.set()).reduce(Kinds::and) else {
        return Ok((Kinds::DEFAULT, Kinds::NONE));
    };
    if asked.any_of(Kinds::OUTSIDE) && args.backend == BackendChoice::Tracepoint {
        return Err(Refused(
            "--backend tracepoint sees moves through migrate_pages only: --kinds move, or the exact backend".to_owned(),
        )
        .into());
    }
    Ok((asked, asked))
}

/// For `-v`: what is attached, and how many processes fulfil something of what is asked for.
fn tell(capture: &Capture, wanted: &Compiled, members: usize) {
    let refused = |hook: &Hook| capture.refused.iter().any(|refusal| std::ptr::eq(refusal.hook, hook));
    for hook in capture.hooks().filter(|hook| !refused(hook)) {
        log::info!("attached {}", hook.label());
    }
    match wanted.filter.need {
        0 => log::info!("every process is traced"),
        _ => log::info!("processes to trace at the start: {members}"),
    }
}

fn refused(backend: Backend, error: &CaptureError) -> anyhow::Error {
    let hint = match (error, backend) {
        (CaptureError::Hook(_), Backend::Exact) if error.is_refused() => {
            "the kernel refuses function hooks (lockdown?): try --backend tracepoint"
        }
        (CaptureError::Hook(_), Backend::Exact) => {
            "try --backend tracepoint; tracer doctor shows hook by hook what works"
        }
        // Capabilities were checked before.
        (_, Backend::Exact | Backend::Tracepoint) if error.is_refused() => {
            "something forbids BPF even to root: a container's seccomp filter (run on the host), \
             or lockdown=confidentiality (see /sys/kernel/security/lockdown)"
        }
        (_, Backend::Exact | Backend::Tracepoint) => "tracer doctor shows hook by hook what works",
    };
    Refused(format!("{error}\n  {hint}")).into()
}

fn describe(targets: Option<&Targets>, held: Option<&Held>, all: bool) -> String {
    let held = held.map(|held| format!("{}[{}]", Printable(&held.name().to_string_lossy()), held.tgid));
    match (targets, held) {
        (Some(targets), _) => targets.describe(),
        (None, Some(held)) if all => format!("every process, while {held} runs"),
        (None, Some(held)) => held,
        (None, None) => "every process".to_owned(),
    }
}

/// What is missing from the rows, and the line above them. Talk: on stderr.
fn greet(header: &Header, duration: Option<Duration>) {
    let mut err = io::stderr().lock();
    for fallback in &header.fallbacks {
        let _ = writeln!(
            err,
            "note: no function hooks here ({fallback}): going on with the {} backend, owners come from pagemap{}; \
             tracer doctor explains",
            header.backend,
            if header.kinds.any_of(Kinds::COLLAPSE) {
                ", collapses are not seen"
            } else {
                ""
            }
        );
    }
    if header.fallbacks.is_empty() && header.backend == Backend::Tracepoint && header.kinds.any_of(Kinds::COLLAPSE) {
        let _ = writeln!(err, "note: the tracepoint backend does not see collapses");
    }
    for refusal in &header.refused {
        let _ = writeln!(
            err,
            "tracer: cannot attach {}: {}; missing: {}",
            refusal.hook, refusal.reason, refusal.loses
        );
    }
    if header.nodes == 1 {
        log::info!("one NUMA node: pages move for compaction and the like, not between nodes");
    }
    let end = match duration {
        Some(duration) => format!("{} s", duration.as_secs_f64()),
        None if io::stdin().is_terminal() => "Ctrl-C to end".to_owned(),
        None => "Ctrl-C or kill -INT ends".to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(
        err,
        "tracer {version} · Linux {} · {} · {} · {} · {end}",
        header.kernel,
        words(&nodes(header)),
        words(&Cell::Backend(header.backend)),
        header.targets
    );
}

fn frames(topology: &Topology) -> Vec<NodeFrames> {
    let spans = topology.frames().map(|(frames, node)| NodeFrames {
        first: frames.start,
        end: frames.end,
        node,
    });
    spans.collect()
}

fn clock_offset() -> i128 {
    let nanos = |id| {
        let time = clock_gettime(id);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    nanos(ClockId::Realtime) - nanos(ClockId::Monotonic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, run::books::Lost};

    fn code(change: impl Fn(&mut Summary), strict: bool) -> u8 {
        let mut summary = made_up::summary();
        let whole = &mut summary.books.whole;
        (whole.kernel, whole.unbalanced_calls) = (Some(903), 0);
        (whole.blind_to_unmapped, whole.settled) = (false, true);
        whole.checks.retain(|check| check.difference() == 0);
        summary.books.lost = Lost::default();
        change(&mut summary);
        judge(Ok(End::Asked), Ok(summary), strict).unwrap()
    }

    #[test]
    fn strict_fails_where_the_books_do_not_balance() {
        let codes = |change: fn(&mut Summary)| (code(change, false), code(change, true));
        assert_eq!(codes(|_| {}), (0, 0));
        assert_eq!(codes(|summary| summary.books.whole.kernel = Some(904)), (0, 1));
        assert_eq!(codes(|summary| summary.books.whole.kernel = None), (0, 1));
        assert_eq!(codes(|summary| summary.books.whole.unbalanced_calls = 1), (0, 1));
        assert_eq!(codes(|summary| summary.books.intervals.unbalanced = 1), (0, 1));
        let differing = |summary: &mut Summary| summary.books.whole.checks = made_up::account().checks;
        assert_eq!(codes(differing), (0, 1));
        // What the tracepoint backend cannot see is no error, but no proof either.
        let blind = |summary: &mut Summary| {
            summary.books.whole.blind_to_unmapped = true;
            summary.books.whole.kernel = Some(904);
        };
        assert_eq!(codes(blind), (0, 1));
        assert_eq!(codes(|summary| summary.books.lost.undecoded = 1), (1, 1));
    }
}
