//! A program in a PID namespace of its own, as in a container.
//! Input: its number there, the program and its arguments.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::protocol::Workload;

pub const WORKLOAD: Workload = Workload {
    name: "pid_namespace",
    what: "pid_namespace NUMBER PROGRAM ARGS...: runs PROGRAM as process NUMBER of a new PID namespace, ends as it did",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let [number, program, args @ ..] = args else {
        anyhow::bail!("usage: pid_namespace NUMBER PROGRAM ARGS...")
    };
    let number: libc::pid_t = number.parse().context("parse NUMBER")?;
    ensure!(number > 1, "process 1 of the namespace is this program's");
    // SAFETY: only children are made in another namespace; this program has one thread.
    checked(unsafe { libc::unshare(libc::CLONE_NEWPID) }).context("make a PID namespace")?;
    // SAFETY: this program has one thread, so its copy may do anything that it may.
    let init = checked(unsafe { libc::fork() }).context("fork")?;
    if init != 0 {
        std::process::exit(exit_code_of(init)?);
    }
    // The whole namespace ends with process 1.
    set_parent_process_death_signal(Some(Signal::KILL)).context("die with the parent")?;
    let child = fork_as(number).with_context(|| format!("make process {number}"))?;
    if child != 0 {
        std::process::exit(exit_code_of(child)?);
    }
    Err(Command::new(program).args(args).exec()).with_context(|| format!("become {program}"))
}

/// fork(2) with the child's number, by `set_tid` of clone3(2), Linux 5.5 and later.
pub fn fork_as(number: libc::pid_t) -> io::Result<libc::pid_t> {
    // SAFETY: the structure has only integers; zero means unused.
    let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
    clone.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    clone.set_tid = (&raw const number).expose_provenance() as u64;
    clone.set_tid_size = 1;
    // SAFETY: as fork(2): no memory is shared; `clone` and `number` live through the call.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size_of_val(&clone)) };
    checked(i32::try_from(child).map_err(io::Error::other)?)
}

fn exit_code_of(child: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    checked(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    Ok(if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        128 + libc::WTERMSIG(status)
    })
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
