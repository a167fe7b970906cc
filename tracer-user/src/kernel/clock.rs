//! The clocks of the machine, and the cost of this process.
//! Input: `clock_gettime`, /proc/self/status.

use rustix::time::{ClockId, clock_gettime};

use crate::units::Nanos;

/// `CLOCK_MONOTONIC`, the clock of the kernel's events (`bpf_ktime_get_ns`).
pub fn now() -> Nanos {
    nanos(ClockId::Monotonic)
}

/// Nanoseconds from zero of `CLOCK_MONOTONIC` to the epoch of `CLOCK_REALTIME`.
pub fn since_epoch() -> i128 {
    i128::from(nanos(ClockId::Realtime).0) - i128::from(now().0)
}

/// The time for which the machine was suspended: `CLOCK_MONOTONIC` stood still meanwhile.
pub fn suspended() -> Nanos {
    nanos(ClockId::Boottime).since(now())
}

/// CPU time and peak memory of this process (/proc/self/status, fs/proc/task_mmu.c `task_mem`).
pub fn cost() -> (Nanos, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or(0);
    (cpu_time(), peak_kib << 10)
}

/// CPU time of this process so far.
pub fn cpu_time() -> Nanos {
    nanos(ClockId::ProcessCPUTime)
}

fn nanos(clock: ClockId) -> Nanos {
    let clock = clock_gettime(clock);
    Nanos(u64::try_from(clock.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(clock.tv_nsec).unwrap_or(0))
}
