//! The basis of the other cases: the VM has the requested shape, tracer starts in it, the kernel counts.
//! Input: /proc/cmdline, /proc/mounts, /proc/vmstat.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::here::option;
use crate::truth;

pub const CASES: &[Case] = &[
    Case {
        name: "harness/boots",
        what: "the VM has its mounts and its NUMA nodes, and tracer starts in it",
        needs: Needs::VM,
        run: boots,
    },
    Case {
        name: "harness/vmstat",
        what: "the kernel counts page migrations",
        needs: Needs::NOTHING,
        run: vmstat,
    },
];

fn boots(env: &Env) -> Result<Outcome> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let points: BTreeSet<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for point in ["/proc", "/sys", "/dev", "/sys/kernel/debug", "/tmp", "/sys/fs/cgroup"] {
        ensure!(
            points.contains(point),
            "{point} is not mounted; /proc/mounts:\n{mounts}"
        );
    }
    // A tracer that needs tracefs must mount it, or work without it, as in a minimal container.
    ensure!(
        !points.contains("/sys/kernel/tracing"),
        "tracefs is mounted, which hides a missing mount in tracer"
    );

    let cmdline = fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
    let asked: usize = option(&cmdline, "tracer.nodes")
        .context("no tracer.nodes= on the command line")?
        .parse()?;
    ensure!(
        env.nodes == asked,
        "{asked} NUMA nodes were requested, the kernel has {}",
        env.nodes
    );

    let output = Command::new(&env.tracer)
        .arg("--version")
        .output()
        .with_context(|| format!("run {} --version", env.tracer.display()))?;
    ensure!(output.status.success(), "tracer --version: {}", output.status);
    ensure!(!output.stdout.is_empty(), "tracer --version printed nothing");
    Ok(Outcome::Passed)
}

fn vmstat(_: &Env) -> Result<Outcome> {
    // This needs CONFIG_MIGRATION.
    truth::vmstat("pgmigrate_success")?;
    Ok(Outcome::Passed)
}
