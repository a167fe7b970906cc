//! The digest that ties the committed BPF object to the sources it was built from.
//! Input: the files of tracer-common and tracer-ebpf. Shared by build.rs and `cargo xtask ebpf`.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// What the object is made from, relative to the workspace's root.
const SOURCES: [&str; 5] = [
    "tracer-common/Cargo.toml",
    "tracer-common/src",
    "tracer-ebpf/Cargo.toml",
    "tracer-ebpf/Cargo.lock",
    "tracer-ebpf/src",
];

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
    let mut hex = String::new();
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
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
