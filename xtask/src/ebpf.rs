//! `cargo xtask ebpf`: builds the BPF object that tracer-user embeds, and its digest.
//! Input: tracer-ebpf, tracer-common, and whatever way to compile for BPF this machine offers.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cache, process};

#[path = "../../tracer-user/bpf/digest.rs"]
pub mod digest;

/// The linker's version; its LLVM must not be older than the compiler's.
const BPF_LINKER: &str = "0.13.0";
/// LLVM versions that this linker can be built against, best first.
const LLVM: [u32; 3] = [22, 21, 20];

/// Build the BPF object and write it, with the digest of its sources, to tracer-user/bpf
#[derive(clap::Args)]
pub struct Args {
    /// Only check that the committed object belongs to the sources; needs no BPF toolchain
    #[arg(long)]
    pub check: bool,
}

/// A compiler with the source of `core` to build for the BPF target.
struct Compiler {
    rustc: PathBuf,
    /// Extra folder for the dynamic linker, where the compiler is not an installed one.
    libraries: Option<PathBuf>,
    /// How it was come by, for the reader.
    how: String,
}

/// Runs the subcommand.
///
/// # Errors
/// When no way to build works, the build fails, or `--check` finds a foreign object.
pub fn run(args: &Args) -> Result<()> {
    let workspace = workspace();
    let out = workspace.join("tracer-user/bpf");
    if args.check {
        let recorded = fs::read_to_string(out.join("tracer.bpf.sources")).unwrap_or_default();
        ensure!(
            recorded.trim() == digest::of_sources(&workspace)?,
            "tracer-user/bpf/tracer.bpf.o was not built from these sources: run `cargo xtask ebpf`"
        );
        println!("tracer-user/bpf/tracer.bpf.o belongs to its sources");
        return Ok(());
    }

    let compiler = compiler()?;
    let llvm = llvm_for(&compiler)?;
    let linker = linker(&llvm)?;
    println!("compiler  {}", compiler.how);
    println!("linker    bpf-linker {BPF_LINKER} with LLVM at {}", llvm.display());

    let object = compile(&workspace, &compiler, &linker)?;
    let stripped = out.join("tracer.bpf.o");
    process::run(
        Command::new(llvm.join("bin/llvm-objcopy"))
            .arg("--strip-debug")
            .arg(&object)
            .arg(&stripped),
    )?;
    fs::write(out.join("tracer.bpf.sources"), digest::of_sources(&workspace)? + "\n")?;
    println!(
        "object    {}, {} bytes",
        stripped.display(),
        fs::metadata(&stripped)?.len()
    );
    Ok(())
}

/// The workspace's root.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn compile(workspace: &Path, compiler: &Compiler, linker: &Path) -> Result<PathBuf> {
    let target = workspace.join("target/ebpf");
    // Nothing of this machine's folders may end up in the object.
    let remaps = [
        (workspace.to_owned(), "/tracer"),
        (cargo_home()?, "/cargo"),
        (sysroot(compiler)?, "/rust"),
        (cache::dir()?, "/cache"),
    ];
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    flags.extend(
        remaps
            .iter()
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())),
    );
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace.join("tracer-ebpf"))
        .args([
            "build",
            "--locked",
            "--release",
            "-Zbuild-std=core",
            "--target=bpfel-unknown-none",
        ])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS");
    if let Some(libraries) = &compiler.libraries {
        cargo.env("LD_LIBRARY_PATH", libraries);
    }
    process::run(&mut cargo)?;
    Ok(target.join("bpfel-unknown-none/release/tracer"))
}

fn cargo_home() -> Result<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

