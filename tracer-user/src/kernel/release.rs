//! The release of the running kernel, and its lockdown state.
//! Input: uname(2), the file `lockdown` of securityfs, mounted or not.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The file of the lockdown state; in securityfs, which need not be mounted.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Major, minor and patch number, in this order of comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads the beginning of a release string: "6.12.117+deb12-cloud-amd64", "6.18-rc3", "7.3.0".
    /// A missing patch number is 0, and a release candidate counts as the release. `None` if it does not begin with two numbers.
    ///
    /// Distributions keep the patch number at 0 and still apply fixes: never conclude from it that a fix is missing.
    pub fn parse(release: &str) -> Option<Self> {
        let (major, rest) = leading_number(release)?;
        let (minor, rest) = leading_number(rest.strip_prefix('.')?)?;
        let patch = rest.strip_prefix('.').and_then(leading_number);
        Some(Self(major, minor, patch.map_or(0, |(patch, _)| patch)))
    }
}

fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The running kernel's release string, as `uname -r` prints it.
pub fn release() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

/// The running kernel's version; `None` if its release string has none.
pub fn version() -> Option<Version> {
    Version::parse(&release())
}

/// How far the kernel protects itself, even from root (security/lockdown/lockdown.c, 5.4 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lockdown {
    /// Nothing is refused.
    None,
    /// The kernel refuses what could change it, such as BPF that writes user memory. It does not refuse kprobes and
    /// function hooks: `LOCKDOWN_KPROBES` and `LOCKDOWN_BPF_READ_KERNEL` come after `LOCKDOWN_INTEGRITY_MAX` (`enum
    /// lockdown_reason`, include/linux/security.h, 5.4 to 7.3).
    Integrity,
    /// The kernel also refuses what could read it: BPF that reads kernel memory, kprobes, /proc/kcore.
    Confidentiality,
    /// It is not known: the kernel has no lockdown module, or its file may not be read.
    Unknown,
}

impl Lockdown {
    /// Parses the file: all levels, the active one in brackets ("none \[integrity\] confidentiality").
    pub fn parse(text: &[u8]) -> Self {
        let words = text.split(u8::is_ascii_whitespace);
        let mut active = words.filter_map(|word| word.strip_prefix(b"[")?.strip_suffix(b"]"));
        match active.next() {
            Some(b"none") => Self::None,
            Some(b"integrity") => Self::Integrity,
            Some(b"confidentiality") => Self::Confidentiality,
            _ => Self::Unknown,
        }
    }

    /// Reads the running kernel's state; root can see it even if securityfs is not mounted.
    pub fn read() -> Self {
        fs::read(LOCKDOWN)
            .or_else(|_| read_unmounted("securityfs", "lockdown"))
            .map_or(Self::Unknown, |text| Self::parse(&text))
    }
}

/// Reads a file of a kernel's own filesystem through a mount that is attached nowhere: no other process sees it, and it
/// disappears when it is closed. The system calls exist since 5.2 and need CAP_SYS_ADMIN.
pub(super) fn read_unmounted(filesystem: &str, path: &str) -> io::Result<Vec<u8>> {
    let filesystem = fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&filesystem)?;
    let mount = fsmount(
        &filesystem,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )?;
    let file = openat(&mount, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = Vec::new();
    File::from(file).read_to_end(&mut text)?;
    Ok(text)
}

impl fmt::Display for Lockdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
            Self::Unknown => "unknown",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_release_strings() {
        for (release, version) in [
            ("6.12.117+deb12-cloud-amd64", Some(Version(6, 12, 117))),
            ("6.1.0-44-cloud-amd64", Some(Version(6, 1, 0))),
            ("5.15.0-1051-azure", Some(Version(5, 15, 0))),
            ("6.18-rc3", Some(Version(6, 18, 0))),
            ("7.3.0-rc1-next-20260901", Some(Version(7, 3, 0))),
            ("6.6.99-fc", Some(Version(6, 6, 99))),
            ("6.x", None),
            ("6", None),
            ("", None),
            (".6.1", None),
            ("-6.1", None),
            ("99999999999.1", None),
            ("6.1.99999999999", Some(Version(6, 1, 0))),
        ] {
            assert_eq!(Version::parse(release), version, "{release}");
        }
        assert!(Version(6, 9, 12) < Version(6, 10, 0));
        assert_eq!(Version(6, 12, 1).to_string(), "6.12.1");
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        assert!(version().is_some_and(|version| version > Version(5, 0, 0)));
    }

    #[test]
    fn reads_lockdown() {
        assert_eq!(Lockdown::parse(b"[none] integrity confidentiality\n"), Lockdown::None);
        assert_eq!(
            Lockdown::parse(b"none [integrity] confidentiality\n"),
            Lockdown::Integrity
        );
        assert_eq!(
            Lockdown::parse(b"none integrity [confidentiality]\n"),
            Lockdown::Confidentiality
        );
        for other in [
            &b""[..],
            b"none integrity",
            b"[]",
            b"[future]",
            b"[none integrity]",
            b"\xff[",
        ] {
            assert_eq!(Lockdown::parse(other), Lockdown::Unknown);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text: String, bytes: Vec<u8>) {
            let _ = Version::parse(&text);
            let _ = Lockdown::parse(&bytes);
        }
    }
}
