//! The kernel's cost of a mapping that is filtered out, compared with a mapping that is reported.
//! Input: the kernel's statistics of tracer's BPF programs.

use std::fs;
use std::process::id;

use anyhow::{Context, Result, ensure};

use super::steps::{Changing, start};
use crate::case::{Case, Env, Needs, Outcome};
use crate::truth::Report;

pub const CASES: &[Case] = &[Case {
    name: "filters/cost",
    what: "the kernel's cost of a mapping that is filtered out, compared with a reported one",
    needs: Needs { nodes: 2, ..Needs::VM },
    run: cost,
}];

/// The nanoseconds that all of tracer's programs ran (`run_time_ns` of /proc/PID/fdinfo, kernel/bpf/syscall.c
/// `bpf_prog_show_fdinfo`; counted while kernel.bpf_stats_enabled is 1).
fn program_time(tracer: u32) -> Result<u64> {
    let mut nanos = 0;
    for entry in fs::read_dir(format!("/proc/{tracer}/fdinfo")).context("list tracer's files")? {
        // A file may have been closed meanwhile.
        let Ok(info) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        let value = info.lines().find_map(|line| line.strip_prefix("run_time_ns:"));
        nanos += value.map_or(Ok(0), |value| value.trim().parse::<u64>())?;
    }
    Ok(nanos)
}

fn cost(env: &Env) -> Result<Outcome> {
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "1").context("switch BPF statistics on")?;
    let mut a = Changing::start("a")?;
    let nobody = id().to_string();
    let own = a.pid.to_string();
    let filters: [(&str, &[&str]); 7] = [
        ("reported", &["-p", &own]),
        ("owner", &["-p", &nobody, "--no-children"]),
        ("reason", &["-a", "--reason", "compaction"]),
        ("actor", &["--actor", "nobody"]),
        ("order", &["-a", "--min-order", "2M"]),
        ("address", &["-a", "--address", "1000-2000"]),
        ("nodes", &["-a", "--nodes", "0:0"]),
    ];
    let mut reported = 0;
    let mut table = Vec::new();
    for (name, args) in filters {
        // khugepaged moves pages at any time.
        let tracing = start(env, "exact", &[args, &["--kinds", "move"]].concat())?;
        let before = program_time(tracing.pid())?;
        let mut pages = 0;
        for _ in 0..4 {
            for node in [1, 0] {
                pages += Report::parse(&a.order(&format!("move move_pages {node}"))?)?
                    .moves
                    .len() as u64;
            }
        }
        let each = (program_time(tracing.pid())? - before) / pages;
        let trace = tracing.finish()?;
        trace.ensure_exact_books()?;
        ensure!(
            trace.moves.is_empty() == (name != "reported"),
            "{name}: {:?}",
            trace.summary
        );
        if name == "reported" {
            reported = each;
        }
        let percent = 100 * each / reported;
        table.push(format!(
            "{name}: {each} ns a mapping, {percent} % of one that is reported"
        ));
    }
    fs::write(env.outbox.join("filter-cost.txt"), table.join("\n")).context("keep the table")?;
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "0").context("switch BPF statistics off")?;
    a.exit()?;
    Ok(Outcome::Passed)
}
