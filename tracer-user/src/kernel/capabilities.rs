//! The capabilities of this process.
//! Input: the CapEff line of /proc/self/status.

use std::fmt;
use std::fs;
use std::io;

/// The capabilities that tracer can make use of, with their bits (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Capability {
    /// Open root's files for reading and writing: kpageflags, kpagecount, tracefs.
    DacOverride = 1,
    /// Open root's files for reading.
    DacReadSearch = 2,
    /// Send signals to other users' processes.
    Kill = 5,
    /// Read maps and pagemap of other users' processes.
    SysPtrace = 19,
    /// See frame numbers in pagemap; before 5.8 also everything that concerns BPF.
    SysAdmin = 21,
    /// Raise limits: locked memory for BPF maps before 5.11.
    SysResource = 24,
    /// See kernel addresses in /proc/kallsyms.
    Syslog = 34,
    /// Attach to tracepoints and functions, and let BPF read kernel memory (5.8 and later).
    Perfmon = 38,
    /// Load BPF programs and create maps (5.8 and later).
    Bpf = 39,
}

impl Capability {
    /// All of these, by bit.
    pub const ALL: [Self; 9] = [
        Self::DacOverride,
        Self::DacReadSearch,
        Self::Kill,
        Self::SysPtrace,
        Self::SysAdmin,
        Self::SysResource,
        Self::Syslog,
        Self::Perfmon,
        Self::Bpf,
    ];
}

impl fmt::Display for Capability {
    /// The kernel's name: "CAP_SYS_ADMIN".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::DacReadSearch => "CAP_DAC_READ_SEARCH",
            Self::Kill => "CAP_KILL",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Syslog => "CAP_SYSLOG",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        })
    }
}

/// A set of capabilities. In a user namespace they hold only for its own objects: tracing needs those of the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Parses the effective set of `/proc/PID/status` (fs/proc/array.c, `task_cap`); `None` without a valid CapEff
    /// line.
    pub fn parse(status: &[u8]) -> Option<Self> {
        let line = status
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(b"CapEff:"))?;
        let digits = str::from_utf8(line.trim_ascii()).ok()?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u64::from_str_radix(digits, 16).ok().map(Self)
    }

    /// The effective set of this process's main thread.
    ///
    /// # Errors
    /// The kernel's error, or `InvalidData` without the line.
    pub fn read() -> io::Result<Self> {
        let status = fs::read("/proc/self/status")?;
        Self::parse(&status).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no CapEff in /proc/self/status"))
    }

    /// Whether the capability is in the set.
    pub fn has(self, capability: Capability) -> bool {
        self.0 >> (capability as u8) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_effective_set() {
        let status = b"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000000c000280002\nCapBnd:\t0\n";
        let set = Capabilities::parse(status).unwrap();
        let held: Vec<String> = Capability::ALL
            .into_iter()
            .filter(|&capability| set.has(capability))
            .map(|capability| capability.to_string())
            .collect();
        assert_eq!(
            held,
            [
                "CAP_DAC_OVERRIDE",
                "CAP_SYS_PTRACE",
                "CAP_SYS_ADMIN",
                "CAP_PERFMON",
                "CAP_BPF"
            ]
        );
    }

    #[test]
    fn other_forms_are_no_set() {
        for status in [
            &b""[..],
            b"CapEff:",
            b"CapEff:\t+1",
            b"CapEff:\t11112222333344445",
            b"CapEff:\txyz",
        ] {
            assert_eq!(Capabilities::parse(status), None);
        }
        assert!(Capabilities::read().is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = Capabilities::parse(&text);
        }
    }
}
