//! The digests that tie the committed BPF object to the sources it was built from.
//! Input: the object, its record, the files of tracer-common and tracer-ebpf. Shared by build.rs and `cargo xtask ebpf`.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The committed object, relative to the workspace's root.
pub const OBJECT: &str = "tracer-user/bpf/tracer.bpf.o";
/// The record of a build: the digest of its sources, `compiler NAMES`, `object DIGEST`.
pub const RECORD: &str = "tracer-user/bpf/tracer.bpf.sources";
/// How the record's last line begins.
pub const OBJECT_LINE: &str = "object ";

/// The sources of the object, relative to the workspace's root.
const SOURCES: [&str; 5] = [
    "tracer-common/Cargo.toml",
    "tracer-common/src",
    "tracer-ebpf/Cargo.toml",
    "tracer-ebpf/Cargo.lock",
    "tracer-ebpf/src",
];

/// Whether the object is the one of its record, and the record is of the sources there are.
///
/// # Errors
/// One line that says what does not fit and what to do.
pub fn check(workspace: &Path) -> Result<(), String> {
    const REBUILD: &str = "rebuild it with `cargo xtask ebpf`";
    let unreadable = |path: &'static str| move |error: io::Error| format!("{path}: {error}; {REBUILD}");
    let record = fs::read_to_string(workspace.join(RECORD)).map_err(unreadable(RECORD))?;
    let sources = of_sources(workspace).map_err(|error| format!("sources of the BPF object: {error}"))?;
    if record.lines().next() != Some(&sources) {
        return Err(format!(
            "{OBJECT} was not built from the sources in tracer-ebpf and tracer-common: {REBUILD}"
        ));
    }
    let object = of_object(&fs::read(workspace.join(OBJECT)).map_err(unreadable(OBJECT))?);
    if record.lines().last().and_then(|line| line.strip_prefix(OBJECT_LINE)) != Some(&object) {
        return Err(format!("{OBJECT} is not the object that {RECORD} is of: {REBUILD}"));
    }
    Ok(())
}

/// SHA-256 of the object, in hex.
pub fn of_object(object: &[u8]) -> String {
    hex(Sha256::digest(object))
}

/// SHA-256, in hex, over the names and contents of the object's sources.
///
/// # Errors
/// When a source cannot be read.
pub fn of_sources(workspace: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(workspace, Path::new(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        let content = fs::read(workspace.join(file))?;
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(&content);
    }
    Ok(hex(hash.finalize()))
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn collect(workspace: &Path, source: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if workspace.join(source).is_dir() {
        for entry in fs::read_dir(workspace.join(source))? {
            collect(workspace, &source.join(entry?.file_name()), files)?;
        }
    } else {
        files.push(source.to_owned());
    }
    Ok(())
}
