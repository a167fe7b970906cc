//! A directory for output, held open so that a later change of its name has no effect.
//! Input: a path. Symbolic links on the way are followed only if root or the caller made them.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, mkdirat, openat, readlinkat, statat},
    io::Errno,
    rand::{GetRandomFlags, getrandom},
};

use crate::{caller, escape::Printable};

/// The most links that a path may lead through, as in the kernel (fs/namei.c, `MAXSYMLINKS`).
const MOST_LINKS: u32 = 40;

/// A directory held open.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Directory {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// The system's error; a symbolic link of another user on the way.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut at = start(path.has_root())?;
        // The parts that remain, the last one first.
        let mut ahead = parts(path);
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match openat(&at, &part, DIRECTORY, Mode::empty()) {
                Ok(next) => at = next,
                Err(error @ (Errno::NOTDIR | Errno::LOOP)) => {
                    let stat = statat(&at, &part, AtFlags::SYMLINK_NOFOLLOW)?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                        return Err(error.into());
                    }
                    if !is_trusted(&stat) {
                        return Err(io::Error::other(format!(
                            "{} is a symbolic link of another user (uid {}), which is not followed",
                            Printable(&part.to_string_lossy()),
                            stat.st_uid
                        )));
                    }
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = readlinkat(&at, &part, Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.has_root() {
                        at = start(true)?;
                    }
                    ahead.extend(parts(&target));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self {
            fd: at,
            path: path.to_owned(),
        })
    }

    /// Opens a directory and creates it and its missing parents with access for their owner only.
    ///
    /// # Errors
    /// As [`Directory::open`].
    pub fn make_all(path: &Path) -> io::Result<Self> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent == Path::new("") {
                    Path::new(".")
                } else {
                    parent
                };
                let made = Self::make_all(parent)?.make(name)?;
                Ok(Self {
                    path: path.to_owned(),
                    ..made
                })
            }
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Opens a directory in this one and creates it, if it is missing, with access for its owner only. No link is
    /// followed.
    ///
    /// # Errors
    /// The system's error.
    pub fn make(&self, name: &OsStr) -> io::Result<Self> {
        match mkdirat(self, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let fd = openat(self, name, DIRECTORY, Mode::empty()).map_err(|error| match self.kind(name) {
            Some(FileType::Symlink) => io::Error::other("it is a symbolic link, which is not followed"),
            _ => error.into(),
        })?;
        Ok(Self {
            fd,
            path: self.path.join(name),
        })
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The status of a name in this directory; None if it does not exist.
    ///
    /// # Errors
    /// The system's error.
    pub fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn kind(&self, name: &OsStr) -> Option<FileType> {
        let stat = self.stat(name).ok().flatten()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// Whether that name is a directory.
    #[must_use]
    pub fn has_directory(&self, name: &OsStr) -> bool {
        self.kind(name) == Some(FileType::Directory)
    }

    /// Writes the names in this directory to the disk.
    ///
    /// # Errors
    /// The system's error.
    pub fn sync(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        File::from(openat(self, ".", flags, Mode::empty())?).sync_all()
    }
}

const DIRECTORY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn start(root: bool) -> io::Result<OwnedFd> {
    Ok(openat(CWD, if root { "/" } else { "." }, DIRECTORY, Mode::empty())?)
}

/// The parts of a path, without those that stay in place; the last one comes first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    parts.collect()
}

/// Whether it belongs to root, or to the user who called tracer, directly or through sudo.
#[must_use]
pub fn is_trusted(stat: &Stat) -> bool {
    let caller = caller::uid().ok().flatten();
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw() || Some(stat.st_uid) == caller
}

/// `.moves.csv.5d0c3e8b61a4f297.unfinished`: a name that cannot be guessed and that readers of data sets skip.
///
/// # Errors
/// When the system has no random numbers.
pub fn hidden(name: &OsStr) -> io::Result<OsString> {
    let mut bytes = [0; 8];
    let got = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if got < bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut hidden = OsString::from(".");
    hidden.push(name);
    // Writing to a String cannot fail.
    let mut digits = String::new();
    let _ = write!(digits, ".{:016x}.unfinished", u64::from_ne_bytes(bytes));
    hidden.push(digits);
    Ok(hidden)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_of_the_caller_are_followed_and_those_of_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("real/deep")).unwrap();
        symlink("real", path("link")).unwrap();
        symlink(path("link/deep"), path("absolute")).unwrap();
        for way in ["real/deep", "link/deep", "link/../link/deep/.", "absolute"] {
            let found = Directory::open(&path(way)).unwrap_or_else(|error| panic!("{way}: {error}"));
            fs::write(path("real/deep/here"), way).unwrap();
            assert!(found.stat(OsStr::new("here")).unwrap().is_some(), "{way}");
            fs::remove_file(path("real/deep/here")).unwrap();
        }
        symlink("turning", path("turning")).unwrap();
        fs::write(path("file"), "").unwrap();
        for way in ["turning", "file", "missing", "file/deeper"] {
            assert!(Directory::open(&path(way)).is_err(), "{way}");
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(path("link"), Some(4711), None).unwrap();
            let error = Directory::open(&path("link/deep")).unwrap_err().to_string();
            assert!(error.contains("uid 4711"), "{error}");
        }
    }

    #[test]
    fn a_directory_that_is_held_is_not_traded_for_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let held = Directory::make_all(&dir.path().join("a/b")).unwrap();
        fs::rename(dir.path().join("a"), dir.path().join("moved")).unwrap();
        symlink("/", dir.path().join("a")).unwrap();
        held.make(OsStr::new("c")).unwrap();
        assert!(dir.path().join("moved/b/c").is_dir());
        symlink("/", dir.path().join("moved/b/d")).unwrap();
        let error = held.make(OsStr::new("d")).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
    }
}
