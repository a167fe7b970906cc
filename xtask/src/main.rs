//! Every task for tracer beyond `cargo build`: the BPF object, the VMs, the whole test run, the benchmarks.
//! Input: the command line.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing what was done is what this program is for"
)]

mod bench;
mod demo;
mod deny;
mod ebpf;
mod exports;
mod fuzz;
mod host;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks for tracer that cargo alone cannot do.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch pages move: trace a process made for it while the kernel compacts memory.
    Demo(demo::Args),
    /// Build the BPF object and its digest.
    Ebpf(ebpf::Args),
    /// Run the tests in virtual machines, on several kernels.
    Vm(vm::Args),
    /// Check every promise of the project: this is what CI runs.
    Test(test::Args),
    /// Compare tracer with other recorders of page moves, on this machine.
    Bench(bench::Args),
    /// Give made-up bytes to readers, and check that none fails.
    Fuzz(fuzz::Args),
    /// Read exports with other programs: pyarrow, DuckDB, polars, Spark, Perfetto.
    Exports,
    /// Check licences and sources of the dependencies.
    Deny(deny::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::main(&args),
        Command::Ebpf(args) => ebpf::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Vm(args) => vm::main(&args),
        Command::Test(args) => Ok(test::main(&args)),
        Command::Bench(args) => bench::main(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Exports => exports::main(),
        Command::Deny(args) => deny::main(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(2)
    })
}
