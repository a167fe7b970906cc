//! The programs that are compared, built or installed, and the machine that they run on.
//! Input: the workspace's sources, by cargo; Debian's packages of the peers; /proc/cpuinfo.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::args::Args;
use super::recorders;
use super::results::Results;
use crate::host::cache::Scratch;
use crate::host::memory::meminfo;
use crate::host::{apt, process};

/// The peers and their Debian packages.
const PEERS: [(&str, &str); 2] = [("perf", "linux-perf"), ("bpftrace", "bpftrace")];

/// The programs that were built, the folder for files, and the results.
pub struct Bench {
    pub tracer: PathBuf,
    pub tests: PathBuf,
    pub scratch: Scratch,
    pub results: Results,
}

impl Bench {
    /// Builds tracer and its workloads, and installs the requested peers that are missing.
    pub fn build(args: &Args) -> Result<Self> {
        eprintln!("bench: building tracer and its workloads ...");
        let mut cargo = process::cargo();
        cargo.args([
            "build",
            "--release",
            "--quiet",
            "--package",
            "tracer-user",
            "--bin",
            "tracer",
        ]);
        process::run(cargo.args(["--package", "tracer-tests", "--bin", "tracer-tests"]))?;
        let built = process::target_dir().join("release");
        let mut bench = Self {
            tracer: built.join("tracer"),
            tests: built.join("tracer-tests"),
            scratch: Scratch::new()?,
            results: Results::default(),
        };
        bench.results.machine = machine(&bench.tracer)?;
        let needed = |program: &str| {
            recorders::ALL
                .iter()
                .any(|(name, _)| name.starts_with(program) && args.wants(name))
        };
        for (program, package) in PEERS {
            let missing = process::find(program).is_none();
            if missing && (needed(program) || program == "perf" && args.wants("read")) {
                eprintln!("bench: installing {package} ...");
                if let Err(error) = apt::install(&[package]) {
                    eprintln!("bench: {error:#}");
                }
            }
            bench
                .results
                .machine
                .push((program.into(), version(program).unwrap_or("not installed".to_owned())));
        }
        Ok(bench)
    }

    /// The path of a recorder's recording.
    pub fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

/// Facts about the machine and the programs.
fn machine(tracer: &Path) -> Result<Vec<(String, String)>> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpus = std::thread::available_parallelism().context("count the CPUs")?;
    let uname = rustix::system::uname();
    let memory = meminfo("MemTotal")? >> 20;
    let shown = process::output(std::process::Command::new(tracer).arg("--version"))?;
    Ok(vec![
        ("kernel".into(), uname.release().to_string_lossy().into_owned()),
        (
            "CPU".into(),
            format!("{cpus} x {}", model.map_or("unknown", |(_, model)| model)),
        ),
        ("memory".into(), format!("{memory} MiB")),
        ("tracer".into(), shown.trim().to_owned()),
    ])
}

fn version(program: &str) -> Option<String> {
    process::find(program)?;
    let output = process::output(std::process::Command::new(program).arg("--version")).ok()?;
    Some(output.lines().next()?.to_owned())
}
