//! Reads exports with other programs, and compares their sums with those of `tracer report`.
//! Input: the golden recordings of a machine and of a VM; made-up recordings of three more hosts with unusual content
//! (`tracer-tests work fleet`); the readers, from PyPI into the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use tracer_tests_report::tally::{Tally, Verdict};

use crate::host::programs::{self, Programs};
use crate::host::{apt, cache, process};

/// The packages that are installed. Each has a function of its name in tests/python/read_exports.py.
const READERS: [(&str, &str); 6] = [
    ("pyarrow", "26.0.1"),
    ("pandas", "3.1.1"),
    ("duckdb", "2.0.0"),
    ("polars", "2.1.0"),
    ("pyspark", "4.3.0"),
    ("perfetto", "0.59.1"),
];

pub fn main() -> Result<ExitCode> {
    let tally = check()?;
    println!("exports: {tally}");
    Ok(ExitCode::from(u8::from(tally.is_bad(true))))
}

/// Counts a test for each reader. All are skipped if they cannot be installed.
pub fn check() -> Result<Tally> {
    let python = match python() {
        Ok(python) => python,
        Err(error) => {
            println!("skipped: the readers cannot be installed: {error:#}");
            let skipped = READERS.iter().map(|_| Tally::of(Verdict::Skipped));
            return Ok(skipped.fold(Tally::default(), Tally::sum));
        }
    };
    let scratch = cache::Scratch::new()?;
    export(&programs::build(None)?, scratch.path())?;
    let mut tally = Tally::default();
    for (reader, _) in READERS {
        let mut read = Command::new(&python);
        read.arg(process::root().join("tests/python/read_exports.py"))
            .arg(scratch.path())
            .arg(reader);
        tally.add(match process::run(&mut read) {
            Ok(()) => Verdict::Passed,
            Err(error) => {
                println!("{reader} FAILED: {error:#}");
                Verdict::Failed
            }
        });
    }
    Ok(tally)
}

/// Writes the recordings, each kind of export of them, and the report's sums.
fn export(programs: &Programs, dir: &Path) -> Result<()> {
    process::run(Command::new(&programs.tests).args(["work", "fleet"]).arg(dir))?;
    let mut recordings = Vec::new();
    for entry in fs::read_dir(dir).context("list the recordings")? {
        recordings.push(entry?.path());
    }
    recordings.extend(["exact", "tracepoint"].map(|name| process::root().join(format!("tests/golden/v1/{name}.data"))));
    let tracer = |action: &str| {
        let mut tracer = Command::new(&programs.tracer);
        tracer.arg(action).args(&recordings);
        tracer
    };
    let report = File::create(dir.join("report.json")).context("create report.json")?;
    let mut keys = tracer("report");
    keys.args(["--json", "--by", "host,process,reason", "--rows", "1000000"]);
    process::run(keys.stdout(report))?;
    for (name, options) in [
        ("all.jsonl", "--format jsonl"),
        ("moves.parquet", "--format parquet"),
        ("moves.csv", "--format csv"),
        ("failures.parquet", "--format parquet --kind failures"),
        ("failures.csv", "--format csv --kind failures"),
        ("unmapped.csv", "--format csv --kind unmapped"),
        ("compactions.csv", "--format csv --kind compactions"),
        ("moves.pftrace", "--format perfetto"),
        ("set", "--format parquet --partition"),
        ("set-csv", "--format csv --partition"),
    ] {
        let mut export = tracer("export");
        // Each export prints what its table leaves out; that is not shown here.
        process::output(export.args(options.split(' ')).arg("-o").arg(dir.join(name)))?;
    }
    Ok(())
}

/// A Python with the readers and their requirements, installed once.
fn python() -> Result<PathBuf> {
    // Spark needs Java.
    if process::find("java").is_none() {
        apt::install(&["default-jre-headless"])?;
    }
    let pins = READERS.map(|(name, version)| format!("{name}=={version}"));
    let dir = cache::dir()?.join(format!("python-{}", pins.join("-").replace("==", "-")));
    let dir = cache::filled(&dir, |dir| {
        println!("installing {}, once", pins.join(" "));
        if process::output(Command::new("python3").args(["-c", "import ensurepip, venv"])).is_err() {
            apt::install(&["python3-venv"])?;
        }
        process::output(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
        let mut install = Command::new(dir.join("bin/python"));
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-cache-dir",
        ]);
        process::output(install.args(&pins)).map(drop)
    })?;
    Ok(dir.join("bin/python"))
}
