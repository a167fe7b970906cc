//! `cargo xtask deny`: licences and sources of every dependency, of all three workspaces, by deny.toml.
//! Input: cargo-deny, which is installed into the cache if CI requests it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use tracer_tests_report::tally::Tally;

use crate::host::{cache, process};

/// The version that reads the lock files of the cargo in use.
const VERSION: &str = "0.20.2";
/// The BPF crate and the fuzz crate are workspaces of their own.
const MANIFESTS: [&str; 3] = ["Cargo.toml", "tracer-ebpf/Cargo.toml", "fuzz/Cargo.toml"];

#[derive(clap::Args)]
pub struct Args {
    /// Also look for known vulnerabilities; this downloads their database.
    #[arg(long)]
    advisories: bool,
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let tally = check(args.advisories)?;
    println!("deny: {tally}");
    Ok(ExitCode::from(u8::from(tally.is_bad(true))))
}

/// Counts one check per workspace, or one skipped check if cargo-deny is missing.
pub fn check(advisories: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    let Some(program) = program()? else {
        println!("skipped: cargo-deny is not installed; type: {}", typed()?);
        tally.skipped += 1;
        return Ok(tally);
    };
    for manifest in MANIFESTS {
        let mut deny = Command::new(&program);
        deny.current_dir(process::root())
            .args(["--locked", "--all-features", "--manifest-path", manifest])
            .args(["--config", "deny.toml", "check", "licenses", "bans", "sources"]);
        if advisories {
            deny.arg("advisories");
        }
        println!("{manifest}");
        if process::run(&mut deny).is_ok() {
            tally.passed += 1;
        } else {
            tally.failed += 1;
        }
    }
    Ok(tally)
}

/// cargo-deny from the cache or from PATH. CI builds it if neither has it.
fn program() -> Result<Option<PathBuf>> {
    let cached = cache::dir()?.join("tools/bin/cargo-deny");
    let runs = |program: &PathBuf| process::output(Command::new(program).arg("--version")).is_ok();
    if runs(&cached) {
        return Ok(Some(cached));
    }
    if let Some(installed) = process::find("cargo-deny").filter(runs) {
        return Ok(Some(installed));
    }
    if !process::is_ci() {
        return Ok(None);
    }
    println!("building cargo-deny {VERSION}, once");
    process::run(&mut install()?).context("install cargo-deny")?;
    Ok(Some(cached))
}

fn install() -> Result<Command> {
    let mut cargo = process::cargo();
    cargo
        .args([
            "install",
            "--quiet",
            // A debug build takes half the time, and it reads only three lock files.
            "--debug",
            "--locked",
            "cargo-deny",
            "--version",
            VERSION,
            "--root",
        ])
        .arg(cache::dir()?.join("tools"))
        // Its build is kept apart from the workspace's own.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    Ok(cargo)
}

/// The command that a user types for [`install`].
fn typed() -> Result<String> {
    let root = cache::dir()?.join("tools");
    Ok(format!(
        "cargo install --locked cargo-deny --version {VERSION} --root {}",
        root.display()
    ))
}
