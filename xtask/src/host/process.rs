//! Other programs: runs them, reads their output, finds them, and ends them with this process.
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

/// The cargo that started this process, in the workspace's root.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The folder in which cargo builds. A relative path is relative to the workspace, in which cargo is started.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Runs a command that prints its own output.
///
/// # Errors
/// With the whole command line, if the command cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {}", shown(command)))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// The stdout of a command. If it does not succeed, its stderr is in the error.
pub fn output(command: &mut Command) -> Result<String> {
    String::from_utf8(output_bytes(command)?).with_context(|| format!("{} does not print UTF-8", shown(command)))
}

/// The stdout of a command as bytes.
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

/// A command line as a user would type it.
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

/// The program's path, if it is in PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// With `CI=true`, a skipped check counts as failed.
pub fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}

/// A child that does not outlive this process: it is killed on drop, and by the kernel if this process is killed.
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

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("wait for a child")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill, and the wait returns at once.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
