//! Tracing live: opens a session, runs its pipeline into the selected sink, and reports the outcome.
//! Input: the parsed command line.

mod args;

use std::{
    future::pending,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use args::Args;

use crate::{
    analysis::{books, nodes},
    cli::{
        error::{self, Refused},
        signals::Signals,
    },
    confinement::{Work, confine},
    kernel::hooks::Kinds,
    pipeline::{End, Pipeline},
    run::{
        backend::Backend,
        coverage::{Coverage, Owners},
        ending::Ending,
        header::Header,
        summary::Summary,
    },
    section::{Cell, joined},
    session::{
        OpenError, Session,
        command::{Held, Running, exit_code},
    },
    sink::{Sink, several::Several},
    source::bpf::attach::CaptureError,
    words::{sentence, spelled},
};

/// The destination of events.
pub struct Output {
    /// All sinks that get the events.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Whether one of them is standard output: then the run ends when its reader is gone.
    pub to_stdout: bool,
    /// The directory in which they create files during the run.
    pub creates_in: Option<PathBuf>,
}

/// The exit code that shells show for SIGINT.
const INTERRUPTED: u8 = 128 + 2;

/// Traces into the sinks that `open` returns once the hooks are attached.
///
/// # Errors
/// Any error before tracing starts. Later errors are reported and show in the exit code.
pub fn run(args: &Args, open: impl FnOnce(&Header, &Ending) -> anyhow::Result<Output>) -> anyhow::Result<ExitCode> {
    let session = Session::open(&args.config()?).map_err(hinted)?;
    let Session {
        header,
        source,
        command,
        gone,
    } = session;
    let coverage = source.coverage();
    let ending = Ending::default();
    // Opening a fifo waits for its reader: until then signals end the process by themselves.
    let Output {
        sinks,
        to_stdout,
        creates_in,
    } = open(&header, &ending)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::catch(command.is_none().then_some(&ending)).context("cannot catch signals")?
    };
    let mut sink = Several(sinks);
    let pipeline = Pipeline::begin(source, &mut sink, &header, ending.clone()).context("cannot begin")?;
    if !args.quiet {
        greet(&header, coverage, args.duration);
    }
    let running = command.map(Held::release).transpose()?;
    confine(
        Work::Tracing {
            commands: running.is_some(),
        },
        creates_in.as_deref(),
    );
    if let Some(duration) = args.duration {
        ending.is_due(Instant::now() + duration);
    }
    let gone = gone.filter(|_| !args.quiet);
    runtime.block_on(follow_through(args, pipeline, running, signals, (gone, to_stdout)))
}

/// Runs the pipeline to its end, then waits for the COMMAND if there is one. `gone` reports that the targets have
/// ended.
async fn follow_through(
    args: &Args,
    mut pipeline: Pipeline<'_>,
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
        let _ = writeln!(io::stderr(), "tracer: the recording has reached --max-size and ends");
    }
    let outcome = judge(ran, pipeline.finish(), args.strict);
    let Some(mut running) = running else {
        return outcome.map(ExitCode::from);
    };
    if let Err(error) = outcome {
        error::report(&error);
    }
    outlive(&mut running, &mut signals).await.map(ExitCode::from)
}

/// Waits for the COMMAND's end until the user has interrupted it several times; returns the exit code.
async fn outlive(running: &mut Running, signals: &mut Signals) -> anyhow::Result<u8> {
    loop {
        if let Some(status) = running.ended().context("cannot wait for the command")? {
            return Ok(exit_code(status));
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

/// The exit code of a run without a COMMAND: 1 if something was lost, or if `strict` and the books do not prove that
/// nothing was.
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
            why.push(books::unproven(&summary.books));
        }
        let why = sentence(&joined(why, "; "));
        let _ = writeln!(io::stderr(), "tracer: --strict: {why}");
    }
    Ok(u8::from(unproven || summary.books.lost.events() > 0))
}

/// Waits until a signal, the duration or the COMMAND's end ends the run.
async fn asked_to_end(duration: Option<Duration>, mut running: Option<&mut Running>, signals: &mut Signals) {
    let clock = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => pending().await,
        }
    };
    let mut clock = pin!(clock);
    loop {
        // A signal does not end the run but goes to the COMMAND, whose end ends it. The last wait for it reports its
        // error.
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

/// The error of a session, with a hint for a person.
fn hinted(error: OpenError) -> anyhow::Error {
    let OpenError::Attach { backend, error } = &error else {
        return error.into();
    };
    let hint = match (error, backend) {
        (CaptureError::Hook(_), Backend::Exact) if error.is_refused() => {
            "the kernel refuses function hooks: try --backend tracepoint; tracer doctor shows the known causes"
        }
        (CaptureError::Hook(_), Backend::Exact) => "try --backend tracepoint; tracer doctor shows which hooks work",
        // The capabilities were checked before.
        (_, Backend::Exact | Backend::Tracepoint) if error.is_refused() => {
            "something forbids BPF even to root: a container's seccomp filter (run on the host), \
             or lockdown=confidentiality (see /sys/kernel/security/lockdown)"
        }
        (_, Backend::Exact | Backend::Tracepoint) => "tracer doctor shows which hooks work",
    };
    Refused(format!("{error}\n  {hint}")).into()
}

/// Prints on stderr which rows will be missing, and the line above the rows.
fn greet(header: &Header, coverage: Coverage, duration: Option<Duration>) {
    let collapses_missing = header.kinds.known().any_of(Kinds::COLLAPSE) && !coverage.kinds.contains(Kinds::COLLAPSE);
    let owners = match coverage.owners {
        Owners::Kernel | Owners::ReverseMapping => "",
        Owners::Pagemap => ", owners come from pagemap",
    };
    let mut err = io::stderr().lock();
    for fallback in &header.fallbacks {
        let _ = writeln!(
            err,
            "note: no function hooks here ({fallback}): going on with the {} backend{owners}{}; \
             tracer doctor explains",
            header.backend.name(),
            if collapses_missing {
                ", collapses are not seen"
            } else {
                ""
            }
        );
    }
    if header.fallbacks.is_empty() && collapses_missing {
        let _ = writeln!(
            err,
            "note: the {} backend does not see collapses",
            header.backend.name()
        );
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
        spelled(&nodes(header)),
        spelled(&Cell::Backend(header.backend.clone())),
        header.targets
    );
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
        summary.books.unbooked = 0;
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
        assert_eq!(codes(|summary| summary.books.unbooked = 1), (0, 1));
        let differing = |summary: &mut Summary| summary.books.whole.checks = made_up::account().checks;
        assert_eq!(codes(differing), (0, 1));
        // Moves that the tracepoint backend cannot see are no error, but no proof either.
        let blind = |summary: &mut Summary| {
            summary.books.whole.blind_to_unmapped = true;
            summary.books.whole.kernel = Some(904);
        };
        assert_eq!(codes(blind), (0, 1));
        assert_eq!(codes(|summary| summary.books.lost.undecoded = 1), (1, 1));
    }
}
