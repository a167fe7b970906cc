//! `cargo xtask fuzz`: gives made-up bytes to readers until one fails or the time is over.
//! Input: the fuzz crate; its corpus and the golden recordings as the first inputs.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use tracer_tests_report::tally::{Tally, Verdict};

use crate::host::{apt, cache, process};

/// Compiles the fuzzer's coverage into the project's code. cargo-fuzz passes the same to rustc, except for unstable
/// flags.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];
/// With an explicit target, build scripts are compiled without [`FLAGS`].
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The readers, with the divisor of the time that each gets: those of short texts have seen every branch much sooner.
const FUZZERS: [(&str, u32); 3] = [("recording", 1), ("proc", 8), ("wire", 16)];
/// The last lines of libFuzzer's output, which describe a failure.
const LAST_WORDS: usize = 60;

#[derive(clap::Args)]
pub struct Args {
    /// Try the reader of recordings for this long, and the others for a fraction of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let tally = check(args.seconds)?;
    println!("fuzz: {tally}");
    Ok(ExitCode::from(u8::from(tally.is_bad(true))))
}

/// Counts one check per reader. The checks are skipped if libFuzzer cannot be built.
pub fn check(seconds: u32) -> Result<Tally> {
    if process::find("c++").is_none() {
        if !process::is_ci() {
            println!("skipped: libFuzzer needs a C++ compiler; type: sudo apt-get install -y g++");
            return Ok(Tally::of(Verdict::Skipped));
        }
        apt::install(&["g++"])?;
    }
    let built = process::target_dir().join("fuzz");
    let mut cargo = process::cargo();
    cargo
        .args(["build", "--locked", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", TARGET])
        .env("RUSTFLAGS", FLAGS.join(" "))
        .env("CARGO_TARGET_DIR", &built);
    process::run(&mut cargo)?;
    let mut tally = Tally::default();
    for (fuzzer, divisor) in FUZZERS {
        let found = cache::Scratch::new()?;
        let mut fuzz = Command::new(built.join(TARGET).join("debug").join(fuzzer));
        fuzz.arg(found.path())
            .args(first_inputs(fuzzer)?)
            .arg(format!("-max_total_time={}", (seconds / divisor).max(1)))
            .arg(format!("-artifact_prefix={}/{fuzzer}-", built.display()))
            // Seconds and MiB of memory for one input: far more than any input of that size takes.
            .args(["-timeout=20", "-rss_limit_mb=2048", "-max_len=16384"])
            .arg("-print_final_stats=1");
        let output = fuzz
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {}", process::shown(&fuzz)))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        if output.status.success() {
            for line in lines.iter().filter(|line| line.starts_with("stat::")) {
                println!("{fuzzer}: {line}");
            }
            tally.passed += 1;
        } else {
            println!("{}", lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n"));
            println!("{fuzzer}: to see it again: {} FILE", process::shown(&fuzz));
            tally.failed += 1;
        }
    }
    Ok(tally)
}

/// The folders of a reader's first inputs.
fn first_inputs(fuzzer: &str) -> Result<Vec<PathBuf>> {
    if fuzzer == "recording" {
        return golden();
    }
    Ok(vec![process::root().join("fuzz/corpus").join(fuzzer)])
}

/// The folders of golden recordings.
fn golden() -> Result<Vec<PathBuf>> {
    let golden = process::root().join("tests/golden");
    let mut folders = Vec::new();
    for folder in fs::read_dir(&golden).with_context(|| format!("list {}", golden.display()))? {
        let folder = folder?;
        if folder.file_name().to_string_lossy().starts_with('v') {
            folders.push(folder.path());
        }
    }
    Ok(folders)
}
