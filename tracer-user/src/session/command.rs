//! Starts the COMMAND, which waits until the hooks are attached, as the user who called sudo.
//! Input: the words after `--`, and the user who called sudo.

use std::{
    env,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStrExt as _,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::Path,
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

use rustix::{
    fs::{Access, FileType, access, stat},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Gid, Pid, Signal, Uid, kill_process},
};

use crate::{
    caller::{self, NoNumber},
    escape::Printable,
    units::Tgid,
};

/// The number of Ctrl-C after which tracer no longer waits for a COMMAND that does not end.
const PATIENCE: u32 = 2;

/// Why there is no COMMAND to trace.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There are no words.
    #[error("no COMMAND")]
    Empty,
    /// The environment of sudo does not name a valid user.
    #[error("{key} is {value}, which is not the number of a user or a group: unset it to run COMMAND as root")]
    NoUser {
        /// The environment variable.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// The process cannot become that program.
    #[error("{0}")]
    CannotRun(#[from] CannotRun),
    /// A system call that is needed to start it failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<NoNumber> for CommandError {
    fn from(NoNumber { key, value }: NoNumber) -> Self {
        Self::NoUser {
            key,
            value: Printable(&value.to_string_lossy()).to_string(),
        }
    }
}

/// A COMMAND that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {name}: {source}\n  {hint}")]
pub struct CannotRun {
    name: String,
    source: io::Error,
    hint: &'static str,
    /// The exit code that shells give.
    pub code: u8,
}

impl CannotRun {
    fn new(name: &OsStr, source: io::Error) -> Self {
        let (hint, code) = match source.kind() {
            io::ErrorKind::NotFound => ("give its path, or see that it is in PATH, which sudo may change", 127),
            io::ErrorKind::PermissionDenied if by_sudo() => (
                "COMMAND must be a program that the user who called sudo may execute",
                126,
            ),
            io::ErrorKind::PermissionDenied => (
                "COMMAND must be a file that may be executed, on a file system that allows it",
                126,
            ),
            _ => ("COMMAND must be a program, or a script that starts with #!", 126),
        };
        Self {
            name: Printable(&name.to_string_lossy()).to_string(),
            source,
            hint,
            code,
        }
    }
}

/// A program that has been forked and does not run yet.
pub struct Held {
    /// Its process.
    pub tgid: Tgid,
    name: OsString,
    go: File,
    spawning: JoinHandle<io::Result<Child>>,
}

/// A program that runs.
pub struct Running {
    child: Child,
    interrupts: u32,
}

/// Forks, drops to the invoking user, looks for the program, and waits before the exec.
///
/// `Command::spawn` returns only when the program runs, so it waits in its own thread.
///
/// # Errors
/// [`CannotRun`] with 127 if there is no such program, 126 if it cannot be executed.
pub fn hold(words: &[OsString]) -> Result<Held, CommandError> {
    let (program, arguments) = words.split_first().ok_or(CommandError::Empty)?;
    let (mut pid_reader, pid_writer) = pipe()?;
    let (go_reader, go) = pipe()?;
    let mut command = Command::new(program);
    command.args(arguments);
    let user = invoking_user()?;
    if let Some(user) = &user {
        for (key, value) in &user.environment {
            command.env(key, value);
        }
    }
    let candidates = candidates(program)?;
    let go_of_child = go.as_raw_fd();
    // SAFETY: between fork and exec only system calls are made, on memory that was prepared before; the child's copy
    // of `go` is closed once, and nothing uses it there.
    unsafe {
        command.pre_exec(move || {
            // Otherwise the child itself would keep the pipe open whose end shows that tracer has ended.
            rustix::io::close(go_of_child);
            if let Some(user) = &user {
                user.become_it()?;
            }
            executable(&candidates)?;
            (&pid_writer).write_all(&std::process::id().to_ne_bytes())?;
            // The read returns the byte that releases the child, or the end of the pipe: then tracing did not start.
            let mut byte = [0];
            match rustix::io::read(&go_reader, &mut byte)? {
                1 => Ok(()),
                _ => Err(Errno::CANCELED.into()),
            }
        });
    }
    let spawning = std::thread::spawn(move || command.spawn());
    let mut pid = [0; 4];
    match pid_reader.read_exact(&mut pid) {
        // The child failed before it waited.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let error = spawned(spawning).err().unwrap_or(error);
            return Err(CannotRun::new(program, error).into());
        }
        other => other?,
    }
    Ok(Held {
        tgid: Tgid(u32::from_ne_bytes(pid)),
        name: program.clone(),
        go,
        spawning,
    })
}

