//! The environments in which `tracer` is started: with few capabilities, without bpf(2), without some directories, with a
//! signal ignored.
//! Input: the `Command` that is to start there.

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// A capability, with its bit (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Capability {
    DacOverride = 1,
    DacReadSearch = 2,
    Kill = 5,
    SysPtrace = 19,
    SysAdmin = 21,
}

/// Makes the program start as this user and group, with these capabilities and no others.
pub fn as_user_with(command: &mut Command, user: u32, capabilities: &'static [Capability]) {
    let set = capabilities
        .iter()
        .fold(CapabilitySet::empty(), |set, &capability| set | bit(capability));
    // SAFETY: only system calls.
    unsafe {
        command.pre_exec(move || {
            let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
            rustix::thread::set_keep_capabilities(true)?;
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
            let sets = CapabilitySets {
                effective: set,
                permitted: set,
                inheritable: set,
            };
            rustix::thread::set_capabilities(None, sets)?;
            for &capability in capabilities {
                rustix::thread::configure_capability_in_ambient_set(bit(capability), true)?;
            }
            Ok(())
        });
    }
}

fn bit(capability: Capability) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << capability as u8)
}

/// Makes the program start with a signal ignored, as nohup does.
pub fn ignoring(command: &mut Command, signal: libc::c_int) {
    // SAFETY: only a system call.
    unsafe {
        command.pre_exec(move || {
            libc::signal(signal, libc::SIG_IGN);
            Ok(())
        });
    }
}

/// Makes the program start without the system call bpf(2): it fails with EPERM, as in many containers.
pub fn without_bpf(command: &mut Command) {
    /// `linux/filter.h`: load the system call's number; return EPERM if it is bpf; else allow it.
    static FILTER: [libc::sock_filter; 4] = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, BPF),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | EPERM),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a system call's number is small and positive"
    )]
    const BPF: u32 = libc::SYS_bpf as u32;
    const EPERM: u32 = libc::EPERM.cast_unsigned();
    // SAFETY: only system calls, on a static array.
    unsafe {
        command.pre_exec(|| {
            let program = libc::sock_fprog {
                len: 4,
                filter: (&raw const FILTER).cast_mut().cast(),
            };
            checked(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            checked(libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ))
        });
    }
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    #[allow(clippy::cast_possible_truncation, reason = "the codes are 16 bits wide")]
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// Makes the program start with nothing under these directories.
pub fn without_directories(command: &mut Command, hidden: &'static [&'static CStr]) {
    // SAFETY: only system calls, on constants; the mounts are made in a namespace of the program's own.
    unsafe {
        command.pre_exec(move || {
            checked(libc::unshare(libc::CLONE_NEWNS))?;
            let (none, tmpfs) = (std::ptr::null(), c"tmpfs".as_ptr());
            let private = libc::MS_REC | libc::MS_PRIVATE;
            checked(libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()))?;
            for directory in hidden {
                checked(libc::mount(tmpfs, directory.as_ptr(), tmpfs, 0, std::ptr::null()))?;
            }
            Ok(())
        });
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
