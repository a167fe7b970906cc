//! Safe places for output: no link or pipe of another user, no file replaced unrequested, access for the owner only.
//! Input: a path.

mod directory;
mod patience;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, fstat, linkat, openat, renameat, renameat_with, unlinkat},
    io::Errno,
};

pub use directory::Directory;
use directory::{hidden, is_trusted};
pub use patience::Output;

use crate::escape::Printable;

/// The present occupant of a name that may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// The name is free.
    Nothing,
    /// A file that is to be replaced.
    File,
    /// A pipe or a device, of the caller or of root.
    Stream,
}

/// A name in a directory that is held open.
#[derive(Debug)]
pub struct Destination {
    directory: Directory,
    name: OsString,
    path: PathBuf,
}

impl Destination {
    /// The destination that a path names.
    ///
    /// # Errors
    /// As [`Directory::open`]; a path that does not end with a name.
    pub fn new(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        Ok(Self {
            directory: Directory::open(parent)?,
            name: name.to_owned(),
            path: path.to_owned(),
        })
    }

    /// A name in a directory.
    #[must_use]
    pub fn within(directory: Directory, name: OsString) -> Self {
        let path = directory.path().join(&name);
        Self { directory, name, path }
    }

    /// Its path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the names in its directory to the disk.
    ///
    /// # Errors
    /// The system's error.
    pub fn sync_names(&self) -> io::Result<()> {
        self.directory.sync()
    }

    /// Checks the occupant of the name; `force` allows that a file is replaced.
    ///
    /// # Errors
    /// When the name may not be written to.
    pub fn look(&self, force: bool) -> io::Result<Occupant> {
        let Some(stat) = self.directory.stat(&self.name)? else {
            return Ok(Occupant::Nothing);
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => Err(io::Error::other("it is a symbolic link, which is not followed")),
            FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
            FileType::Fifo | FileType::CharacterDevice if is_trusted(&stat) => Ok(Occupant::Stream),
            FileType::Fifo | FileType::CharacterDevice => Err(io::Error::other(format!(
                "it is a pipe or a device of another user (uid {}), who could read what is written",
                stat.st_uid
            ))),
            FileType::RegularFile if force => Ok(Occupant::File),
            FileType::RegularFile => Err(there_already()),
            _ => Err(io::Error::other("it is neither a file nor a pipe")),
        }
    }

    /// Opens the name for writing: a new file that only its owner may read, a pipe or a device. A new file is created
    /// under a name that cannot be guessed, and then gets its own.
    ///
    /// # Errors
    /// As [`Destination::look`], and the system's error.
    pub fn open(&self, force: bool) -> io::Result<(File, Occupant)> {
        let occupant = self.look(force)?;
        if occupant == Occupant::Stream {
            return Ok((self.open_stream()?, occupant));
        }
        let (file, unfinished) = self.create_hidden()?;
        match self.rename(&unfinished, force) {
            Ok(()) => Ok((file, occupant)),
            Err(error) => {
                // The file is empty and was created here.
                let _ = unlinkat(&self.directory, &unfinished, AtFlags::empty());
                Err(error)
            }
        }
    }

