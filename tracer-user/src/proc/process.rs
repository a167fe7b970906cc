//! The identity of a process, its children, and whether its memory can be traced.
//! Input: /proc/PID/status, /proc/PID/stat, the numbers under /proc, /proc/self/ns/pid.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use thiserror::Error;

use crate::escape::Printable;
use crate::kernel::clock;
use crate::units::{Nanos, Tgid, Tid};

/// `PROC_PID_INIT_INO`, include/linux/proc_ns.h (6.18 and later: `PID_NS_INIT_INO`, include/uapi/linux/nsfs.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// `PF_KTHREAD`, include/linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;
/// The number of processes that a hint names before it counts the rest.
const NAMED: usize = 3;

/// A file of /proc lacks a field that it always has.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("no {field} in /proc/PID/{file}")]
pub struct FieldError {
    /// "status" or "stat".
    pub file: &'static str,
    /// The field as proc(5) calls it.
    pub field: &'static str,
}

impl From<FieldError> for io::Error {
    fn from(error: FieldError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The fields of /proc/PID/status that are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The process the task belongs to.
    pub tgid: Tgid,
    /// The task itself.
    pub tid: Tid,
    /// The process that started it; 0 for init and kthreadd.
    pub ppid: Tgid,
    /// The task's name, without the kernel's escapes: it may hold any character, so escape before printing.
    pub comm: String,
    /// R, S, D, T, t, Z, X, I and so on.
    pub state: char,
    /// The task's number in each PID namespace, from the reader's to its own.
    pub ns_pids: Vec<u32>,
    /// Size of the address space, KiB; `None` without one (kernel threads, zombies).
    pub vm_size_kib: Option<u64>,
    /// Real user id, in the reader's user namespace.
    pub uid: u32,
    /// Threads of the process.
    pub threads: u32,
}

impl Status {
    /// Parses `/proc/PID/status` (fs/proc/array.c, `proc_pid_status`) and skips unknown lines.
    ///
    /// # Errors
    /// [`FieldError`] when a field that every kernel prints is missing or not a number.
    pub fn parse(text: &[u8]) -> Result<Self, FieldError> {
        let missing = |field| FieldError { file: "status", field };
        let number = |field| {
            let value = field_of(text, field).and_then(|value| words(value).next());
            value.and_then(number).ok_or(missing(field))
        };
        let state = field_of(text, "State").and_then(|value| value.first());
        Ok(Self {
            tgid: Tgid(number("Tgid")?),
            tid: Tid(number("Pid")?),
            ppid: Tgid(number("PPid")?),
            comm: unescape(field_of(text, "Name").ok_or(missing("Name"))?),
            state: char::from(*state.ok_or(missing("State"))?),
            ns_pids: field_of(text, "NSpid").map_or(Vec::new(), |pids| words(pids).filter_map(self::number).collect()),
            vm_size_kib: field_of(text, "VmSize")
                .and_then(|value| words(value).next())
                .and_then(self::number),
            uid: number("Uid")?,
            threads: number("Threads")?,
        })
    }

    /// Reads `/proc/ID/status` of a process or a thread.
    ///
    /// # Errors
    /// The kernel's error, or `InvalidData` for a file of another form.
    pub fn read(id: u32) -> io::Result<Self> {
        Ok(Self::parse(&fs::read(format!("/proc/{id}/status"))?)?)
    }

    /// The task has ended and waits to be reaped by its parent.
    pub fn ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// The whole process has ended: a main thread may end before the others, which keep the memory.
    pub fn ended_wholly(&self) -> bool {
        self.ended() && self.threads <= 1
    }
}

/// Fields that only /proc/PID/stat has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The task's name, unescaped: it may hold any character, so escape before printing.
    pub comm: String,
    /// The process that started it; 0 for init and kthreadd.
    pub ppid: Tgid,
    /// `PF_*` of include/linux/sched.h.
    pub flags: u32,
    /// When it started, clock ticks since boot (100 a second); together with the PID it names a process for ever.
    pub start_time: u64,
}

