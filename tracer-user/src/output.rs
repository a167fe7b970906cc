//! Where output may be put: never through a symbolic link, never over another file unasked, for its owner alone.
//! Input: a path.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process,
};

use rustix::{
    fs::{AtFlags, CWD, OFlags, RenameFlags, linkat, renameat_with},
    io::Errno,
};

use crate::escape::Printable;

/// What is at a path that may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Free,
    /// A file that is to be replaced.
    File,
    /// A pipe or a device.
    Stream,
}

/// Looks at what is at a path; `force` says that a file may be replaced.
///
/// # Errors
/// When it may not be written to.
pub fn look(path: &Path, force: bool) -> io::Result<Place> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Free),
        Err(error) => return Err(error),
    };
    if kind.is_symlink() {
        Err(io::Error::other("it is a symbolic link, which is not followed"))
    } else if kind.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else if kind.is_fifo() || kind.is_char_device() {
        Ok(Place::Stream)
    } else if !kind.is_file() {
        Err(io::Error::other("it is neither a file nor a pipe"))
    } else if force {
        Ok(Place::File)
    } else {
        Err(there_already())
    }
}

fn there_already() -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        "it is there already (--force replaces it)",
    )
}

fn options(flags: OFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags((OFlags::NOFOLLOW | flags).bits().cast_signed())
        .mode(0o600);
    options
}

/// Opens a path for writing: a new file for its owner alone, or a pipe or a device.
///
/// # Errors
/// As [`look`], and whatever the system says.
pub fn open(path: &Path, force: bool) -> io::Result<(File, Place)> {
    let place = look(path, force)?;
    if place == Place::File {
        fs::remove_file(path)?;
    }
    let file = options(OFlags::empty()).create_new(place != Place::Stream).open(path)?;
    Ok((file, place))
}

/// Brings the names in the directory of a file to the disk: that of a new file, too.
///
/// # Errors
/// Whatever the system says.
pub fn sync_names(path: &Path) -> io::Result<()> {
    File::open(directory(path))?.sync_all()
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// An error of an operation (`create`, `write`) on a path.
#[must_use]
pub fn about(path: &Path, what: &str, error: &io::Error) -> io::Error {
    let path = path.to_string_lossy();
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", Printable(&path)))
}

/// A file that is at its path only when it is whole: until then it has no name, and is gone with whoever writes it.
pub struct Draft {
    path: PathBuf,
    file: File,
    force: bool,
    name: Name,
}

/// The name of a draft.
enum Name {
    /// Its path: a pipe or a device, which is written to at once, or a file that has been published.
    Own,
    /// None.
    Nothing,
    /// Another one, where the file system has no files without a name.
    Unfinished(PathBuf),
}

impl Draft {
    /// Creates it.
    ///
    /// # Errors
    /// As [`look`], and whatever the system says; with the path.
    pub fn create(path: &Path, force: bool) -> io::Result<Self> {
        let created = match look(path, force) {
            Ok(Place::Stream) => options(OFlags::empty()).open(path).map(|file| (file, Name::Own)),
            Ok(Place::Free | Place::File) => Self::without_name(path),
            Err(error) => Err(error),
        };
        let (file, name) = created.map_err(|error| about(path, "create", &error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            force,
            name,
        })
    }

    fn without_name(path: &Path) -> io::Result<(File, Name)> {
        // What cannot be a name is found out now, not when everything is written.
        let unfinished = unfinished(path)?;
        match options(OFlags::TMPFILE).open(directory(path)) {
            // A file system, or a kernel, that has no such files.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::OPNOTSUPP | Errno::ISDIR)) => {
                let file = options(OFlags::empty()).create_new(true).open(&unfinished)?;
                Ok((file, Name::Unfinished(unfinished)))
            }
            other => Ok((other?, Name::Nothing)),
        }
    }

    /// Where it is going to be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Whether it is a file, and no pipe or device.
    #[must_use]
    pub fn is_file(&self) -> bool {
        !matches!(self.name, Name::Own)
    }

    /// What writes to it, unbuffered; its errors tell the path.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn writer(&self) -> io::Result<Writer> {
        Ok(Writer {
            path: self.path.clone(),
            file: self.file()?,
        })
    }

    /// Everything has been written: it gets its name.
    ///
    /// # Errors
    /// When it cannot be brought to the disk, or something is at its path by now.
    pub fn publish(mut self) -> io::Result<()> {
        self.name().map_err(|error| about(&self.path, "write", &error))
    }

    fn name(&mut self) -> io::Result<()> {
        if !self.is_file() {
            return Ok(());
        }
        self.file.sync_data()?;
        if matches!(self.name, Name::Nothing) {
            // A link replaces nothing: what may be replaced is by the name that follows.
            let name = if self.force {
                &unfinished(&self.path)?
            } else {
                &self.path
            };
            let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, unnamed, CWD, name, AtFlags::SYMLINK_FOLLOW).map_err(taken)?;
            if self.force {
                self.name = Name::Unfinished(name.clone());
            }
        }
        if let Name::Unfinished(unfinished) = &self.name {
            rename(unfinished, &self.path, self.force)?;
        }
        self.name = Name::Own;
        sync_names(&self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Name::Unfinished(unfinished) = &self.name {
            // Its name says what it is.
            let _ = fs::remove_file(unfinished);
        }
    }
}