    /// Opens a pipe or a device and checks it again, because it may have been replaced meanwhile.
    fn open_stream(&self) -> io::Result<File> {
        let file = openat(&self.directory, &self.name, WRITE, Mode::empty())?;
        let stat = fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo | FileType::CharacterDevice if is_trusted(&stat) => Ok(file.into()),
            _ => Err(io::Error::other("it was replaced while it was opened")),
        }
    }

    fn create_hidden(&self) -> io::Result<(File, OsString)> {
        let unfinished = hidden(&self.name)?;
        let flags = WRITE | OFlags::CREATE | OFlags::EXCL;
        let file = openat(&self.directory, &unfinished, flags, PRIVATE)?;
        Ok((file.into(), unfinished))
    }

    /// Moves the file from the name `from` in the same directory to this name.
    fn rename(&self, from: &OsStr, force: bool) -> io::Result<()> {
        let directory = &self.directory;
        if force {
            return Ok(renameat(directory, from, directory, &self.name)?);
        }
        match renameat_with(directory, from, directory, &self.name, RenameFlags::NOREPLACE) {
            // The file system cannot check and rename at once: a link replaces nothing either.
            Err(Errno::INVAL) => {
                linkat(directory, from, directory, &self.name, AtFlags::empty()).map_err(taken)?;
                Ok(unlinkat(directory, from, AtFlags::empty())?)
            }
            other => other.map_err(taken),
        }
    }

    /// Begins a new file at this name and moves the present one to the name `older` in the same directory. The name is
    /// never free for another process to take.
    ///
    /// # Errors
    /// The system's error.
    pub fn rotate(&self, older: &OsStr) -> io::Result<File> {
        let directory = &self.directory;
        let (file, unfinished) = self.create_hidden()?;
        match renameat_with(directory, &unfinished, directory, &self.name, RenameFlags::EXCHANGE) {
            Ok(()) => self.move_over(&unfinished, older)?,
            // Another process has removed the file, or the file system cannot exchange names.
            Err(Errno::NOENT) => self.rename(&unfinished, false)?,
            Err(Errno::INVAL) => {
                self.move_over(&self.name, older)?;
                self.rename(&unfinished, false)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(file)
    }

    /// Moves the file `from` in the same directory to the name `to` and replaces the file there; does nothing if `from`
    /// does not exist.
    ///
    /// # Errors
    /// The system's error.
    pub fn move_over(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let directory = &self.directory;
        if directory.has_directory(to) {
            // Another process put a directory in the way. It may have contents, and tracer may not remove it.
            renameat(directory, to, directory, hidden(to)?)?;
        }
        match renameat(directory, from, directory, to) {
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Whether that name exists in the same directory.
    ///
    /// # Errors
    /// The system's error.
    pub fn has(&self, name: &OsStr) -> io::Result<bool> {
        Ok(self.directory.stat(name)?.is_some())
    }

    /// Removes that name from the same directory.
    ///
    /// # Errors
    /// The system's error.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    /// This name with a suffix.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> OsString {
        let mut name = self.name.clone();
        name.push(suffix);
        name
    }
}

const WRITE: OFlags = OFlags::WRONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Only the owner may read and write.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

fn there_already() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, "it already exists (--force replaces it)")
}

/// Another process may have created the name in the meantime.
fn taken(errno: Errno) -> io::Error {
    match errno {
        Errno::EXIST => there_already(),
        other => other.into(),
    }
}

/// An error of an operation (`create`, `write`) on a path.
#[must_use]
pub fn about(path: &Path, what: &str, error: &io::Error) -> io::Error {
    let path = path.to_string_lossy();
    io::Error::new(error.kind(), format!("cannot {what} {}: {error}", Printable(&path)))
}

/// A file that appears at its path only when it is complete. Until then it has no name and disappears with its writer.
pub struct Draft {
    destination: Destination,
    file: File,
    force: bool,
    name: Name,
}

/// The name of a draft.
enum Name {
    /// Its path: it is a pipe or a device, which is written to at once, or a file that has been published.
    Own,
    /// It has no name.
    Nothing,
    /// It has another name, because the file system has no files without a name.
    Unfinished(OsString),
}

impl Draft {
    /// Creates a draft for a path.
    ///
    /// # Errors
    /// As [`Destination::new`] and [`Draft::at`]; the errors name the path.
    pub fn create(path: &Path, force: bool) -> io::Result<Self> {
        let destination = Destination::new(path).map_err(|error| about(path, "create", &error))?;
        Self::at(destination, force)
    }

    /// Creates a draft for a destination.
    ///
    /// # Errors
    /// As [`Destination::look`], and the system's error; the errors name the path.
    pub fn at(destination: Destination, force: bool) -> io::Result<Self> {
        let created = match destination.look(force) {
            Ok(Occupant::Stream) => destination.open_stream().map(|file| (file, Name::Own)),
            Ok(Occupant::Nothing | Occupant::File) => without_name(&destination),
            Err(error) => Err(error),
        };
        let (file, name) = created.map_err(|error| about(&destination.path, "create", &error))?;
        Ok(Self {
            destination,
            file,
            force,
            name,
        })
    }