impl Stat {
    /// Parses `/proc/PID/stat` (fs/proc/array.c, `do_task_stat`). The name is in parentheses and may contain some
    /// itself.
    ///
    /// # Errors
    /// [`FieldError`] when a field is missing or not a number.
    pub fn parse(text: &[u8]) -> Result<Self, FieldError> {
        let missing = |field| FieldError { file: "stat", field };
        let open = text.iter().position(|&byte| byte == b'(');
        let close = text.iter().rposition(|&byte| byte == b')');
        let (open, close) = open.zip(close).ok_or(missing("comm"))?;
        let comm = text.get(open + 1..close).ok_or(missing("comm"))?;
        // Field 3 follows the name.
        let behind = text.get(close + 1..).unwrap_or_default();
        let field = |number: usize| words(behind).nth(number - 3);
        Ok(Self {
            comm: String::from_utf8_lossy(comm).into_owned(),
            ppid: Tgid(field(4).and_then(number).ok_or(missing("ppid"))?),
            flags: field(9).and_then(number).ok_or(missing("flags"))?,
            start_time: field(22).and_then(number).ok_or(missing("starttime"))?,
        })
    }

    /// Reads `/proc/ID/stat` of a process or a thread.
    ///
    /// # Errors
    /// The kernel's error, or `InvalidData` for a file of another form.
    pub fn read(id: u32) -> io::Result<Self> {
        Ok(Self::parse(&fs::read(format!("/proc/{id}/stat"))?)?)
    }

    /// Whether the task runs only in the kernel.
    pub fn kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// The value of the first line "field:\tvalue". The kernel escapes newlines in a name, so no process can add a line.
fn field_of<'a>(text: &'a [u8], field: &str) -> Option<&'a [u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(field.as_bytes())?.strip_prefix(b":")?;
        Some(value.strip_prefix(b"\t").unwrap_or(value))
    })
}

/// Undoes "\n" and "\\", the only escapes of `proc_task_name` (fs/proc/array.c).
fn unescape(escaped: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b'\\') | None => bytes.push(b'\\'),
            Some(other) => bytes.extend([b'\\', other]),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The name of a process; None if it is gone.
pub fn comm(tgid: Tgid) -> Option<String> {
    read_comm(&format!("/proc/{tgid}/comm"))
}

/// The name of a process that had begun by that time, `CLOCK_MONOTONIC`; None if it is gone, or its number belongs to a
/// later one.
pub fn comm_of_life(tgid: Tgid, by: Nanos) -> Option<String> {
    /// Nanoseconds of `USER_HZ`. The time is rounded down to them (kernel/time/time.c, `nsec_to_clock_t`).
    const TICK: u64 = 10_000_000;
    let stat = Stat::read(tgid.0).ok()?;
    // It is of `CLOCK_BOOTTIME`.
    let began = stat
        .start_time
        .saturating_mul(TICK)
        .saturating_sub(clock::suspended().0);
    (began <= by.0.saturating_add(TICK)).then_some(stat.comm)
}

/// The name of a thread; None if it is gone, or belongs to another process.
pub fn thread_comm(tgid: Tgid, tid: Tid) -> Option<String> {
    read_comm(&format!("/proc/{tgid}/task/{tid}/comm"))
}

fn read_comm(path: &str) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let name = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Some(String::from_utf8_lossy(name).into_owned())
}

/// All processes, by number.
///
/// # Errors
/// When /proc cannot be listed.
pub fn list() -> io::Result<Vec<Tgid>> {
    let mut tgids: Vec<Tgid> = numbers("/proc")?.into_iter().map(Tgid).collect();
    tgids.sort_unstable();
    Ok(tgids)
}

/// The entries of a directory that are numbers.
fn numbers(directory: &str) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(found)
}

