//! Runs one case in this process, so that a panic or a hang ends this process and not the runner.
//! Input: the case's name. The reason goes to `SCRATCH/reason`; the verdict is the exit code.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::case::{Env, Outcome};
use crate::cases;

/// The case failed; its reason is in the file. A panic ends with 101 and a reason on stderr.
pub const FAILED: u8 = 1;
pub const SKIPPED: u8 = 77;
pub const NOT_APPLICABLE: u8 = 78;

#[derive(clap::Args)]
pub struct Args {
    name: String,
    #[arg(long)]
    tracer: PathBuf,
    #[arg(long)]
    scratch: PathBuf,
}

/// The file in which a case leaves its reason for the runner.
pub fn reason_file(scratch: &Path) -> PathBuf {
    scratch.join("reason")
}

pub fn main(args: &Args) -> Result<ExitCode> {
    let case = cases::all()
        .find(|case| case.name == args.name)
        .with_context(|| format!("no test {}", args.name))?;
    let env = Env::new(args.tracer.clone(), args.scratch.clone())?;
    let (code, reason) = match (case.run)(&env) {
        Ok(Outcome::Passed) => return Ok(ExitCode::SUCCESS),
        Ok(Outcome::Skipped(reason)) => (SKIPPED, reason),
        Ok(Outcome::NotApplicable(reason)) => (NOT_APPLICABLE, reason),
        Err(error) => (FAILED, format!("{error:?}")),
    };
    fs::write(reason_file(&args.scratch), reason).context("leave the reason")?;
    Ok(ExitCode::from(code))
}