    /// The path at which it will appear.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.destination.path
    }

    /// The file itself.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Whether it is a file, not a pipe or a device.
    #[must_use]
    pub fn is_file(&self) -> bool {
        !matches!(self.name, Name::Own)
    }

    /// An unbuffered writer to the file; its errors name the path.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn writer(&self) -> io::Result<Writer> {
        Ok(Writer {
            path: self.path().to_owned(),
            file: self.file()?,
        })
    }

    /// Gives the file its name, after everything has been written.
    ///
    /// # Errors
    /// When the data cannot be written to the disk, or the path is taken by now.
    pub fn publish(mut self) -> io::Result<()> {
        self.give_name().map_err(|error| about(self.path(), "write", &error))
    }

    fn give_name(&mut self) -> io::Result<()> {
        if !self.is_file() {
            return Ok(());
        }
        self.file.sync_data()?;
        let Destination { directory, name, .. } = &self.destination;
        if matches!(self.name, Name::Nothing) {
            // A link replaces nothing: to replace a file, link to a hidden name first and rename that.
            let first = if self.force { hidden(name)? } else { name.clone() };
            let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            linkat(CWD, unnamed, directory, &first, AtFlags::SYMLINK_FOLLOW).map_err(taken)?;
            if self.force {
                self.name = Name::Unfinished(first);
            }
        }
        if let Name::Unfinished(unfinished) = &self.name {
            self.destination.rename(unfinished, self.force)?;
        }
        self.name = Name::Own;
        self.destination.sync_names()
    }
}

/// A new file in the directory of a destination.
fn without_name(destination: &Destination) -> io::Result<(File, Name)> {
    match openat(&destination.directory, ".", WRITE | OFlags::TMPFILE, PRIVATE) {
        // The file system or the kernel has no files without a name.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let (file, unfinished) = destination.create_hidden()?;
            Ok((file, Name::Unfinished(unfinished)))
        }
        other => Ok((other?.into(), Name::Nothing)),
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Name::Unfinished(unfinished) = &self.name {
            // If this fails, the name shows that the file is unfinished.
            let _ = self.destination.remove(unfinished);
        }
    }
}

/// Writes to a [`Draft`].
pub struct Writer {
    path: PathBuf,
    file: File,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| match error.kind() {
            // `write_all` repeats the call.
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
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
        process,
    };

    use super::*;

    /// An empty directory for one test.
    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("tracer-output-{}-{name}", process::id()));
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

    /// The case of a file system without unnamed files.
    #[test]
    fn an_unfinished_file_gets_its_name_or_goes() {
        let dir = scratch("unfinished");
        let path = dir.join("out.csv");
        let draft = |force| {
            let destination = Destination::new(&path).unwrap();
            let (file, unfinished) = destination.create_hidden().unwrap();
            Draft {
                destination,
                file,
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

    /// The files of a directory by name, with their contents and without hidden files.
    fn contents(dir: &Path) -> Vec<(OsString, Vec<u8>)> {
        let mut found: Vec<_> = names(dir)
            .into_iter()
            .filter(|name| !name.to_string_lossy().starts_with('.'))
            .collect();
        found.sort();
        found
            .into_iter()
            .map(|name| (name.clone(), fs::read(dir.join(name)).unwrap()))
            .collect()
    }

    #[test]
    fn a_rotation_never_leaves_the_name_free() {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::new(&dir.path().join("r.data")).unwrap();
        let (mut file, occupant) = destination.open(false).unwrap();
        assert_eq!(occupant, Occupant::Nothing);
        file.write_all(b"first").unwrap();
        let mut file = destination.rotate(OsStr::new("r.data.1")).unwrap();
        file.write_all(b"second").unwrap();
        let expected = |second: &[u8]| {
            [
                ("r.data".into(), second.to_vec()),
                ("r.data.1".into(), b"first".to_vec()),
            ]
        };
        assert_eq!(contents(dir.path()), expected(b"second"));
        // Another process puts a directory with contents in the way.
        fs::create_dir_all(dir.path().join("r.data.2/full")).unwrap();
        destination
            .move_over(OsStr::new("r.data.1"), OsStr::new("r.data.2"))
            .unwrap();
        destination
            .move_over(OsStr::new("r.data.7"), OsStr::new("r.data.8"))
            .unwrap();
        assert_eq!(fs::read(dir.path().join("r.data.2")).unwrap(), b"first");
        // It also removes the file.
        fs::remove_file(dir.path().join("r.data")).unwrap();
        let mut file = destination.rotate(OsStr::new("r.data.1")).unwrap();
        file.write_all(b"third").unwrap();
        assert_eq!(fs::read(dir.path().join("r.data")).unwrap(), b"third");
    }

    #[test]
    fn pipes_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, PRIVATE, 0).unwrap();
        let destination = Destination::new(&path).unwrap();
        assert_eq!(destination.look(false).unwrap(), Occupant::Stream);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
            for force in [false, true] {
                let error = destination.open(force).unwrap_err().to_string();
                assert!(error.contains("uid 4711"), "{error}");
            }
        }
    }
}
