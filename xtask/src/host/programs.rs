//! The static programs that run without a libc: in the VM, and on this machine beside it.
//! Input: the workspace's sources, by cargo.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::process;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The programs that a VM needs.
pub struct Programs {
    pub tests: PathBuf,
    pub tracer: PathBuf,
}

/// Builds them, except a tracer that was given.
pub fn build(tracer: Option<&Path>) -> Result<Programs> {
    // They have a directory of their own, because other flags in a shared one would rebuild everything each time.
    let target_dir = process::target_dir().join("vm");
    let mut cargo = process::cargo();
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--target",
            TARGET,
            "-p",
            "tracer-tests",
            "--bin",
            "tracer-tests",
        ])
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // A VM unpacks both programs into memory at each boot; nine tenths of them would be line tables.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo");
    if tracer.is_none() {
        cargo.args(["-p", "tracer-user", "--bin", "tracer"]);
    }
    // The first build takes minutes, in which cargo prints nothing.
    eprintln!("xtask: building static tracer and tests for the VM ...");
    process::run(&mut cargo).context("build the static programs")?;

    let built = target_dir.join(TARGET).join("release");
    let programs = Programs {
        tests: built.join("tracer-tests"),
        tracer: tracer.map_or_else(|| built.join("tracer"), Path::to_owned),
    };
    for path in [&programs.tests, &programs.tracer] {
        let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            is_static(&content),
            "{} is no static x86-64 program; build it with RUSTFLAGS='-C target-feature=+crt-static' \
             and --target {TARGET}",
            path.display()
        );
    }
    Ok(programs)
}

/// Whether this is an ELF64 little-endian program without an interpreter (PT_INTERP), that is, without a dynamic
/// linker.
/// Offsets: elf(5), `Elf64_Ehdr` and `Elf64_Phdr`.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let headers = || -> Option<bool> {
        let at = |offset: usize, len: usize| elf.get(offset..offset.checked_add(len)?);
        if at(0, 6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let start = usize::try_from(u64::from_le_bytes(at(32, 8)?.try_into().ok()?)).ok()?;
        let size = usize::from(u16::from_le_bytes(at(54, 2)?.try_into().ok()?));
        let count = usize::from(u16::from_le_bytes(at(56, 2)?.try_into().ok()?));
        for index in 0..count {
            let header = at(start.checked_add(index.checked_mul(size)?)?, 4)?;
            if u32::from_le_bytes(header.try_into().ok()?) == PT_INTERP {
                return Some(false);
            }
        }
        Some(true)
    };
    headers().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::is_static;

    #[test]
    fn what_is_no_elf_is_not_static() {
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(b"\x7fELF\x02\x01"));
    }

    #[test]
    fn this_program_has_an_interpreter() -> anyhow::Result<()> {
        assert_eq!(
            is_static(&std::fs::read(std::env::current_exe()?)?),
            cfg!(target_feature = "crt-static")
        );
        Ok(())
    }
}
