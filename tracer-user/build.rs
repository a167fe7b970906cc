//! Refuses to embed a BPF object that was not built from the sources beside it.
//! Input: `bpf/tracer.bpf.o`, `bpf/tracer.bpf.sources`, and the sources themselves.

use std::{env, fs, path::Path};

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
    let recorded = fs::read_to_string(Path::new(&here).join("bpf/tracer.bpf.sources")).map_err(|e| {
        format!("tracer-user/bpf/tracer.bpf.sources: {e}; build the BPF object with `cargo xtask ebpf`")
    })?;
    let actual = digest::of_sources(&workspace).map_err(|e| format!("sources of the BPF object: {e}"))?;
    if recorded.trim() != actual {
        // An error line of its own: Cargo prints it as it is.
        println!(
            "cargo::error=tracer-user/bpf/tracer.bpf.o was not built from the sources in tracer-ebpf and tracer-common: rebuild it with `cargo xtask ebpf`"
        );
    }
    Ok(())
}
