//! Other programs: run, read, found, and never left behind.
//! Input: a `Command`, the environment's PATH.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

/// The workspace's root.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that started us, in the workspace's root.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Where cargo builds; a relative one is the workspace's: there our cargo is started.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Runs a command that prints for itself.
///
/// # Errors
/// With the whole command line, when it cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// What a command writes to stdout; its stderr is in the error when it does not succeed.
pub fn output(command: &mut Command) -> Result<String> {
    String::from_utf8(output_bytes(command)?).with_context(|| format!("{} does not print UTF-8", shown(command)))
}

/// The same, whatever the bytes are.
pub fn output_bytes(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", shown(command)))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}\n{}", shown(command), output.status, errors.trim_end());
    }
    Ok(output.stdout)
}

/// A command line as it would be typed.
pub fn shown(command: &Command) -> String {
    let words: Vec<OsString> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(Into::into)
        .collect();
    words
        .iter()
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The program's path, when PATH has it.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// With `CI=true` a check that was skipped is a check that failed.
pub fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}

/// A child that does not outlive us: killed on drop, and by the kernel should we be killed.
pub struct Guard(Child);

impl Guard {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let die_with_parent = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one bare prctl(2).
        unsafe { command.pre_exec(die_with_parent) };
        Ok(Self(
            command.spawn().with_context(|| format!("start {}", shown(command)))?,
        ))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("wait for a child")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill, and the wait returns at once.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
