//! PID 1 of the VM: mounts the file systems that the tests need, runs the tests, and powers off.
//! Input: the kernel's command line, `tracer.tests=NAME,NAME`, `tracer.nodes=N`, `tracer.shape=SHAPE`, `-- vm-init`.

use std::convert::Infallible;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use crate::here::{IN_VM, option};

/// The argument that the kernel passes to PID 1, from behind the `--` of its own command line.
const ARGUMENT: &str = "vm-init";

/// A word for the kernel's decompressor. The kernel itself does not know it, and so passes it to PID 1.
const HANDED_ON: &str = "nokaslr";

/// The second serial port; the first is the console.
const REPORT: &str = "/dev/ttyS1";

/// The mounts, in this order. tracefs is missing, because a tracer that needs it must mount it.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("debugfs", "/sys/kernel/debug"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Whether this process is the VM's init. In a container, this program may be process 1 too, and must not power off.
pub fn is_init(pid: u32, args: impl Iterator<Item = String>) -> bool {
    pid == 1 && args.skip(1).find(|arg| arg != HANDED_ON).as_deref() == Some(ARGUMENT)
}

/// Runs the tests and powers the machine off. PID 1 must not return, or the kernel panics.
pub fn main() -> ! {
    match boot() {
        Ok(status) if status.code() == Some(0) || status.code() == Some(1) => {}
        Ok(status) => eprintln!("init: the test runner ended with {status}"),
        Err(error) => eprintln!("init: {error:?}"),
    }
    let Err(error) = power_off();
    panic!("cannot power off: {error}");
}

fn power_off() -> Result<Infallible, Errno> {
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff)?;
    // Without ACPI the kernel halts instead; QEMU runs with -no-reboot, so this ends it.
    reboot(RebootCommand::Restart)?;
    Err(Errno::AGAIN)
}

fn boot() -> Result<ExitStatus> {
    for (kind, target) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("create {target}"))?;
        match mount(*kind, *target, *kind, MountFlags::empty(), None) {
            Ok(()) => {}
            // CONFIG_DEVTMPFS_MOUNT mounts it before PID 1 only if there is a root device, but a kernel may differ.
            Err(Errno::BUSY) if *kind == "devtmpfs" => {}
            Err(error) => return Err(error).with_context(|| format!("mount {kind} on {target}")),
        }
    }
    // A kernel with several nodes balances by default, which would move pages that no workload requested to move.
    match fs::write("/proc/sys/kernel/numa_balancing", "0") {
        Ok(()) => {}
        // This kernel has no CONFIG_NUMA_BALANCING.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("switch NUMA balancing off"),
    }
    let cmdline = fs::read_to_string("/proc/cmdline").context("read /proc/cmdline")?;
    let names = option(&cmdline, "tracer.tests").unwrap_or_default();
    let runner = Command::new("/bin/tracer-tests")
        .args(["run", "--tracer", "/bin/tracer", "--report", REPORT, "--"])
        .args(names.split(',').filter(|name| !name.is_empty()))
        .env_clear()
        .envs([("PATH", "/bin"), ("HOME", "/tmp"), ("TERM", "dumb"), (IN_VM, "1")])
        .spawn()
        .context("start /bin/tracer-tests")?;
    reap_until(runner.id())
}

/// Reaps every orphan, as PID 1 must, until `pid` has ended.
fn reap_until(pid: u32) -> Result<ExitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((child, status))) if child.as_raw_pid().cast_unsigned() == pid => {
                return Ok(ExitStatus::from_raw(status.as_raw()));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the test runner"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_init;

    #[test]
    fn process_1_is_no_init_without_the_word_for_it() {
        let is_init = |pid, args: &[&str]| is_init(pid, args.iter().map(|arg| (*arg).to_owned()));
        assert!(is_init(1, &["/init", "vm-init"]));
        assert!(is_init(1, &["/init", "nokaslr", "vm-init"]));
        assert!(!is_init(2, &["/init", "vm-init"]));
        assert!(!is_init(1, &["tracer-tests"]));
        assert!(!is_init(1, &["tracer-tests", "run", "vm-init"]));
        assert!(!is_init(1, &[]));
    }
}