/// The processes that `tgid` started, by number; children that start or end meanwhile may be missing.
///
/// # Errors
/// The kernel's error: `NotFound` if there is no such process.
pub fn children(tgid: Tgid) -> io::Result<Vec<Tgid>> {
    let mut found = Vec::new();
    for tid in numbers(&format!("/proc/{tgid}/task"))? {
        match fs::read(format!("/proc/{tgid}/task/{tid}/children")) {
            Ok(text) => found.extend(words(&text).filter_map(number).map(Tgid)),
            Err(error) if !is_gone(&error) => return Err(error),
            // The thread has ended, or the kernel is built without CONFIG_PROC_CHILDREN.
            Err(error) if fs::metadata(format!("/proc/{tgid}/task/{tid}")).is_ok() => {
                log::debug!("/proc/{tgid}/task/{tid}/children: {error}; reading every process");
                return children_by_parent(tgid);
            }
            Err(_) => {}
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn children_by_parent(tgid: Tgid) -> io::Result<Vec<Tgid>> {
    let mut all = list()?;
    all.retain(|candidate| Stat::read(candidate.0).is_ok_and(|stat| stat.ppid == tgid));
    Ok(all)
}

/// Whether a process is gone, or a zombie: its memory is given back. A process that cannot be read counts as running.
pub fn has_ended(tgid: Tgid) -> bool {
    match Status::read(tgid.0) {
        Ok(status) => status.ended_wholly(),
        Err(error) => is_gone(&error),
    }
}

/// Whether this process is in the first PID namespace, whose numbers the kernel reports events with.
///
/// # Errors
/// When /proc/self/ns/pid cannot be read.
pub fn in_initial_pid_namespace() -> io::Result<bool> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino() == INITIAL_PID_NAMESPACE)
}

/// A process whose memory can be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The process.
    pub tgid: Tgid,
    /// The number that was given; it differs from `tgid` if it is the number of one of the process's threads.
    pub given_tid: Tid,
    /// The name of the task that was given; escape before printing.
    pub comm: String,
}

/// A process that has the wanted number in its own PID namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// Its number here.
    pub tgid: Tgid,
    /// Its name.
    pub comm: String,
}

/// Why a process cannot be traced, with what to do about it. Names in the texts are escaped.
#[derive(Debug, Error)]
pub enum TargetError {
    /// No process here has this number.
    #[error("no process {pid}{}", InnerHint { pid: *pid, inner })]
    NoProcess {
        /// The number that was given.
        pid: u32,
        /// Processes that may have been meant.
        inner: Vec<Inner>,
    },
    /// A task without user memory.
    #[error(
        "{pid} ({}) is a kernel thread: it has no user memory that could move",
        Printable(comm)
    )]
    KernelThread {
        /// The number that was given.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A process that has ended.
    #[error(
        "{pid} ({}) has ended and is a zombie: its memory is already freed\n  its parent {parent} has not reaped it yet; trace a process that still runs",
        Printable(comm)
    )]
    Zombie {
        /// The number that was given.
        pid: u32,
        /// Its name.
        comm: String,
        /// Its parent.
        parent: Tgid,
    },
    /// /proc could not be read.
    #[error("cannot read /proc/{pid}: {source}\n  run with sudo, and check that /proc is mounted")]
    Unreadable {
        /// The number that was given.
        pid: u32,
        /// The kernel's error.
        source: io::Error,
    },
}

struct InnerHint<'a> {
    pid: u32,
    inner: &'a [Inner],
}

impl fmt::Display for InnerHint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.pid;
        match self.inner {
            [] => Ok(()),
            [Inner { tgid, comm }] => {
                let comm = Printable(comm);
                write!(
                    f,
                    "; {tgid} ({comm}) is process {pid} of another PID namespace: use --pid {tgid}"
                )
            }
            several => {
                for (at, Inner { tgid, comm }) in several.iter().take(NAMED).enumerate() {
                    let before = if at == 0 { ";" } else { "," };
                    write!(f, "{before} {tgid} ({})", Printable(comm))?;
                }
                if let more @ 1.. = several.len().saturating_sub(NAMED) {
                    write!(f, " and {more} more")?;
                }
                write!(
                    f,
                    " are process {pid} of other PID namespaces: use --pid with one of these numbers"
                )
            }
        }
    }
}

/// Checks that `pid`, the number of a process or of a thread, has memory that can be traced.
///
/// # Errors
/// [`TargetError`] with what to do instead.
pub fn check_target(pid: u32) -> Result<Target, TargetError> {
    let facts = Status::read(pid).and_then(|status| Ok((status, Stat::read(pid)?)));
    match facts {
        Ok((status, stat)) => judge(pid, &status, &stat),
        Err(error) if is_gone(&error) => Err(TargetError::NoProcess {
            pid,
            inner: with_inner_number(pid),
        }),
        Err(source) => Err(TargetError::Unreadable { pid, source }),
    }
}