/// The paths under which `execvp` looks for a program, in its order.
fn candidates(program: &OsStr) -> io::Result<Vec<CString>> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let paths = if program.is_empty() || program.as_bytes().contains(&b'/') {
        vec![program.into()]
    } else {
        env::split_paths(&path)
            .map(|directory| directory.join(program))
            .collect()
    };
    let as_c_string = |path: &Path| CString::new(path.as_os_str().as_bytes());
    Ok(paths.iter().map(|path| as_c_string(path)).collect::<Result<_, _>>()?)
}

/// Whether one of these is a file that this user may execute. It runs between fork and exec and makes only system
/// calls.
fn executable(candidates: &[CString]) -> io::Result<()> {
    let mut why = Errno::NOENT;
    for candidate in candidates {
        let found = match stat(candidate) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                access(candidate, Access::EXEC_OK)
            }
            Ok(_) => Err(Errno::ACCESS),
            Err(error) => Err(error),
        };
        match found {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => why = error,
        }
    }
    Err(why.into())
}

fn spawned(spawning: JoinHandle<io::Result<Child>>) -> io::Result<Child> {
    spawning
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the starting thread panicked")))
}

impl Held {
    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Releases the program.
    ///
    /// # Errors
    /// [`CannotRun`] if the kernel cannot execute the file.
    pub fn release(mut self) -> Result<Running, CommandError> {
        self.go.write_all(&[1])?;
        let child = spawned(self.spawning).map_err(|error| CannotRun::new(&self.name, error))?;
        Ok(Running { child, interrupts: 0 })
    }
}

impl Running {
    /// The exit status if it has ended.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Passes on a signal that tracer received. A terminal sends Ctrl-C to the COMMAND, too.
    pub fn hear(&mut self, signal: Signal) {
        if signal == Signal::INT {
            self.interrupts += 1;
        } else if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The process may have ended already.
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it goes on in spite of Ctrl-C, so that tracer does not wait any longer.
    pub fn abandoned(&self) -> bool {
        self.interrupts >= PATIENCE
    }

    /// Its process.
    pub fn tgid(&self) -> Tgid {
        Tgid(self.child.id())
    }
}

/// The exit code that a shell would show.
#[must_use]
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(2);
    u8::try_from(code & 0xff).unwrap_or(2)
}

fn pipe() -> io::Result<(File, File)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    debug_assert!(reader.as_raw_fd() > 2);
    Ok((reader.into(), writer.into()))
}

/// The user who called sudo.
struct User {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    environment: Vec<(&'static str, String)>,
}

impl User {
    fn become_it(&self) -> io::Result<()> {
        rustix::thread::set_thread_groups(&self.groups)?;
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid)?;
        Ok(())
    }
}

/// Whether a COMMAND runs as the user who called sudo.
#[must_use]
pub fn by_sudo() -> bool {
    matches!(caller::uid(), Ok(Some(_)))
}

/// None if tracer was not started by sudo, or if root called it.
fn invoking_user() -> Result<Option<User>, CommandError> {
    let Some(uid) = caller::uid()? else {
        return Ok(None);
    };
    let passwd = output("getent", &["passwd", &uid.to_string()]).unwrap_or_default();
    let fields: Vec<&str> = passwd.trim_end().split(':').collect();
    // Root's group is never the fallback: a user's own group most often has the user's number.
    let own = fields.get(3).and_then(|gid| gid.parse().ok());
    let gid = caller::gid()?.or(own).unwrap_or(uid);
    let mut environment = Vec::new();
    let mut groups = vec![Gid::from_raw(gid)];
    if let [name, _, _, _, _, home, ..] = fields[..] {
        environment
            .extend([("USER", name), ("LOGNAME", name), ("HOME", home)].map(|(key, value)| (key, value.to_owned())));
        let listed = output("id", &["-G", name]).unwrap_or_default();
        groups.extend(
            listed
                .split_whitespace()
                .filter_map(|group| group.parse().ok())
                .map(Gid::from_raw),
        );
        groups.dedup();
    }
    Ok(Some(User {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups,
        environment,
    }))
}

/// The output of a system program. It is not looked up in PATH, which the caller sets, and runs without the caller's
/// environment.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let run = |directory| {
        let program = Path::new(directory).join(program);
        Command::new(program).args(arguments).env_clear().output().ok()
    };
    let output = ["/usr/bin", "/bin"].into_iter().find_map(run)?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
