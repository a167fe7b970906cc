//! Gives up the privileges that the rest of the work does not need: whoever finds a fault in tracer gets little by it.
//! Input: the kind of the work; the user who called sudo.

mod calls;
mod paths;

use std::{fmt::Display, fs, path::Path};

use rustix::{
    fs::{Access, AtFlags, accessat},
    io::Errno,
    process::{Gid, Uid, geteuid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
        set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use crate::{caller, confinement::calls::Calls, kernel::capabilities::Capability, output::Directory};

/// The user without rights, unless a call of sudo names a better one (kernel/sys.c, `DEFAULT_OVERFLOWUID`).
const NOBODY: u32 = 65_534;

/// The rest of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Reads recordings that are open already: strangers may have written them.
    Recordings,
    /// Reads /proc, of all processes.
    Processes,
    /// Reads /proc and the maps of attached programs. `commands`: it sends signals to a COMMAND.
    Tracing {
        /// Whether there is a COMMAND.
        commands: bool,
    },
}

impl Work {
    /// The capabilities that it needs, if this process has them.
    fn capabilities(self) -> CapabilitySet {
        // Maps of other users' processes; frame numbers; files that only their owner may open.
        let processes = bit(Capability::SysPtrace) | bit(Capability::SysAdmin) | bit(Capability::DacReadSearch);
        match self {
            Self::Recordings => CapabilitySet::empty(),
            Self::Processes | Self::Tracing { commands: false } => processes,
            Self::Tracing { commands: true } => processes | bit(Capability::Kill),
        }
    }
}

/// The means of the kernel by which a process gives up what it may open and call.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// Landlock: paths.
    pub paths: bool,
    /// seccomp: system calls.
    pub calls: bool,
}

impl Means {
    /// The means of this kernel.
    #[must_use]
    pub fn of_kernel() -> Self {
        Self {
            paths: paths::are_confinable(),
            calls: calls::are_confinable(),
        }
    }
}

/// Gives up what the work does not need, for good. `creates_in`: the directory in which it creates files, which then
/// belong to the same user as now. The log says for `-v` what is left, and what the kernel did not let go.
///
/// It is called while this process has a single thread: capabilities, users and paths are those of a thread.
pub fn confine(work: Work, creates_in: Option<&Path>) {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        log::info!("{threads} threads run already, and keep their privileges");
    }
    lack("gain no privileges by an exec", set_no_new_privs(true));
    if work == Work::Recordings {
        // For tracing it does not fit: a thread that is confined to paths may not read page tables of others
        // (security/landlock/task.c, `hook_ptrace_access_check`, 6.1 to 6.13; later CAP_PERFMON would do).
        lack(
            "be confined to paths",
            paths::confine(creates_in.and_then(nearest).as_ref()),
        );
    }
    if geteuid().is_root() && creates_in.is_none() {
        let (uid, gid) = lesser_user();
        lack(
            &format!("become user {uid}"),
            become_user(Uid::from_raw(uid), Gid::from_raw(gid)),
        );
    }
    let kept = work.capabilities();
    let dropped = match creates_in {
        None => keep(kept, kept),
        Some(path) => {
            let more = kept | bit(Capability::DacOverride);
            keep(kept, more).and_then(|()| {
                let kept = if may_create_in(path) { kept } else { more };
                keep(kept, kept)
            })
        }
    };
    lack("drop capabilities", dropped);
    let calls = Calls {
        bpf: matches!(work, Work::Tracing { .. }),
        signals: matches!(work, Work::Tracing { commands: true }),
        creates: creates_in.is_some(),
    };
    lack("be confined to some system calls", calls::confine(calls));
    log::info!("confined: {}", left());
}

fn lack<E: Display>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        log::info!("cannot {what}: {error}");
    }
}

/// The directory, or the nearest one above it that exists.
fn nearest(path: &Path) -> Option<Directory> {
    let mut ancestors = path.ancestors();
    ancestors.find_map(|path| {
        let path = if path == Path::new("") { Path::new(".") } else { path };
        Directory::open(path).ok()
    })
}

