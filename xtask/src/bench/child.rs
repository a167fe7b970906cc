//! A child whose CPU time and memory are measured to the nanosecond and the page.
//! Input: a `Command`; wait4(2) and the CPU clock of the process.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::host::process::shown;

/// The exit status of a child, and the resources that it used.
#[derive(Debug)]
pub struct Used {
    pub status: ExitStatus,
    pub cpu: Duration,
    /// Peak of resident memory, bytes.
    pub memory: u64,
}

/// A child that does not outlive this process, and is waited for once.
pub struct Measured {
    pub child: Child,
    waited: bool,
}

impl Measured {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let die_with_parent = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one bare prctl(2).
        unsafe { command.pre_exec(die_with_parent) };
        let child = command.spawn().with_context(|| format!("start {}", shown(command)))?;
        Ok(Self { child, waited: false })
    }

    /// The CPU time of all its threads so far.
    pub fn cpu(&self) -> Result<Duration> {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both write to the variables above, which live through the calls.
        let done = unsafe {
            libc::clock_getcpuclockid(self.child.id().cast_signed(), &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        if !done {
            return Err(io::Error::last_os_error()).context("read a child's CPU clock");
        }
        let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
        Ok(Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0)))
    }

    /// Requests its end, as Ctrl-C does.
    pub fn interrupt(&self) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::INT).context("interrupt a child")
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<Used> {
        self.reap(0)?.context("a child without an end")
    }

    /// The resources that it used, if it has ended.
    pub fn ended(&mut self) -> Result<Option<Used>> {
        self.reap(libc::WNOHANG)
    }

    fn reap(&mut self, options: i32) -> Result<Option<Used>> {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        let pid = self.child.id().cast_signed();
        let found = loop {
            // SAFETY: both are written by the call and live through it.
            let found = unsafe { libc::wait4(pid, &raw mut status, options, usage.as_mut_ptr()) };
            if found >= 0 {
                break found;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error).context("wait for a child");
            }
        };
        if found == 0 {
            return Ok(None);
        }
        self.waited = true;
        // SAFETY: all zeros is a valid value, and the kernel has filled it since.
        let usage = unsafe { usage.assume_init() };
        Ok(Some(Used {
            status: ExitStatus::from_raw(status),
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            memory: u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10,
        }))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if !self.waited {
            // It may have ended already: then there is nothing to kill, and the wait returns at once.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// CPU time of this process.
pub fn own_cpu() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the structure, which lives through it; all zeros is a valid value.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn time(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
}

/// Nanoseconds as an integer, for sums and ratios.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
