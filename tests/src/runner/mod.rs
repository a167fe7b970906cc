//! Runs the chosen cases one after the other, each in a process group of its own with a time limit.
//! Input: the command line and the catalogue; output: stdout and the report.

pub mod run_one;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tracer_tests_report::is_plain_name;
use tracer_tests_report::shape::Shape;
use tracer_tests_report::tally::{Tally, Verdict, result_line};
use tracer_tests_report::write::Writer;

use crate::case::{Case, Outcome, Site};
use crate::cases::{self, bad_ends};
use crate::here::Here;

/// The interval of reports that the runner is alive; it is far below any sensible limit on silence.
const TICK: Duration = Duration::from_secs(5);
/// The number of bytes that are shown from the end of a failed case's output.
const OUTPUT_SHOWN: usize = 16 << 10;

#[derive(clap::Args)]
pub struct Args {
    /// The tracer under test [default: `tracer` beside this program].
    #[arg(long, value_name = "PATH")]
    tracer: Option<PathBuf>,
    /// Also write the results to this file or tty, for `cargo xtask`.
    #[arg(long, value_name = "PATH")]
    report: Option<PathBuf>,
    /// Store the files that cases send in this directory.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Only the tests whose name contains one of these.
    names: Vec<String>,
}

pub fn list() -> ExitCode {
    for case in cases::all().filter(|case| !is_hidden(case)) {
        let place = match case.needs.site {
            Site::Anywhere => "anywhere".to_owned(),
            Site::Vm => format!("{} VM", case.needs.shape.name()),
            Site::Host => "host".to_owned(),
        };
        println!("{:<36} {place:<10} {}", case.name, case.what);
    }
    ExitCode::SUCCESS
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let here = Here::look();
    let chosen = choose(&args.names, &here)?;
    let exe = std::env::current_exe().context("find this program")?;
    let tracer = args.tracer.clone().unwrap_or_else(|| exe.with_file_name("tracer"));
    let mut report = Writer::open(args.report.as_deref())?;
    let scratch = std::env::temp_dir().join(format!("tracer-tests.{}", std::process::id()));

    let mut tally = Tally::default();
    // These cases are counted once for all VMs of a kernel: cases of another shape run in another VM.
    if args.names.is_empty() && here.shape == Shape::Plain {
        let elsewhere = |case: &&Case| !is_hidden(case) && !in_place(case, &here);
        tally.not_applicable = cases::all().filter(elsewhere).count();
    }
    report.hello(&here.release, chosen.len())?;
    for case in chosen {
        report.begin(case.name)?;
        let started = Instant::now();
        let (verdict, detail) = match case.needs.missing(&here) {
            Some(Outcome::NotApplicable(reason)) => (Verdict::NotApplicable, reason),
            Some(Outcome::Skipped(reason)) => (Verdict::Skipped, reason),
            Some(Outcome::Passed) | None => {
                fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
                let ended = run(case, &exe, &tracer, &scratch, &mut report)?;
                deliver(case, &scratch.join("outbox"), args.keep.as_deref(), &mut report)?;
                fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
                ended
            }
        };
        tally.add(verdict);
        let took = started.elapsed();
        println!("{}", result_line(case.name, verdict, took, &detail));
        report.end(case.name, verdict, took, &detail)?;
    }
    report.closing(&tally)?;
    println!("{}", tally.aside());
    println!("{tally}");
    let strict = std::env::var("CI").is_ok_and(|value| value == "true");
    Ok(ExitCode::from(u8::from(tally.is_bad(strict))))
}

fn is_hidden(case: &Case) -> bool {
    case.name.starts_with(bad_ends::TOPIC)
}

/// Returns the cases that were requested by name, or all that belong here. A name that fits no case is an error.
fn choose(names: &[String], here: &Here) -> Result<Vec<&'static Case>> {
    let fits = |case: &Case, name: &str| case.name == name || (!is_hidden(case) && case.name.contains(name));
    if let Some(name) = names.iter().find(|name| !cases::all().any(|case| fits(case, name))) {
        bail!("no test has {name:?} in its name; tracer-tests list shows them all");
    }
    let chosen = |case: &&Case| {
        if names.is_empty() {
            in_place(case, here) && !is_hidden(case)
        } else {
            // A topic selects its cases that belong here. A longer name selects its cases, and reports why they cannot
            // run.
            names
                .iter()
                .any(|name| fits(case, name) && (in_place(case, here) || !name.ends_with('/')))
        }
    };
    let in_shape = |case: &&Case| !here.in_vm || case.needs.shape == here.shape;
    Ok(cases::all().filter(chosen).filter(in_shape).collect())
}

fn in_place(case: &Case, here: &Here) -> bool {
    match case.needs.site {
        Site::Anywhere => true,
        Site::Vm => here.in_vm,
        Site::Host => !here.in_vm,
    }
}

