//! `cargo xtask test`: checks every promise of the project, step by step, and ends with a line that counts every test.
//! Input: the command line; the output of cargo and of the test runner.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tracer_tests_report::read::{Message, Reader};
use tracer_tests_report::tally::{Tally, Verdict};

use crate::host::{cache, process, programs};
use crate::{deny, ebpf, exports, fuzz, vm};

/// Each reader is given made-up bytes for this long.
const FUZZ_SECONDS: u32 = 30;

#[derive(clap::Args)]
pub struct Args {
    /// Leave out the virtual machines.
    #[arg(long)]
    no_vm: bool,
    /// Leave out the end-to-end tests on this machine.
    #[arg(long)]
    no_e2e: bool,
}

/// Cheap steps run first, and each step before those that need it: the object before the programs that embed it.
pub fn main(args: &Args) -> ExitCode {
    let mut steps = Steps::default();
    steps.step("format", format);
    steps.step("lints", lints);
    steps.step("BPF object", ebpf::rebuild);
    steps.step("unit tests", unit_tests);
    steps.step("fuzzing", || fuzz::check(FUZZ_SECONDS));
    if !args.no_e2e {
        steps.step("end to end, this machine", end_to_end);
        steps.step("exports, read by others", exports::check);
    }
    if !args.no_vm {
        steps.step(
            "end to end, virtual machines",
            || vm::matrix::run(&vm::Args::required()),
        );
        steps.step("harness fails loudly", vm::bad_ends::check);
    }
    steps.step("dependencies", || deny::check(false));

    let (total, ci) = (steps.total, process::is_ci());
    if !steps.failed.is_empty() {
        println!("\nfailed in: {}", steps.failed.join(", "));
    }
    if ci && total.skipped > 0 {
        println!("\nCI=true: what was skipped counts as failed");
    }
    println!("\n{}\n{total}", total.aside());
    ExitCode::from(u8::from(total.is_bad(ci)))
}

#[derive(Default)]
struct Steps {
    total: Tally,
    failed: Vec<&'static str>,
}

impl Steps {
    /// Runs a step. An error is a failure of the step; the steps after it run nevertheless.
    fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<Tally>) {
        println!("\n== {name}");
        let started = Instant::now();
        let tally = run().unwrap_or_else(|error| {
            println!("{name} FAILED: {error:#}");
            Tally::of(Verdict::Failed)
        });
        println!("{}", tally.aside());
        println!("== {name}: {tally} ({:.1} s)", started.elapsed().as_secs_f64());
        if tally.failed > 0 {
            self.failed.push(name);
        }
        self.total = self.total.sum(tally);
    }
}

fn format() -> Result<Tally> {
    let workspace = tried(process::cargo().args(["fmt", "--all", "--check"]))?;
    // The BPF crate and the fuzz crate are workspaces of their own.
    let bpf = tried(process::cargo().args(["fmt", "--check", "--manifest-path", "tracer-ebpf/Cargo.toml"]))?;
    let fuzz = tried(process::cargo().args(["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]))?;
    Ok(workspace.sum(bpf).sum(fuzz))
}

fn lints() -> Result<Tally> {
    let workspace = tried(process::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    // This builds without the optional features.
    let bare = [
        "clippy",
        "-p",
        "tracer-user",
        "--no-default-features",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    let bare = tried(process::cargo().args(bare))?;
    let bpf = ebpf::clippy()?.map_or(Ok(Tally::of(Verdict::NotApplicable)), |mut bpf| tried(&mut bpf))?;
    Ok(workspace.sum(bare).sum(bpf))
}

/// Counts one test, which passes if the command succeeds.
fn tried(command: &mut Command) -> Result<Tally> {
    let status = command
        .status()
        .with_context(|| format!("start {}", process::shown(command)))?;
    if !status.success() {
        println!("{}: {status}", process::shown(command));
        return Ok(Tally::of(Verdict::Failed));
    }
    Ok(Tally::of(Verdict::Passed))
}

/// Counts the tests that cargo ran. A test binary that does not build or dies has no result line, but cargo fails.
fn unit_tests() -> Result<Tally> {
    let mut command = process::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if process::is_root() {
        // The ignored tests are those that need root.
        command.args(["--", "--include-ignored"]);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("start cargo test")?;
    let stdout = child.stdout.take().context("a piped stdout")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("read cargo test's output")?;
        if let Some(counted) = counts(&line) {
            tally = tally.sum(counted);
        }
        println!("{line}");
    }
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() && tally.failed == 0 {
        tally.failed += 1;
    }
    ensure!(tally.passed > 0 || tally.failed > 0, "cargo test ran no test");
    Ok(tally)
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn counts(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
        not_applicable: 0,
    })
}

/// Runs the cases that apply here, as root.
fn end_to_end() -> Result<Tally> {
    let programs = programs::build(None)?;
    let scratch = cache::Scratch::new()?;
    let report = scratch.path().join("report");
    let mut runner = if process::is_root() {
        Command::new(&programs.tests)
    } else if process::output(Command::new("sudo").args(["-n", "true"])).is_ok() {
        let mut sudo = Command::new("sudo");
        sudo.arg("-n").arg(&programs.tests);
        sudo
    } else {
        let (tests, tracer) = (programs.tests.display(), programs.tracer.display());
        println!("skipped: needs root; type: sudo {tests} run --tracer {tracer}");
        return Ok(Tally::of(Verdict::Skipped));
    };
    // This process creates it, so that it may read and remove the file when root writes it.
    fs::write(&report, "").with_context(|| format!("create {}", report.display()))?;
    runner
        .args(["run", "--tracer"])
        .arg(&programs.tracer)
        .arg("--report")
        .arg(&report);
    let status = runner
        .status()
        .with_context(|| format!("start {}", process::shown(&runner)))?;

    let mut reader = Reader::default();
    reader.feed(&fs::read(&report).context("read the report")?);
    while let Some(message) = reader.message()? {
        if let Message::Closing { tally } = message {
            return Ok(tally);
        }
    }
    bail!("the test runner ended without its closing line: {status}")
}

#[cfg(test)]
mod tests {
    use super::{Tally, counts};

    #[test]
    fn result_lines_are_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            counts(line),
            Some(Tally {
                passed: 3,
                failed: 2,
                skipped: 1,
                not_applicable: 0
            })
        );
        assert_eq!(counts("test result: it works"), None);
        assert_eq!(counts("test a ... ok"), None);
    }
}
