//! The clocks of this process, and its cost.
//! Input: `clock_gettime`, /proc/self/status.

use crate::units::Nanos;

/// `CLOCK_MONOTONIC`.
pub fn now() -> Nanos {
    nanos(rustix::time::ClockId::Monotonic)
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
    nanos(rustix::time::ClockId::ProcessCPUTime)
}

fn nanos(clock: rustix::time::ClockId) -> Nanos {
    let clock = rustix::time::clock_gettime(clock);
    Nanos(u64::try_from(clock.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(clock.tv_nsec).unwrap_or(0))
}
