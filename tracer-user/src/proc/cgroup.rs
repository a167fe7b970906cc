//! The cgroups of the v2 hierarchy: their mount, the cgroup that a path names, and the processes in it.
//! Input: /proc/self/mountinfo, the cgroup2 file system, /proc/PID/cgroup.

use std::{
    fs, io,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use thiserror::Error;
use tracer_common::filter::MAX_CGROUP_LEVELS;

use crate::{escape::Printable, units::Tgid};

/// Why a cgroup cannot be traced.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// There is no cgroup2 mount: the machine has only cgroup v1, or /sys is not mounted.
    #[error("cgroup v2 is not mounted here: tracer does not support v1 hierarchies")]
    NoHierarchy,
    /// There is no such directory.
    #[error("no cgroup {} in {mount}", Printable(given))]
    NotFound {
        /// The path as it was given.
        given: String,
        /// The mount point of the v2 hierarchy.
        mount: String,
    },
    /// The path leads out of the hierarchy, or to a file.
    #[error("{} is not a cgroup: give a path below {mount}", Printable(given))]
    NoCgroup {
        /// The path as it was given.
        given: String,
        /// The mount point of the v2 hierarchy.
        mount: String,
    },
    /// The cgroup is deeper than the BPF side looks.
    #[error("cgroup {} is more than {} levels deep", Printable(.0), MAX_CGROUP_LEVELS - 2)]
    Deep(String),
    /// The kernel refused to show a path.
    #[error("cannot access {path}: {source}")]
    Read {
        /// The path.
        path: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The mounted v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    mount: PathBuf,
    /// Path of the mounted cgroup from the root of this process's cgroup namespace; empty for that root itself.
    root: String,
}

/// A cgroup that was requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// `kernfs_node.id`, which is the directory's inode number (`kernfs_id_ino`, include/linux/kernfs.h, 64 bits).
    pub id: u64,
    /// Its path as /proc/PID/cgroup shows it; empty for the root.
    path: String,
}

impl Hierarchy {
    /// Finds the mount.
    ///
    /// # Errors
    /// [`CgroupError::NoHierarchy`], [`CgroupError::Read`].
    pub fn find() -> Result<Self, CgroupError> {
        let path = "/proc/self/mountinfo";
        let text = fs::read(path).map_err(|source| CgroupError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).ok_or(CgroupError::NoHierarchy)
    }

    /// The first cgroup2 mount of `/proc/self/mountinfo` (fs/proc_namespace.c, `show_mountinfo`).
    #[must_use]
    pub fn parse(mountinfo: &[u8]) -> Option<Self> {
        mountinfo.split(|&byte| byte == b'\n').find_map(|line| {
            let mut fields = line.split(|&byte| byte == b' ');
            let root = unescape(fields.nth(3)?);
            let mount = unescape(fields.next()?);
            fields.find(|field| *field == b"-")?;
            (fields.next()? == b"cgroup2").then(|| Self {
                mount: PathBuf::from(std::ffi::OsString::from_vec(mount)),
                root: String::from_utf8_lossy(&root).trim_end_matches('/').to_owned(),
            })
        })
    }

    /// The cgroup that a person names, by its path in the hierarchy or by the path of its directory.
    ///
    /// # Errors
    /// [`CgroupError`] says what is wrong with the path.
    pub fn resolve(&self, given: &str) -> Result<Cgroup, CgroupError> {
        let mount = self.mount.display().to_string();
        let inside = Path::new(given);
        let inside = inside.strip_prefix(&self.mount).unwrap_or(inside);
        let mut path = self.root.clone();
        for component in inside.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    path.push('/');
                    path.push_str(&name.to_string_lossy());
                }
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(CgroupError::NoCgroup {
                        given: given.to_owned(),
                        mount,
                    });
                }
            }
        }
        if path.matches('/').count() > MAX_CGROUP_LEVELS - 2 {
            return Err(CgroupError::Deep(given.to_owned()));
        }
        let directory = self.mount.join(inside.strip_prefix("/").unwrap_or(inside));
        let found = fs::metadata(&directory).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CgroupError::NotFound {
                given: given.to_owned(),
                mount: mount.clone(),
            },
            _ => CgroupError::Read {
                path: directory.display().to_string(),
                source,
            },
        })?;
        if !found.is_dir() {
            return Err(CgroupError::NoCgroup {
                given: given.to_owned(),
                mount,
            });
        }
        Ok(Cgroup { id: found.ino(), path })
    }
}

