//! A FUSE file system that is one file. Every read of it stays unanswered until it is unmounted.
//! Input: the requests of the kernel from /dev/fuse (include/uapi/linux/fuse.h, protocol 7.31, 6.1 to 7.3).

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::provoke;

/// The module in the initramfs, if this kernel has one.
const MODULE: &str = "/lib/modules/fuse.ko";

/// Whether this kernel can serve it. Loads the module if there is one.
pub fn is_there() -> Result<bool> {
    if fs::exists(MODULE)? {
        provoke::load_module(MODULE, "")?;
    }
    let known = fs::read_to_string("/proc/filesystems").context("read /proc/filesystems")?;
    Ok(known.lines().any(|line| line.split('\t').next_back() == Some("fuse")))
}

/// The mounted file. It is unmounted on drop, if not before.
pub struct Unanswered {
    path: PathBuf,
    server: Option<JoinHandle<Result<()>>>,
}

impl Unanswered {
    /// Makes the path a file of `len` bytes.
    pub fn mount(path: &Path, len: u64) -> Result<Self> {
        File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut device = OpenOptions::new();
        let device = device.read(true).write(true).open("/dev/fuse").context("/dev/fuse")?;
        // The root of the file system is the file (S_IFREG): there are no names to look up.
        let options = format!("fd={},rootmode=100000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options)?;
        mount("fuse", path, "fuse", MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("mount fuse on {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            server: Some(thread::spawn(move || serve(device, len))),
        })
    }

    /// Ends every read with an error (fs/fuse/inode.c, `fuse_umount_begin`), and the server with them. The file must be
    /// closed.
    pub fn unmount(mut self) -> Result<()> {
        let server = self.server.take().context("it is mounted")?;
        unmount(&self.path, UnmountFlags::FORCE).with_context(|| format!("unmount {}", self.path.display()))?;
        let Ok(served) = server.join() else {
            bail!("the file's server panicked")
        };
        served?;
        fs::remove_file(&self.path).with_context(|| format!("remove {}", self.path.display()))
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        // An error is already being returned. The connection ends with this process at the latest.
        if self.server.is_some() {
            let _ = unmount(&self.path, UnmountFlags::FORCE | UnmountFlags::DETACH);
        }
    }
}

/// Answers until the file system is unmounted.
fn serve(mut device: File, len: u64) -> Result<()> {
    /// `enum fuse_opcode`.
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const READ: u32 = 15;
    const INIT: u32 = 26;
    const BATCH_FORGET: u32 = 42;
    // The buffer is larger than FUSE_MIN_READ_BUFFER.
    let mut request = vec![0; 64 << 10];
    loop {
        let read = match device.read(&mut request) {
            Ok(read) => read,
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => return Ok(()),
            Err(error) => return Err(error).context("read a request"),
        };
        // struct fuse_in_header: len, opcode, unique.
        ensure!(read >= 40, "a request of {read} bytes");
        let opcode = word(&request, 4);
        let unique = &request[8..16];
        let (error, body) = match opcode {
            FORGET | BATCH_FORGET | READ => continue,
            INIT => (0, init()),
            GETATTR => (0, attributes(len)),
            // Opens and closes succeed without an answer of their own (fs/fuse/file.c, `fuse_file_open`).
            _ => (-Errno::NOSYS.raw_os_error(), Vec::new()),
        };
        // struct fuse_out_header.
        let mut answer = u32::try_from(16 + body.len())?.to_ne_bytes().to_vec();
        answer.extend(error.to_ne_bytes());
        answer.extend(unique);
        answer.extend(body);
        match device.write_all(&answer) {
            // The requester has exited.
            Err(gone) if gone.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            written => written.with_context(|| format!("answer request {opcode}"))?,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..].first_chunk();
    word.map_or(0, |word| u32::from_ne_bytes(*word))
}

/// `struct fuse_init_out`.
fn init() -> Vec<u8> {
    const MAJOR: u32 = 7;
    const MINOR: u32 = 31;
    const MAX_READAHEAD: u32 = 1 << 20;
    /// A reader ahead does not wait for the answer.
    const ASYNC_READ: u32 = 1 << 0;
    const MAX_WRITE: u32 = 4096;
    let mut out = [0u32; 16];
    out[..4].copy_from_slice(&[MAJOR, MINOR, MAX_READAHEAD, ASYNC_READ]);
    // max_background and congestion_threshold are unlimited, so that the next read is sent with any number under way.
    out[4] = u32::MAX;
    out[5] = MAX_WRITE;
    out.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct fuse_attr_out`.
fn attributes(len: u64) -> Vec<u8> {
    const SECONDS_VALID: u64 = 3600;
    const INODE: u64 = 1;
    const MODE: u32 = libc::S_IFREG | 0o444;
    const LINKS: u32 = 1;
    // attr_valid, attr_valid_nsec and dummy; ino, size, blocks, atime, mtime, ctime.
    let wide = [SECONDS_VALID, 0, INODE, len, 0, 0, 0, 0];
    // Nanoseconds of the times; mode, nlink, uid, gid, rdev, blksize, flags.
    let narrow = [0, 0, 0, MODE, LINKS, 0, 0, 0, 0, 0];
    let wide = wide.iter().flat_map(|word| word.to_ne_bytes());
    wide.chain(narrow.iter().flat_map(|word| word.to_ne_bytes())).collect()
}