fn judge(pid: u32, status: &Status, stat: &Stat) -> Result<Target, TargetError> {
    let comm = status.comm.clone();
    if status.vm_size_kib.is_none() && stat.kernel_thread() {
        return Err(TargetError::KernelThread { pid, comm });
    }
    if status.ended_wholly() {
        return Err(TargetError::Zombie {
            pid,
            comm,
            parent: status.ppid,
        });
    }
    Ok(Target {
        tgid: status.tgid,
        given_tid: Tid(pid),
        comm,
    })
}

/// Processes that have the number `pid` in their own namespace or in one between it and the reader's.
fn with_inner_number(pid: u32) -> Vec<Inner> {
    let statuses = list()
        .unwrap_or_default()
        .into_iter()
        .filter_map(|tgid| Status::read(tgid.0).ok());
    inner_of(statuses, pid)
}

fn inner_of(statuses: impl Iterator<Item = Status>, pid: u32) -> Vec<Inner> {
    statuses
        .filter(|status| status.ns_pids.iter().skip(1).any(|&inner| inner == pid))
        .map(|Status { tgid, comm, .. }| Inner { tgid, comm })
        .collect()
}

/// No such file, or the process ended while its file was read.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    const STATUS: &[u8] = b"Name:\tnginx\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4711\nNgid:\t0\nPid:\t4712\nPPid:\t4000\n\
TracerPid:\t0\nUid:\t1000\t1001\t1000\t1000\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t \nNStgid:\t4711\t7\nNSpid:\t4712\t8\n\
VmPeak:\t   10000 kB\nVmSize:\t    9876 kB\nThreads:\t2\n";
    const STAT: &[u8] = b"4711 (a) b (c) S 4000 4711 4711 0 -1 4194304 95 0 0 0 0 0 0 0 20 0 1 0 6651 2654208 231 18446744073709551615\n";

    fn status(change: impl FnOnce(&mut Status)) -> Status {
        let mut status = Status::parse(STATUS).unwrap();
        change(&mut status);
        status
    }

    fn stat(flags: u32) -> Stat {
        Stat {
            flags,
            ..Stat::parse(STAT).unwrap()
        }
    }

    #[test]
    fn a_name_is_not_that_of_a_later_process_with_the_number() {
        let own = Tgid(std::process::id());
        assert_eq!(comm_of_life(own, clock::now()), comm(own));
        assert_eq!(comm_of_life(own, Nanos(1)), None);
    }

    #[test]
    fn reads_status() {
        let status = status(|_| ());
        assert_eq!(
            (status.tgid, status.tid, status.ppid),
            (Tgid(4711), Tid(4712), Tgid(4000))
        );
        assert_eq!((&*status.comm, status.state), ("nginx", 'S'));
        assert_eq!(status.ns_pids, [4712, 8]);
        assert_eq!((status.vm_size_kib, status.uid, status.threads), (Some(9876), 1000, 2));
    }

    #[test]
    fn a_name_cannot_pass_for_a_field() {
        let text = STATUS.strip_prefix(b"Name:\tnginx").unwrap();
        let named = |name: &[u8]| Status::parse(&[b"Name:\t", name, text].concat()).unwrap();
        let hostile = named(b"x\\nTgid:\\t1\\\\n");
        assert_eq!((&*hostile.comm, hostile.tgid), ("x\nTgid:\\t1\\n", Tgid(4711)));
        assert_eq!(named(b" Tgid:\t1").comm, " Tgid:\t1");
        assert_eq!(named(b"").comm, "");
        assert_eq!(named(b"\xff\\").comm, "\u{fffd}\\");
    }

    #[test]
    fn a_missing_field_is_named() {
        let error = Status::parse(b"Name:\tx\nState:\tS\nTgid:\tseven\n").unwrap_err();
        assert_eq!(error.to_string(), "no Tgid in /proc/PID/status");
        let error = Stat::parse(b"1 (x) S 0 1 1 0 -1 4194560\n").unwrap_err();
        assert_eq!(error.to_string(), "no starttime in /proc/PID/stat");
        assert!(Stat::parse(b")(").is_err());
        assert!(Stat::parse(b"").is_err());
    }

    #[test]
    fn reads_stat_behind_any_name() {
        let stat = Stat::parse(STAT).unwrap();
        assert_eq!((&*stat.comm, stat.ppid), ("a) b (c", Tgid(4000)));
        assert_eq!((stat.flags, stat.start_time), (0x0040_0000, 6651));
        assert!(!stat.kernel_thread());
    }

    #[test]
    fn a_thread_stands_for_its_process() {
        let target = judge(4712, &status(|_| ()), &stat(0)).unwrap();
        assert_eq!((target.tgid, target.given_tid), (Tgid(4711), Tid(4712)));
    }

    #[test]
    fn refuses_what_has_no_memory() {
        let thread = status(|status| {
            status.vm_size_kib = None;
            status.comm = "kthreadd".to_owned();
        });
        let error = judge(2, &thread, &stat(PF_KTHREAD | 0x40)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 (kthreadd) is a kernel thread: it has no user memory that could move"
        );
        let zombie = status(|status| {
            status.state = 'Z';
            status.threads = 1;
            status.comm = "\x1b[2J'".to_owned();
        });
        let error = judge(4711, &zombie, &stat(0)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "4711 (\\x1b[2J') has ended and is a zombie: its memory is already freed\n  \
             its parent 4000 has not reaped it yet; trace a process that still runs"
        );
        let main_thread_ended = status(|status| status.state = 'Z');
        assert!(judge(4711, &main_thread_ended, &stat(0)).is_ok());
    }

    #[test]
    fn hints_at_the_number_outside() {
        let text = |statuses: Vec<Status>| {
            let inner = inner_of(statuses.into_iter(), 7);
            TargetError::NoProcess { pid: 7, inner }.to_string()
        };
        let contained = |tgid, ns_pids: &[u32]| {
            status(|status| {
                status.tgid = Tgid(tgid);
                status.ns_pids = ns_pids.to_vec();
            })
        };
        assert_eq!(text(vec![contained(4711, &[7])]), "no process 7");
        assert_eq!(
            text(vec![contained(4711, &[4711, 7]), contained(8, &[8, 9])]),
            "no process 7; 4711 (nginx) is process 7 of another PID namespace: use --pid 4711"
        );
        assert_eq!(
            text((1..6).map(|tgid| contained(tgid, &[tgid, 9, 7])).collect()),
            "no process 7; 1 (nginx), 2 (nginx), 3 (nginx) and 2 more are process 7 of other PID namespaces: \
             use --pid with one of these numbers"
        );
    }

    #[test]
    fn knows_itself_and_its_child() {
        let own = std::process::id();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(list().unwrap().contains(&Tgid(own)));
        assert!(children(Tgid(own)).unwrap().contains(&Tgid(child.id())));
        assert!(children_by_parent(Tgid(own)).unwrap().contains(&Tgid(child.id())));
        let target = check_target(child.id()).unwrap();
        assert_eq!(target.tgid, Tgid(child.id()));
        assert!(Stat::read(child.id()).unwrap().start_time >= Stat::read(own).unwrap().start_time);
        drop(child.stdin.take());
        while !Status::read(child.id()).unwrap().ended() {
            std::thread::yield_now();
        }
        let ended = check_target(child.id());
        child.wait().unwrap();
        assert!(matches!(ended, Err(TargetError::Zombie { .. })));
        let gone = check_target(child.id());
        assert!(matches!(gone, Err(TargetError::NoProcess { .. })));
        assert_eq!(check_target(u32::MAX).unwrap_err().to_string(), "no process 4294967295");
        in_initial_pid_namespace().unwrap();
    }

    #[test]
    fn knows_its_own_threads() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let id = rustix::thread::gettid().as_raw_nonzero().get();
            tell.send(id.cast_unsigned()).unwrap();
            let _ = wait.recv();
        });
        let tid = told.recv().unwrap();
        let target = check_target(tid).unwrap();
        drop(done);
        thread.join().unwrap();
        assert_eq!(target.tgid, Tgid(std::process::id()));
        assert_eq!(target.given_tid, Tid(tid));
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = Status::parse(&text);
            let _ = Stat::parse(&text);
        }

        #[test]
        fn any_name_survives(name in "[^\0]{0,15}") {
            let escaped = name.replace('\\', "\\\\").replace('\n', "\\n");
            prop_assert_eq!(unescape(escaped.as_bytes()), &*name);
            let text = format!("1 ({name}) S 0 1 1 0 -1 64 0 0 0 0 0 0 0 0 20 0 1 0 42 0");
            let stat = Stat::parse(text.as_bytes()).unwrap();
            prop_assert_eq!((stat.comm, stat.start_time), (name, 42));
        }
    }
}
