//! `tracer doctor`: on a kernel that has all hooks, each attaches and passes the arguments of its program.
//! Input: the lines of `tracer doctor --json`.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::case::{Case, Env, Needs, Outcome};

pub const CASES: &[Case] = &[
    Case {
        name: "doctor/every_hook",
        what: "each hook of both backends attaches to this kernel, with the prototype that its program expects",
        needs: Needs::VM,
        run: every_hook,
    },
    Case {
        name: "doctor/verifier",
        what: "no program has so many branches that the verifier needs much memory, or might reject it on another kernel",
        needs: Needs::VM,
        run: verifier,
    },
    Case {
        name: "doctor/verdict",
        what: "the doctor's verdict is the backend that tracer takes",
        needs: Needs {
            root: true,
            ..Needs::NOTHING
        },
        run: verdict,
    },
];

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Check {
        name: String,
        status: String,
        found: String,
    },
    Doctor {
        backend: Option<String>,
    },
}

/// The checks by name, as (status, found), and the backend.
type Answer = (BTreeMap<String, (String, String)>, Option<String>);

fn ask(env: &Env) -> Result<Answer> {
    let output = Command::new(&env.tracer)
        .args(["doctor", "--json"])
        .output()
        .context("run tracer doctor")?;
    ensure!(
        output.stderr.is_empty(),
        "stderr: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut checks = BTreeMap::new();
    let mut verdict = None;
    for line in String::from_utf8(output.stdout)?.lines() {
        match serde_json::from_str(line).with_context(|| format!("not a line of the doctor: {line}"))? {
            Line::Check { name, status, found } => {
                checks.insert(name, (status, found));
            }
            Line::Doctor { backend } => verdict = Some(backend),
        }
    }
    Ok((checks, verdict.context("no verdict")?))
}

fn every_hook(env: &Env) -> Result<Outcome> {
    let (checks, backend) = ask(env)?;
    for name in ["exact", "tracepoint", "BTF", "pagemap", "kernel counts"] {
        let (status, found) = checks.get(name).with_context(|| format!("no check {name}"))?;
        ensure!(status == "ok", "{name}: {status}, {found}");
        println!("{name}: {found}");
    }
    ensure!(backend.as_deref() == Some("exact"), "verdict: {backend:?}");
    Ok(Outcome::Passed)
}

/// The verifier rejects a program at a million instructions. At this number, its state already takes some 100 MiB.
const VERIFIED: u32 = 250_000;

fn verifier(env: &Env) -> Result<Outcome> {
    let own = std::process::id().to_string();
    let kinds = ["--kinds", "move,collapse,ksm,cow,swap"];
    // With a filter by owner, reverse mappings are searched.
    for (backend, args) in [
        ("exact", vec!["-a"]),
        ("exact", vec!["-p", &own]),
        ("tracepoint", vec!["-a"]),
    ] {
        let output = Command::new(&env.tracer)
            .args(["-vv", "-d", "0.1", "--backend", backend])
            .args(args)
            .args(if backend == "exact" { &kinds[..] } else { &[] })
            .output()
            .context("run tracer")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {stderr}", output.status);
        let mut programs = Vec::new();
        for line in stderr
            .lines()
            .filter_map(|line| line.strip_suffix(" instructions verified"))
        {
            let (name, count) = line.rsplit_once(": ").with_context(|| line.to_owned())?;
            programs.push((count.parse::<u32>().with_context(|| line.to_owned())?, name.to_owned()));
        }
        programs.sort();
        ensure!(!programs.is_empty(), "no program was verified: {stderr}");
        for (count, name) in programs.iter().rev().take(8) {
            println!("{count:8} {name}");
        }
        for (count, name) in &programs {
            ensure!((1..VERIFIED).contains(count), "{name}: {count} instructions");
        }
    }
    Ok(Outcome::Passed)
}

fn verdict(env: &Env) -> Result<Outcome> {
    let (_, backend) = ask(env)?;
    let backend = backend.context("the doctor finds no backend here")?;
    let output = Command::new(&env.tracer)
        .args(["-a", "-d", "0.1"])
        .output()
        .context("run tracer")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let greeting = stderr
        .lines()
        .find(|line| line.contains(" · Linux "))
        .context("no greeting")?;
    ensure!(
        greeting.contains(&format!(" · {backend} (")),
        "the doctor said {backend}, but: {greeting}"
    );
    Ok(Outcome::Passed)
}