fn rename(from: &Path, to: &Path, force: bool) -> io::Result<()> {
    // Somebody may have been faster; with `force` the last one stays.
    let flags = if force {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    match renameat_with(CWD, from, CWD, to, flags) {
        // A file system that cannot look and rename at once.
        Err(Errno::INVAL) => {
            look(to, force)?;
            fs::rename(from, to)
        }
        other => other.map_err(taken),
    }
}

/// Somebody may have been faster.
fn taken(errno: Errno) -> io::Error {
    match errno {
        Errno::EXIST => there_already(),
        other => other.into(),
    }
}

/// `.moves.csv.4711.unfinished`: readers of data sets skip such names.
fn unfinished(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.unfinished", process::id()));
    Ok(path.with_file_name(hidden))
}

/// Writes to a [`Draft`].
pub struct Writer {
    path: PathBuf,
    file: File,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| match error.kind() {
            // A system call to be repeated; `write_all` does.
            io::ErrorKind::Interrupted => error,
            _ => about(&self.path, "write", &error),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// An empty directory of the test's own.
    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tracer-place-{}-{name}", process::id()));
        fs::create_dir(&path).unwrap();
        path
    }

    fn names(path: &Path) -> Vec<OsString> {
        fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    }

    #[test]
    fn a_file_is_there_when_it_is_whole() {
        let dir = scratch("whole");
        let path = dir.join("out.csv");
        let draft = Draft::create(&path, false).unwrap();
        draft.writer().unwrap().write_all(b"a row").unwrap();
        assert!(draft.is_file() && names(&dir).is_empty());
        draft.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"a row");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        drop(Draft::create(&path, true).unwrap());
        assert_eq!(names(&dir), ["out.csv"]);
        assert_eq!(fs::read(&path).unwrap(), b"a row");
        fs::remove_dir_all(&dir).unwrap();
    }

    /// As where there are no files without a name.
    #[test]
    fn an_unfinished_file_gets_its_name_or_goes() {
        let dir = scratch("unfinished");
        let path = dir.join("out.csv");
        let draft = |force| {
            let unfinished = unfinished(&path).unwrap();
            Draft {
                path: path.clone(),
                file: options(OFlags::empty()).create_new(true).open(&unfinished).unwrap(),
                force,
                name: Name::Unfinished(unfinished),
            }
        };
        drop(draft(false));
        assert!(names(&dir).is_empty());
        draft(false).publish().unwrap();
        assert_eq!(names(&dir), ["out.csv"]);
        let error = draft(false).publish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        draft(true).publish().unwrap();
        assert_eq!(names(&dir), ["out.csv"]);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nothing_is_replaced_unasked() {
        let dir = scratch("kept");
        let path = dir.join("out");
        let late = Draft::create(&path, false).unwrap();
        fs::write(&path, "another's").unwrap();
        for error in [late.publish().unwrap_err(), Draft::create(&path, false).err().unwrap()] {
            assert!(error.to_string().contains("--force"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"another's");
        let forced = Draft::create(&path, true).unwrap();
        forced.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");

        let link = dir.join("link");
        symlink(dir.join("elsewhere"), &link).unwrap();
        for force in [false, true] {
            let error = Draft::create(&link, force).err().unwrap();
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        assert_eq!(names(&dir).len(), 2);
        assert!(Draft::create(Path::new("/dev/null"), false).unwrap().publish().is_ok());
        fs::remove_dir_all(&dir).unwrap();
    }
}
