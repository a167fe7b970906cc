//! Starts the COMMAND, held back until the hooks are attached, as the user who called sudo.
//! Input: the words after `--`, SUDO_UID and SUDO_GID.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command, ExitStatus},
    thread::JoinHandle,
};

use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Gid, Uid},
};

use crate::{cli::CannotRun, units::Tgid};

/// A program that has been forked but does not run yet.
pub struct Held {
    /// Its process.
    pub tgid: Tgid,
    name: String,
    go: File,
    spawning: JoinHandle<io::Result<Child>>,
}

/// A program that runs.
pub struct Running {
    child: Child,
}

/// Forks, drops to the invoking user, and waits before it becomes the program.
///
/// `Command::spawn` returns only when the program runs, so it waits in a thread of its own.
pub fn hold(words: &[OsString]) -> anyhow::Result<Held> {
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| super::Refused("no COMMAND".to_owned()))?;
    let (mut pid_reader, pid_writer) = pipe()?;
    let (go_reader, go) = pipe()?;
    let mut command = Command::new(program);
    command.args(arguments);
    let user = invoking_user();
    if let Some(user) = &user {
        for (key, value) in &user.environment {
            command.env(key, value);
        }
    }
    // SAFETY: between fork and exec only system calls are made, on memory that was prepared before.
    unsafe {
        command.pre_exec(move || {
            (&pid_writer).write_all(&std::process::id().to_ne_bytes())?;
            if let Some(user) = &user {
                user.become_it()?;
            }
            // Ends with the byte that lets go, or with the pipe: then tracing did not start.
            let mut byte = [0];
            match rustix::io::read(&go_reader, &mut byte)? {
                1 => Ok(()),
                _ => Err(io::Error::from_raw_os_error(rustix::io::Errno::CANCELED.raw_os_error())),
            }
        });
    }
    let spawning = std::thread::spawn(move || command.spawn());
    let mut pid = [0; 4];
    pid_reader.read_exact(&mut pid)?;
    Ok(Held {
        tgid: Tgid(u32::from_ne_bytes(pid)),
        name: program.to_string_lossy().into_owned(),
        go,
        spawning,
    })
}

impl Held {
    /// Its name on the command line.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets it run.
    ///
    /// # Errors
    /// [`CannotRun`] with 127 where there is no such program, 126 where it cannot be executed.
    pub fn release(mut self) -> anyhow::Result<Running> {
        self.go.write_all(&[1])?;
        let spawned = self
            .spawning
            .join()
            .map_err(|_| io::Error::other("the starting thread panicked"))?;
        let child = spawned.map_err(|source| CannotRun {
            name: crate::render::escape::Printable(&self.name).to_string(),
            code: if source.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            },
            source,
        })?;
        Ok(Running { child })
    }
}

impl Running {
    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
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

/// Who called sudo.
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

/// None where tracer was not started by sudo, or by root through it.
fn invoking_user() -> Option<User> {
    let number = |key| env::var(key).ok()?.parse::<u32>().ok();
    let uid = number("SUDO_UID").filter(|&uid| uid != 0)?;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let gid = number("SUDO_GID")?;
    let passwd = output("getent", &["passwd", &uid.to_string()]).unwrap_or_default();
    let fields: Vec<&str> = passwd.trim_end().split(':').collect();
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
    Some(User {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups,
        environment,
    })
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