/// Whether this thread may create files in the directory, with the capabilities that are in effect.
fn may_create_in(path: &Path) -> bool {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    nearest(path).is_some_and(|directory| accessat(&directory, ".", access, AtFlags::EACCESS).is_ok())
}

/// The user and group who called sudo, or nobody.
fn lesser_user() -> (u32, u32) {
    let group = caller::gid().ok().flatten().filter(|&gid| gid != 0);
    caller::uid()
        .ok()
        .flatten()
        .map_or((NOBODY, NOBODY), |uid| (uid, group.unwrap_or(uid)))
}

fn become_user(uid: Uid, gid: Gid) -> Result<(), Errno> {
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Drops the capabilities of this thread that are not `permitted`, and puts no others but the `effective` ones to use.
fn keep(effective: CapabilitySet, permitted: CapabilitySet) -> Result<(), Errno> {
    // It fails where there are none.
    let _ = clear_ambient_capability_set();
    let permitted = permitted & capabilities(None)?.permitted;
    set_capabilities(
        None,
        CapabilitySets {
            effective: effective & permitted,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )
}

fn bit(capability: Capability) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << capability as u8)
}

/// The privileges that are left, for a person.
fn left() -> String {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let mut names: Vec<String> = Capability::ALL
        .into_iter()
        .filter(|&capability| held.contains(bit(capability)))
        .map(|capability| capability.to_string())
        .collect();
    if names.is_empty() {
        names.push("no capabilities".to_owned());
    }
    format!("user {}, {}", geteuid().as_raw(), names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        fs::File,
        io::Write as _,
        net::TcpListener,
        os::unix::process::ExitStatusExt as _,
        process::{Command, Stdio},
        thread,
    };

    use super::*;

    /// Set in a process that confines itself.
    const INSIDE: &str = "TRACER_TEST_CONFINED";

    #[test]
    fn a_confined_reader_can_do_little() {
        const NAME: &str = "confinement::tests::a_confined_reader_can_do_little";
        if env::var_os(INSIDE).is_some() {
            return inside();
        }
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let ran = Command::new(env::current_exe().unwrap())
            .args(["--exact", NAME, "--test-threads", "1", "--nocapture"])
            .env(INSIDE, directory.path())
            .env("OUTSIDE", outside.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && ran.status.signal().is_none(), "{said}");
        assert!(directory.path().join("made").exists(), "{said}");
    }

    /// The libraries' threads are there before; the checks run in the thread that is confined.
    fn inside() {
        let (directory, outside) = (env::var_os(INSIDE).unwrap(), env::var_os("OUTSIDE").unwrap());
        let directory = Path::new(&directory);
        let means = Means::of_kernel();
        confine(Work::Recordings, Some(directory));
        File::create(directory.join("made")).unwrap().write_all(b"x").unwrap();
        assert_eq!(thread::spawn(|| 1).join().unwrap(), 1, "a thread");
        assert!(File::open("/dev/urandom").is_ok(), "random numbers");
        assert!(File::open("/etc/localtime").is_ok() || !Path::new("/etc/localtime").exists());
        if means.paths {
            assert!(File::open(&outside).is_err(), "a file elsewhere");
            assert!(File::open("/proc/self/maps").is_err(), "a file of /proc");
        }
        assert!(means.calls, "every kernel that tests run on has seccomp");
        assert!(Command::new("/bin/true").status().is_err(), "exec");
        assert!(TcpListener::bind("127.0.0.1:0").is_err(), "a socket");
        assert!(rustix::thread::set_thread_uid(Uid::ROOT).is_err(), "a user");
        let executable = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::EXEC;
        // SAFETY: new memory, at an address of the kernel's choice.
        let code = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, executable, rustix::mm::MapFlags::PRIVATE)
        };
        assert!(code.is_err(), "executable memory");
    }

    #[test]
    fn the_least_user() {
        assert!(lesser_user().0 != 0);
        assert_eq!(nearest(Path::new("/no/such/directory")).unwrap().path(), Path::new("/"));
        assert!(nearest(Path::new("")).is_some());
    }
}
