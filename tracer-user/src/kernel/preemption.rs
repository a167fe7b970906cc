//! Whether the kernel preempts a task that runs in the kernel, BPF programs included.
//! Input: the file `sched/preempt` of debugfs, mounted or not; uname(2).

use std::fs;

use super::release;

/// The file exists on kernels that can change their preemption mode at run time (CONFIG_PREEMPT_DYNAMIC).
const DYNAMIC: &str = "/sys/kernel/debug/sched/preempt";

/// Whether a task may be preempted in the kernel; true if that is not known.
#[must_use]
pub fn preempts() -> bool {
    let dynamic = fs::read(DYNAMIC).or_else(|_| release::read_unmounted("debugfs", "sched/preempt"));
    let version = rustix::system::uname().version().to_string_lossy().into_owned();
    dynamic
        .ok()
        .and_then(|text| parse(&String::from_utf8_lossy(&text)))
        .unwrap_or_else(|| version.contains("PREEMPT"))
}

/// Parses the file: all modes, the active one in parentheses ("none (voluntary) full lazy"), as `sched_dynamic_show`
/// writes it (kernel/sched/debug.c, 6.1 to 7.3).
fn parse(text: &str) -> Option<bool> {
    let mut words = text.split_ascii_whitespace();
    let active = words.find_map(|word| word.strip_prefix('(')?.strip_suffix(')'))?;
    Some(!matches!(active, "none" | "voluntary"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_active_mode() {
        assert_eq!(parse("none (voluntary) full\n"), Some(false));
        assert_eq!(parse("(none) voluntary full"), Some(false));
        assert_eq!(parse("none voluntary (full)"), Some(true));
        assert_eq!(parse("full (lazy)\n"), Some(true));
        assert_eq!(parse("none voluntary full"), None);
        assert_eq!(parse(""), None);
    }
}
