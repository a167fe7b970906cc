//! Processes of another user that do nothing but what tracer has to be told of: they rename themselves, or start and end.
//! Input: the kind and the number of processes; any order ends it.

use std::ffi::CString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, getppid, kill_process, set_parent_process_death_signal, waitpid};
use rustix::thread::{Gid, Uid, set_name, set_thread_gid, set_thread_groups, set_thread_res_uid};

use super::protocol::{Workload, next_order, say};

pub const WORKLOAD: Workload = Workload {
    name: "flood",
    what: "flood renames|lives COUNT: COUNT processes of user 1000 rename themselves, or fork and exec, without end",
    run,
};

/// A user without privileges.
const USER: u32 = 1000;
/// Names that differ, so that each rename is one.
const NAMES: [&str; 3] = ["flood-a", "flood-b", "flood-c"];

fn run(args: &[String]) -> Result<()> {
    let [kind, count] = args else {
        bail!("usage: flood renames|lives COUNT")
    };
    let act = match kind.as_str() {
        "renames" => rename,
        "lives" => live,
        other => bail!("no flood of {other}"),
    };
    let count: usize = count.parse().context("parse COUNT")?;
    let flooders = (0..count)
        .map(|number| flooder(number, act))
        .collect::<Result<Vec<_>>>()?;
    say("ready")?;
    next_order()?;
    for pid in flooders {
        kill_process(pid, Signal::KILL).context("end a process of the flood")?;
        waitpid(Some(pid), WaitOptions::empty()).context("wait for it")?;
    }
    Ok(())
}

/// Forks a process that does it again and again, until this one ends.
fn flooder(number: usize, act: fn(usize) -> Result<()>) -> Result<Pid> {
    let parent = rustix::process::getpid();
    // SAFETY: this process has one thread, so the child may do anything that the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("fork"),
        0 => {
            let mut done = become_user(parent);
            while done.is_ok() {
                done = act(number);
            }
            eprintln!("process {number} of the flood: {done:?}");
            std::process::exit(1)
        }
        pid => Pid::from_raw(pid).context("a pid"),
    }
}

fn become_user(parent: Pid) -> Result<()> {
    set_thread_groups(&[]).context("leave all groups")?;
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    set_thread_gid(group).context("change the group")?;
    set_thread_res_uid(user, user, user).context("change the user")?;
    // The change of user clears this setting.
    set_parent_process_death_signal(Some(Signal::KILL)).context("end with the parent")?;
    ensure!(getppid() == Some(parent), "the parent has ended");
    Ok(())
}

fn rename(_number: usize) -> Result<()> {
    for name in NAMES {
        set_name(&CString::new(name)?).context("change this process's name")?;
    }
    Ok(())
}

/// Every fourth process runs a program, which takes much longer; the others only fork.
fn live(number: usize) -> Result<()> {
    if number.is_multiple_of(4) {
        let mut program = Command::new("/proc/self/exe");
        let status = program.arg0("tracer-tests").args(["work", "end", "exit", "0"]).status();
        ensure!(status.context("run a program")?.success(), "the program failed");
        return Ok(());
    }
    // SAFETY: the child only ends.
    match unsafe { libc::fork() } {
        -1 => return Err(std::io::Error::last_os_error()).context("fork"),
        // SAFETY: nothing of this process is to be done at its end.
        0 => unsafe { libc::_exit(0) },
        pid => waitpid(Pid::from_raw(pid), WaitOptions::empty()).context("wait for a child")?,
    };
    Ok(())
}
