//! Confines this process to the system calls that it needs, with seccomp. All others fail as if the kernel did not have
//! them: no exec, no socket, no mount, no ptrace, no new BPF program, no executable memory.
//! Input: the numbers of system calls; their arguments.

use std::{collections::BTreeMap, env, fs, io};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

/// The needs of the work besides files that are open or read.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// It uses maps of BPF.
    pub bpf: bool,
    /// It sends signals to other processes.
    pub signals: bool,
    /// It creates files and renames them.
    pub creates: bool,
}

/// Calls that may have any arguments.
const ANY: &[i64] = &[
    // Open files.
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_pipe2,
    // Names.
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_pidfd_open,
    // Waiting. The runtime's signals come through a pair of sockets, which is there before.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // Signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // This process.
    libc::SYS_uname,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_capget,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
];

/// Calls that open files, and which argument has the flags.
#[cfg(target_arch = "x86_64")]
const OPENING: [(i64, u8); 2] = [(libc::SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(not(target_arch = "x86_64"))]
const OPENING: [(i64, u8); 1] = [(libc::SYS_openat, 2)];

/// Older forms, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_dup2,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// Calls that create, rename and remove files.
const CREATING: &[i64] = &[
    libc::SYS_mkdirat,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_fchmod,
];

/// Commands of bpf(2) that read and write maps (include/uapi/linux/bpf.h, `enum bpf_cmd`): BPF_MAP_LOOKUP_ELEM to
/// BPF_MAP_GET_NEXT_KEY, BPF_OBJ_GET_INFO_BY_FD, and BPF_LINK_DETACH.
const BPF: &[u64] = &[1, 2, 3, 4, 15, 34];

/// Requests of ioctl(2): TCGETS and TIOCGWINSZ, FIONREAD (include/uapi/asm-generic/ioctls.h); PERF_EVENT_IOC_ENABLE and _DISABLE
/// (include/uapi/linux/perf_event.h); PAGEMAP_SCAN and PROCMAP_QUERY (include/uapi/linux/fs.h). Not TIOCSTI, which types
/// into the caller's terminal.
const IOCTL: &[u64] = &[0x5401, 0x5413, 0x541b, 0x2400, 0x2401, 0xc060_6610, 0xc068_6611];

/// Options of prctl(2): PR_SET_NAME, for threads; PR_SET_VMA, with which the C library names its memory.
const PRCTL: &[u64] = &[15, 0x5356_4d41];

/// Confines every thread of this process.
///
/// # Errors
/// A kernel without seccomp, or the kernel's refusal.
pub fn confine(calls: Calls) -> io::Result<()> {
    let filter = program(calls).map_err(io::Error::other)?;
    apply_filter_all_threads(&filter).map_err(io::Error::other)
}

/// Whether the kernel can do it (kernel/seccomp.c, `seccomp_actions_avail`).
pub fn are_confinable() -> bool {
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    actions.split_whitespace().any(|action| action == "errno")
}

fn program(calls: Calls) -> Result<BpfProgram, seccompiler::BackendError> {
    let filter = SeccompFilter::new(
        rules(calls)?,
        // The kernel's answer to a call that it does not know: libraries take another way where there is one.
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        SeccompAction::Allow,
        env::consts::ARCH.try_into()?,
    )?;
    filter.try_into()
}

/// By number, what the arguments must be: one of the rules, or none if there are none.
fn rules(calls: Calls) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ANY.iter().chain(OLD).map(|&call| (call, vec![])).collect();
    // CLONE_THREAD. clone3 has its flags in memory, so the C library goes on with clone.
    rules.insert(libc::SYS_clone, vec![has(0, Len::Qword, 0x1_0000, 0x1_0000)?]);
    // PROT_EXEC.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![has(2, Len::Dword, 4, 0)?]);
    }
    // Without a new limit.
    rules.insert(libc::SYS_prlimit64, vec![has(2, Len::Qword, u64::MAX, 0)?]);
    rules.insert(libc::SYS_ioctl, among(1, IOCTL)?);
    rules.insert(libc::SYS_prctl, among(0, PRCTL)?);
    if calls.creates {
        rules.extend(CREATING.iter().map(|&call| (call, vec![])));
    }
    // Some C libraries call the old form of openat where there is one.
    for (call, flags) in OPENING {
        // O_WRONLY, O_RDWR, O_CREAT, O_TRUNC.
        let reads = has(flags, Len::Dword, 0o1103, 0)?;
        rules.insert(call, if calls.creates { vec![] } else { vec![reads] });
    }
    if calls.bpf {
        rules.insert(libc::SYS_bpf, among(0, BPF)?);
    }
    if calls.signals {
        rules.insert(libc::SYS_kill, vec![]);
        rules.insert(libc::SYS_pidfd_send_signal, vec![]);
    }
    Ok(rules)
}

/// An argument whose bits of the mask have this value.
fn has(argument: u8, len: Len, mask: u64, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, len, Op::MaskedEq(mask), value)?])
}

/// An argument that is one of these numbers.
fn among(argument: u8, numbers: &[u64]) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rule = |&number| SeccompRule::new(vec![SeccompCondition::new(argument, Len::Dword, Op::Eq, number)?]);
    numbers.iter().map(rule).collect()
}
