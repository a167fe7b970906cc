//! The VM's only file system: an uncompressed newc cpio archive with two programs.
//! Input: the programs. The kernel describes the format in Documentation/driver-api/early-userspace/buffer-format.rst.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;

/// Writes the archive: /init is `tests`, which is PID 1. `modules` are a kernel's, in /lib/modules.
pub fn write(mut out: impl Write, tests: &[u8], tracer: &[u8], modules: &[(String, Vec<u8>)]) -> io::Result<()> {
    let mut archive = Archive {
        out: &mut out,
        entries: 0,
    };
    for dir in ["bin", "dev", "lib", "lib/modules", "proc", "sys", "tmp"] {
        archive.entry(dir, DIRECTORY, &[])?;
    }
    archive.entry("bin/tracer-tests", PROGRAM, tests)?;
    archive.entry("bin/tracer", PROGRAM, tracer)?;
    archive.entry("init", SYMLINK, b"bin/tracer-tests")?;
    for (name, module) in modules {
        archive.entry(&format!("lib/modules/{name}"), PROGRAM, module)?;
    }
    archive.finish()
}

struct Archive<W> {
    out: W,
    /// The number is also used as the inode number: entries with the same one would be hard links.
    entries: u32,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, "newc sizes have 32 bits");
        let data_size = u32::try_from(data.len()).map_err(too_large)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
        let (inode, links) = (self.entries, if mode == DIRECTORY { 2 } else { 1 });
        // Uid, gid, time, device numbers and checksum stay zero, so that the same programs give the same archive.
        let fields = [inode, mode, 0, 0, links, 0, data_size, 0, 0, 0, 0, name_size, 0];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        write!(self.out, "{name}\0")?;
        self.pad("070701".len() + 8 * fields.len() + name.len() + 1)?;
        self.out.write_all(data)?;
        self.pad(data.len())
    }

    /// Headers and contents start at multiples of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }

    fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::write;

    #[test]
    fn every_part_is_aligned_and_the_trailer_is_last() -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        write(&mut bytes, b"12345", b"123", &[("brd.ko".to_owned(), vec![1; 7])])?;
        assert_eq!(bytes.len() % 4, 0);
        let starts: Vec<usize> = bytes
            .windows(6)
            .enumerate()
            .filter(|(_, six)| six == b"070701")
            .map(|(at, _)| at)
            .collect();
        assert_eq!(starts.len(), 12);
        assert!(starts.iter().all(|start| start % 4 == 0));
        assert_eq!(&bytes[starts[11] + 110..starts[11] + 120], b"TRAILER!!!");
        // c_filesize is the seventh field.
        assert_eq!(&bytes[starts[7] + 6 + 6 * 8..][..8], b"00000005");
        Ok(())
    }
}