impl Cgroup {
    /// Whether a process is in this cgroup or in one below, by the content of its /proc/PID/cgroup.
    #[must_use]
    pub fn holds(&self, proc_pid_cgroup: &[u8]) -> bool {
        let Some(path) = unified(proc_pid_cgroup) else {
            return false;
        };
        match path.strip_prefix(self.path.as_bytes()) {
            // The paths of cgroups outside this process's cgroup namespace begin with /.. (kernfs_path_from_node).
            Some(below) => below.is_empty() || below.starts_with(b"/") && !below.starts_with(b"/.."),
            None => false,
        }
    }
}

/// The process's line of the v2 hierarchy in `/proc/PID/cgroup`.
///
/// # Errors
/// The kernel's error.
pub fn read(tgid: Tgid) -> io::Result<Vec<u8>> {
    fs::read(format!("/proc/{tgid}/cgroup"))
}

/// The path in the line `0::PATH` (kernel/cgroup/cgroup.c, `proc_cgroup_show`).
fn unified(text: &[u8]) -> Option<&[u8]> {
    let line = text
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))?;
    Some(line.strip_suffix(b" (deleted)").unwrap_or(line))
}

/// Undoes the octal escapes of blanks and backslashes (`mangle`, fs/seq_file.c).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        let code = (byte == b'\\')
            .then(|| str::from_utf8(behind.get(..3)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if code.is_some() {
            rest = &behind[3..];
        }
        bytes.push(code.unwrap_or(byte));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_is_found_among_others() {
        let text = b"24 1 0:22 / / rw - ext4 /dev/root rw\n\
            35 24 0:30 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
            36 24 0:31 / /mnt/a\\040b rw,nosuid shared:10 master:1 - cgroup2 cgroup2 rw\n";
        let found = Hierarchy::parse(text).unwrap();
        assert_eq!(found.mount, Path::new("/mnt/a b"));
        assert_eq!(found.root, "");
        assert_eq!(Hierarchy::parse(&text[..100]), None);
        assert_eq!(Hierarchy::parse(b"garbage\n\n1 2"), None);
    }

    #[test]
    fn paths_mean_what_is_below_the_mount() {
        let scratch = std::env::temp_dir().join(format!("tracer-cgroup-{}", std::process::id()));
        fs::create_dir_all(scratch.join("a/b")).unwrap();
        fs::write(scratch.join("a/file"), "").unwrap();
        let hierarchy = Hierarchy {
            mount: scratch.clone(),
            root: "/docker".to_owned(),
        };
        let absolute = scratch.join("a/b");
        for given in ["a/b", "/a/b", "/a/b/", "./a//b", absolute.to_str().unwrap()] {
            assert_eq!(hierarchy.resolve(given).unwrap().path, "/docker/a/b", "{given}");
        }
        assert_eq!(hierarchy.resolve("/").unwrap().path, "/docker");
        assert!(matches!(hierarchy.resolve("/c"), Err(CgroupError::NotFound { .. })));
        assert!(matches!(hierarchy.resolve("a/../a"), Err(CgroupError::NoCgroup { .. })));
        assert!(matches!(hierarchy.resolve("a/file"), Err(CgroupError::NoCgroup { .. })));
        assert!(matches!(hierarchy.resolve(&"/x".repeat(31)), Err(CgroupError::Deep(_))));
        fs::remove_dir_all(scratch).unwrap();
    }

    #[test]
    fn a_cgroup_holds_what_is_below_it() {
        let a = Cgroup {
            id: 1,
            path: "/a".to_owned(),
        };
        let root = Cgroup {
            id: 1,
            path: String::new(),
        };
        for inside in ["0::/a\n", "9:memory:/x\n0::/a/b\n", "0::/a (deleted)\n"] {
            assert!(a.holds(inside.as_bytes()) && root.holds(inside.as_bytes()), "{inside}");
        }
        for outside in ["0::/ab\n", "0::/\n", "0::/b/a\n", "3:cpu:/a\n", ""] {
            assert!(!a.holds(outside.as_bytes()), "{outside}");
        }
        assert!(!root.holds(b"0::/../other\n"));
    }
}
