//! The virtual machine: finds QEMU and starts it.
//! Input: the kernel, the initramfs, the shape of the machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tracer_tests_report::shape::Shape;

use super::shape::{Layout, Mebibytes};
use crate::host::apt;
use crate::host::process::{self, Guard};

const QEMU: &str = "qemu-system-x86_64";

/// Finds QEMU, installing Debian's package as root if it is absent.
///
/// # Errors
/// When it is absent and cannot be installed; the error contains the command to type.
pub fn require() -> Result<()> {
    if process::find(QEMU).is_none() {
        apt::install(&["qemu-system-x86"]).with_context(|| format!("{QEMU} is needed for the VMs"))?;
        ensure!(
            process::find(QEMU).is_some(),
            "qemu-system-x86 is installed, but {QEMU} is not in PATH"
        );
    }
    Ok(())
}

/// A machine to start.
pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    pub shape: Shape,
    /// The number of nodes of the plain shape.
    pub nodes: u32,
    pub per_node: Mebibytes,
    pub accel: &'a str,
    /// Tests to run. If empty, all tests that apply run.
    pub tests: &'a [String],
    /// More words for the kernel's command line.
    pub append: &'a str,
}

/// The files of a machine's output, all in one directory.
pub struct Outputs {
    pub console: PathBuf,
    pub results: PathBuf,
    pub qemu: PathBuf,
}

impl Outputs {
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            console: dir.join("console.log"),
            results: dir.join("results"),
            qemu: dir.join("qemu.log"),
        }
    }
}

impl Machine<'_> {
    /// Starts the machine. It ends when the guest powers off, restarts or panics, and with the guard.
    pub fn start(&self, outputs: &Outputs) -> Result<Guard> {
        let errors =
            std::fs::File::create(&outputs.qemu).with_context(|| format!("create {}", outputs.qemu.display()))?;
        let serial = |path: &Path| format!("file:{}", path.display());
        let mut qemu = Command::new(QEMU);
        // The machine has no network card and no default devices: tests need none, and the boot is faster.
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-monitor",
            "none",
            "-no-reboot",
        ])
        .args(["-accel", self.accel, "-cpu", "max"])
        .args(Layout::of(self.shape, self.nodes, self.per_node).arguments())
        .args([
            "-serial",
            &serial(&outputs.console),
            "-serial",
            &serial(&outputs.results),
        ])
        .arg("-kernel")
        .arg(self.kernel)
        .arg("-initrd")
        .arg(self.initramfs)
        .args(["-append", &self.command_line()])
        .stdin(Stdio::null())
        .stdout(errors.try_clone().context("share QEMU's log")?)
        .stderr(errors);
        Guard::spawn(&mut qemu)
    }

    /// The kernel's command line. A panic ends the VM (`panic=-1` restarts at once, which `-no-reboot` turns into an
    /// exit), and an oops panics. Up to 6.4, memfd_secret(2) is switched on only here (mm/secretmem.c).
    fn command_line(&self) -> String {
        let layout = Layout::of(self.shape, self.nodes, self.per_node);
        let (nodes, shape) = (layout.nodes.len(), self.shape.name());
        let mut line = format!(
            "console=ttyS0 panic=-1 oops=panic quiet secretmem.enable=1 tracer.nodes={nodes} tracer.shape={shape}"
        );
        for (word, value) in [
            (" tracer.tests=", self.tests.join(",")),
            (" ", layout.words.to_owned()),
            (" ", self.append.to_owned()),
        ] {
            if !value.is_empty() {
                line.push_str(word);
                line.push_str(&value);
            }
        }
        // PID 1 gets the words behind `--`: without this word, it does not act as init.
        line + " -- vm-init"
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Mebibytes, Shape};
    use std::path::Path;

    fn machine(nodes: u32) -> Machine<'static> {
        Machine {
            kernel: Path::new("k"),
            initramfs: Path::new("i"),
            shape: Shape::Plain,
            nodes,
            per_node: Mebibytes(512),
            accel: "tcg",
            tests: &[],
            append: "",
        }
    }

    #[test]
    fn no_tests_named_means_no_option() {
        assert!(!machine(2).command_line().contains("tracer.tests"));
        let names = ["a".to_owned(), "b".to_owned()];
        assert!(
            Machine {
                tests: &names,
                ..machine(2)
            }
            .command_line()
            .contains(" tracer.tests=a,b ")
        );
    }
}