/// Prints the shapes of VM that the requested cases need, one per line.
pub fn shapes(names: &[String]) -> Result<ExitCode> {
    for shape in Shape::ALL {
        let vm = Here {
            in_vm: true,
            shape,
            ..Here::look()
        };
        if !choose(names, &vm)?.is_empty() {
            println!("{}", shape.name());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one case in a process of its own, and returns its verdict and the reason.
fn run(case: &Case, exe: &Path, tracer: &Path, scratch: &Path, report: &mut Writer) -> Result<(Verdict, String)> {
    let output_path = scratch.join("output");
    let output = File::create(&output_path).context("create the output file")?;
    let mut child = Command::new(exe)
        .args(["run-one", case.name, "--tracer"])
        .arg(tracer)
        .arg("--scratch")
        .arg(scratch)
        // A failure is reported by its chain of causes; a panic keeps its backtrace.
        .env("RUST_LIB_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("share the output file")?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", exe.display()))?;

    let started = Instant::now();
    let mut last_tick = started;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for the case")? {
            break Some(status);
        }
        if started.elapsed() >= case.needs.timeout {
            break None;
        }
        if last_tick.elapsed() >= TICK {
            last_tick = Instant::now();
            report.tick()?;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    // Every process that the case has started is killed: a forgotten workload would disturb the next case.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        match kill_process_group(group, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("kill the case's process group"),
        }
    }
    child.wait().context("wait for the case")?;

    let reason = fs::read_to_string(run_one::reason_file(scratch)).unwrap_or_default();
    let output = fs::read(&output_path).context("read the case's output")?;
    Ok(judge(status, case.needs.timeout, reason, &output))
}

fn judge(status: Option<ExitStatus>, timeout: Duration, reason: String, output: &[u8]) -> (Verdict, String) {
    let with_output = |reason: String| {
        let start = output.len().saturating_sub(OUTPUT_SHOWN);
        let shown = String::from_utf8_lossy(&output[start..]);
        if shown.trim().is_empty() {
            reason
        } else {
            format!("{reason}\n--- output\n{}", shown.trim_end())
        }
    };
    let code = |code: u8| Some(i32::from(code));
    match status {
        None => (
            Verdict::Failed,
            with_output(format!("not done after {} s, killed", timeout.as_secs())),
        ),
        Some(status) if status.success() => (Verdict::Passed, String::new()),
        Some(status) if status.code() == code(run_one::SKIPPED) => (Verdict::Skipped, reason),
        Some(status) if status.code() == code(run_one::NOT_APPLICABLE) => (Verdict::NotApplicable, reason),
        Some(status) if status.code() == code(run_one::FAILED) => (Verdict::Failed, with_output(reason)),
        Some(status) => (Verdict::Failed, with_output(format!("the case died: {status}"))),
    }
}

/// Sends the files that the case left in its outbox, in the order of their names.
fn deliver(case: &Case, outbox: &Path, keep: Option<&Path>, report: &mut Writer) -> Result<()> {
    let Ok(entries) = fs::read_dir(outbox) else {
        return Ok(());
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .filter(|name| is_plain_name(name))
        else {
            bail!("{} left a file with a strange name: {}", case.name, path.display());
        };
        let data = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        report.file(name, &data)?;
        if let Some(keep) = keep {
            let dir = keep.join(case.name.replace('/', "_"));
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            fs::write(dir.join(name), &data).with_context(|| format!("keep {name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Case, Here, Shape, Site, choose, is_hidden};

    fn host() -> Here {
        Here {
            in_vm: false,
            shape: Shape::Plain,
            root: true,
            nodes: 1,
            release: String::new(),
        }
    }

    #[test]
    fn hidden_cases_run_by_their_exact_name_only() {
        assert!(choose(&[], &host()).expect("all").iter().all(|case| !is_hidden(case)));
        assert!(choose(&["bad_ends".into()], &host()).is_err());
        assert_eq!(choose(&["bad_ends/fails".into()], &host()).expect("one").len(), 1);
    }

    #[test]
    fn every_case_has_one_vm_or_none() {
        let in_shape = |shape| {
            let vm = Here {
                in_vm: true,
                shape,
                ..host()
            };
            choose(&[], &vm).expect("all").len()
        };
        let in_all: usize = Shape::ALL.into_iter().map(in_shape).sum();
        let anywhere = |case: &&Case| case.needs.site != Site::Host && !is_hidden(case);
        assert_eq!(in_all, crate::cases::all().filter(anywhere).count());
    }

    #[test]
    fn a_name_that_fits_nothing_is_an_error() {
        assert!(choose(&["harness".into(), "no such test".into()], &host()).is_err());
    }

    #[test]
    fn names_are_unique_and_printable() {
        let mut names: Vec<&str> = crate::cases::all().map(|case| case.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(
            names
                .iter()
                .all(|name| { name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') })
        );
    }
}