fn rustc(compiler: &Compiler) -> Command {
    let mut command = Command::new(&compiler.rustc);
    if let Some(libraries) = &compiler.libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

fn sysroot(compiler: &Compiler) -> Result<PathBuf> {
    Ok(PathBuf::from(
        process::output(rustc(compiler).args(["--print", "sysroot"]))?.trim(),
    ))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

/// The first way that works: the installed compiler with its source, the source fetched by rustup,
/// Debian's compiler and source unpacked into the cache.
fn compiler() -> Result<Compiler> {
    let installed = |how: &str| Compiler {
        rustc: "rustc".into(),
        libraries: None,
        how: how.to_owned(),
    };
    if let Ok(found) = sysroot(&installed("")) {
        if has_source(&found) {
            return Ok(installed("the installed rustc, rust-src in its sysroot"));
        }
        let added = Command::new("rustup").args(["component", "add", "rust-src"]).output();
        if added.is_ok_and(|run| run.status.success()) && has_source(&found) {
            return Ok(installed("the installed rustc, rust-src added by rustup"));
        }
    }
    debian_compiler().context(
        "no way to compile for BPF: install rust-src (`rustup component add rust-src`), or run on Debian, \
         whose rustc-web packages are used from a private folder",
    )
}

/// Debian's rustc-web and its library source. As installed packages they would push out the
/// machine's own Rust, so they are only unpacked.
fn debian_compiler() -> Result<Compiler> {
    let root = cache::dir()?.join("debian-rust");
    let compiler = Compiler {
        rustc: root.join("usr/bin/rustc"),
        libraries: Some(root.join("usr/lib/x86_64-linux-gnu")),
        how: format!("Debian's rustc-web, unpacked in {}", root.display()),
    };
    if sysroot(&compiler).is_ok_and(|sysroot| has_source(&sysroot)) {
        return Ok(compiler);
    }
    cache::apt_update_once()?;
    let depends = process::output(Command::new("apt-cache").args(["depends", "libstd-rust-web-dev"]))?;
    let runtime = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("libstd-rust-web-"))
        .context("the package libstd-rust-web-dev names no libstd-rust-web-VERSION")?;
    cache::unpack_debs(&["rustc-web", "libstd-rust-web-dev", runtime, "rust-web-src"], &root)?;
    let found = sysroot(&compiler).context("the unpacked rustc-web does not run")?;
    ensure!(
        has_source(&found),
        "rust-web-src has no library source under {}",
        found.display()
    );
    Ok(compiler)
}

/// An LLVM for the linker, not older than the compiler's; installed if there is none.
fn llvm_for(compiler: &Compiler) -> Result<PathBuf> {
    let version = process::output(rustc(compiler).arg("-vV"))?;
    let wanted: u32 = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|llvm| llvm.split('.').next()?.parse().ok())
        .context("rustc -vV names no LLVM version")?;
    let prefix = |version: u32| PathBuf::from(format!("/usr/lib/llvm-{version}"));
    let usable = |dir: &Path| dir.join("bin/llvm-config").exists() && dir.join("bin/llvm-objcopy").exists();
    let candidates: Vec<u32> = LLVM.into_iter().filter(|&version| version >= wanted).collect();
    if let Some(found) = candidates
        .iter()
        .map(|&version| prefix(version))
        .find(|dir| usable(dir))
    {
        return Ok(found);
    }
    for &version in &candidates {
        if cache::apt_install(&[&format!("llvm-{version}-dev"), &format!("libpolly-{version}-dev")]).is_ok()
            && usable(&prefix(version))
        {
            return Ok(prefix(version));
        }
    }
    bail!(
        "no LLVM of version {wanted} or later that bpf-linker {BPF_LINKER} can use: install llvm-{wanted}-dev and libpolly-{wanted}-dev"
    )
}

/// bpf-linker, compiled against that LLVM once and kept in the cache.
fn linker(llvm: &Path) -> Result<PathBuf> {
    let version = llvm
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .replace("llvm-", "");
    let root = cache::dir()?.join(format!("bpf-linker-{BPF_LINKER}-llvm-{version}"));
    let binary = root.join("bin/bpf-linker");
    if Command::new(&binary)
        .arg("--version")
        .output()
        .is_ok_and(|run| run.status.success())
    {
        return Ok(binary);
    }
    println!("building bpf-linker {BPF_LINKER} against {}", llvm.display());
    process::run(
        Command::new("cargo")
            .args([
                "install",
                "bpf-linker",
                "--version",
                BPF_LINKER,
                "--locked",
                "--no-default-features",
            ])
            .arg(format!("--features=llvm-{version}"))
            .arg("--root")
            .arg(&root)
            .env("LLVM_PREFIX", llvm)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS"),
    )?;
    Ok(binary)
}
