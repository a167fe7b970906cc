//! Refuses to embed a BPF object that is damaged or was not built from the sources beside it.
//! Input: `bpf/tracer.bpf.o`, `bpf/tracer.bpf.sources`, and the sources themselves.

use std::{env, path::Path};

#[path = "bpf/digest.rs"]
mod digest;

fn main() -> Result<(), String> {
    let here = env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?;
    let workspace = Path::new(&here).join("..");
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-changed=../tracer-common");
    println!("cargo::rerun-if-changed=../tracer-ebpf/src");
    println!("cargo::rerun-if-changed=../tracer-ebpf/Cargo.toml");
    println!("cargo::rerun-if-changed=../tracer-ebpf/Cargo.lock");
    if let Err(error) = digest::check(&workspace) {
        // An error line of its own: Cargo prints it as it is.
        println!("cargo::error={error}");
    }
    Ok(())
}
