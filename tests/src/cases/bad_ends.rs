//! Cases that end badly on purpose, to show that the harness reports it. Each runs by its exact name only.
//! Input: nothing.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, getppid, kill_process};

use crate::case::{Case, Env, Needs, Outcome};

/// The beginning of these cases' names.
pub const TOPIC: &str = "bad_ends/";

pub const CASES: &[Case] = &[
    Case {
        name: "bad_ends/fails",
        what: "a case that fails",
        needs: Needs::NOTHING,
        run: fails,
    },
    Case {
        name: "bad_ends/skips",
        what: "a case that is skipped",
        needs: Needs::NOTHING,
        run: skips,
    },
    Case {
        name: "bad_ends/panics",
        what: "a case that panics",
        needs: Needs::NOTHING,
        run: panics,
    },
    Case {
        name: "bad_ends/sleeps",
        what: "a case that runs into its own timeout",
        needs: Needs {
            timeout: Duration::from_secs(3),
            ..Needs::NOTHING
        },
        run: sleeps,
    },
    Case {
        name: "bad_ends/sends",
        what: "a case that sends a file of every byte value",
        needs: Needs::NOTHING,
        run: sends,
    },
    Case {
        name: "bad_ends/long",
        what: "a case that outlives the VM's timeout",
        needs: Needs {
            timeout: Duration::from_secs(100_000),
            ..Needs::VM
        },
        run: sleeps,
    },
    Case {
        name: "bad_ends/crash",
        what: "a kernel panic",
        needs: Needs::VM,
        run: crash,
    },
    Case {
        name: "bad_ends/silence",
        what: "a guest that says nothing more",
        needs: Needs::VM,
        run: silence,
    },
    Case {
        name: "bad_ends/vanish",
        what: "a guest that ends without its closing line",
        needs: Needs::VM,
        run: vanish,
    },
];

fn fails(_: &Env) -> Result<Outcome> {
    println!("this is the output");
    Err(anyhow::anyhow!("the inner cause").context("the outer context"))
}

#[allow(clippy::unnecessary_wraps, reason = "every case has this signature")]
fn skips(_: &Env) -> Result<Outcome> {
    Ok(Outcome::Skipped("on purpose".into()))
}

fn panics(_: &Env) -> Result<Outcome> {
    panic!("on purpose")
}

#[allow(clippy::unnecessary_wraps, reason = "every case has this signature")]
fn sleeps(_: &Env) -> Result<Outcome> {
    std::thread::sleep(Duration::from_secs(100_000));
    Ok(Outcome::Passed)
}

fn sends(env: &Env) -> Result<Outcome> {
    let path = env.scratch.join("bytes");
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    fs::write(&path, bytes).context("write the file")?;
    env.send_file("bytes.bin", &path)?;
    Ok(Outcome::Passed)
}

/// Documentation/admin-guide/sysrq.rst: `c` crashes the kernel by a NULL pointer dereference or a panic.
fn crash(_: &Env) -> Result<Outcome> {
    fs::write("/proc/sysrq-trigger", "c").context("crash the kernel")?;
    bail!("the kernel survived")
}

fn silence(env: &Env) -> Result<Outcome> {
    signal_runner(env, Signal::STOP)?;
    sleeps(env)
}

fn vanish(env: &Env) -> Result<Outcome> {
    signal_runner(env, Signal::KILL)?;
    sleeps(env)
}

fn signal_runner(env: &Env, signal: Signal) -> Result<()> {
    ensure!(env.in_vm, "only in a VM");
    kill_process(getppid().context("no parent")?, signal).context("signal the runner")
}
