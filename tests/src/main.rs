//! End-to-end tests of `tracer`: the cases, the workloads they watch, and the PID 1 that runs them in a VM.
//! Input: the command line; as PID 1 the kernel's command line (`/proc/cmdline`).
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing results is what this program is for"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "addresses are as wide as usize where this runs"
)]

mod case;
mod cases;
mod churn_log;
mod here;
mod init;
mod machine;
mod product;
mod runner;
mod tracer;
mod truth;
mod worker;
mod workloads;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::runner::run_one;

/// End-to-end tests of tracer.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show every test: its name, the place where it runs, what it proves.
    List,
    /// Show which shapes of VM the tests of these names need; `cargo xtask vm` uses this.
    #[command(hide = true)]
    Shapes { names: Vec<String> },
    /// Run the tests that apply to this machine.
    Run(runner::Args),
    /// Run one test in this process; `run` starts this, once per test.
    #[command(hide = true)]
    RunOne(run_one::Args),
    /// Run a workload; tests start this.
    Work(workloads::Args),
}

fn main() -> ExitCode {
    if init::is_init(std::process::id(), std::env::args()) {
        init::main();
    }
    let done = match Cli::parse().command {
        Command::List => Ok(runner::list()),
        Command::Shapes { names } => runner::shapes(&names),
        Command::Run(args) => runner::main(&args),
        Command::RunOne(args) => run_one::main(&args),
        Command::Work(args) => workloads::main(&args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("tracer-tests: {error:?}");
        ExitCode::from(2)
    })
}
