//! `cargo xtask vm`: the tests on a matrix of kernels, each in a VM of its own.
//! Input: the command line.

mod args;
pub mod bad_ends;
mod initramfs;
mod kernels;
mod lab;
pub mod matrix;
mod qemu;
mod results;
mod shape;
mod table;
mod watch;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Result;

pub use args::Args;

use crate::host::{process, programs};

pub fn main(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    if args.list {
        let programs = programs::build(args.tracer.as_deref())?;
        process::run(Command::new(&programs.tests).arg("list"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let tally = matrix::run(args)?;
    eprintln!("xtask: {:.0} s", started.elapsed().as_secs_f64());
    println!("{}\nvm: {tally}", tally.aside());
    Ok(ExitCode::from(u8::from(tally.is_bad(process::is_ci()))))
}
