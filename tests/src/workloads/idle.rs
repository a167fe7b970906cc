//! A process that waits, alone or with a thread or a child.
//! Input: its properties on the command line; on stdin any order ends it.

use anyhow::{Result, bail};
use rustix::thread::gettid;

use super::protocol::{Workload, next_order, say};

pub const WORKLOAD: Workload = Workload {
    name: "idle",
    what: "idle [thread] [child] [stubborn]: prints `ready`, and with `thread` its second thread's id; waits for an order",
    run,
};

fn run(args: &[String]) -> Result<()> {
    let mut thread = None;
    for arg in args {
        match arg.as_str() {
            "thread" => {
                let (sender, ids) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    let told = sender.send(gettid());
                    // Spurious wake-ups are allowed.
                    while told.is_ok() {
                        std::thread::park();
                    }
                });
                thread = Some(ids.recv()?);
            }
            "child" => fork_idle()?,
            // SAFETY: no handler is installed, the signal is ignored.
            "stubborn" => _ = unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) },
            other => bail!("be what? {other:?}"),
        }
    }
    say("ready")?;
    if let Some(id) = thread {
        say(&id.to_string())?;
    }
    next_order()?;
    Ok(())
}

/// Forks a child that waits for a signal, and outlives this process.
fn fork_idle() -> Result<()> {
    // SAFETY: the child calls nothing but pause(2).
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        0 => loop {
            // SAFETY: the call only waits.
            unsafe { libc::pause() };
        },
        _ => Ok(()),
    }
}
