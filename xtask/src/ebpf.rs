//! `cargo xtask ebpf`: builds the BPF object that tracer-user embeds, and its digest.
//! Input: tracer-ebpf, tracer-common, and any compiler for BPF on this machine.

use std::{
    env,
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Error, Result, bail, ensure};
use tracer_tests_report::tally::{Tally, Verdict};

use crate::host::apt::{self, Apt};
use crate::host::{cache, process};

#[path = "../../tracer-user/bpf/digest.rs"]
pub mod digest;

/// The linker's version; its LLVM must not be older than the compiler's.
const BPF_LINKER: &str = "0.13.0";
/// LLVM versions that this linker can be built against, best first.
const LLVM: [u32; 3] = [22, 21, 20];

/// Build the BPF object and write it, with the digest of its sources, to tracer-user/bpf
#[derive(clap::Args)]
pub struct Args {
    /// Only check that the committed object is whole and belongs to the sources; needs no BPF toolchain
    #[arg(long)]
    pub check: bool,
}

/// A compiler with the source of `core` to build for the BPF target.
struct Compiler {
    rustc: PathBuf,
    /// An extra folder for the dynamic linker, if the compiler is not an installed one.
    libraries: Option<PathBuf>,
    /// A description of its origin, for the reader.
    how: String,
}

/// Runs the subcommand.
///
/// # Errors
/// When no compiler works, the build fails, or `--check` finds an object that does not belong to the sources.
pub fn run(args: &Args) -> Result<()> {
    if args.check {
        check()?;
        println!("{} is whole and belongs to its sources", digest::OBJECT);
        return Ok(());
    }
    build().map(drop)
}

fn check() -> Result<()> {
    digest::check(process::root()).map_err(Error::msg)
}

/// Builds the object in place for the tests that embed it. Counts two checks: the committed object belongs to its
/// sources, and the same compiler makes the same bytes again.
pub fn rebuild() -> Result<Tally> {
    let mut tally = Tally::default();
    let mut count = |verdict, said: &str| {
        println!("{said}");
        tally.add(verdict);
    };
    match check() {
        Ok(()) => count(
            Verdict::Passed,
            "the object there was is whole and belongs to its sources",
        ),
        Err(error) => count(Verdict::Failed, &format!("FAILED: {error:#}")),
    }
    let record = process::root().join(digest::RECORD);
    let committed = Record::parse(&fs::read_to_string(&record).unwrap_or_default());
    let (verdict, said) = compare(committed.as_ref(), &build()?);
    count(verdict, &said);
    Ok(tally)
}

/// Compares the objects. The same compiler must make the same bytes; another compiler may make others.
fn compare(committed: Option<&Record>, built: &Record) -> (Verdict, String) {
    match committed {
        Some(committed) if committed.object == built.object => {
            (Verdict::Passed, "the build gave the same bytes again".to_owned())
        }
        Some(committed) if committed.compiler != built.compiler => (
            Verdict::NotApplicable,
            format!(
                "bytes not compared: the object there was is by {}, this one by {}",
                committed.compiler, built.compiler
            ),
        ),
        Some(_) => (
            Verdict::Failed,
            format!(
                "FAILED: the same compiler gave other bytes than {} had; it is replaced: commit it",
                digest::OBJECT
            ),
        ),
        None => (
            Verdict::Failed,
            format!("FAILED: {} did not say what the object was built by", digest::RECORD),
        ),
    }
}

/// The content of `tracer.bpf.sources`; [`digest::check`] reads its first and its last line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    sources: String,
    compiler: String,
    object: String,
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let record = Self {
            sources: lines.next()?.to_owned(),
            compiler: lines.next()?.strip_prefix("compiler ")?.to_owned(),
            object: lines.next()?.strip_prefix(digest::OBJECT_LINE)?.to_owned(),
        };
        lines.next().is_none().then_some(record)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.sources)?;
        writeln!(f, "compiler {}", self.compiler)?;
        writeln!(f, "{}{}", digest::OBJECT_LINE, self.object)
    }
}

fn build() -> Result<Record> {
    let workspace = process::root();
    let compiler = compiler()?;
    let llvm = llvm_for(&compiler)?;
    let linker = linker(&llvm)?;
    println!("compiler  {}", compiler.how);
    println!("linker    bpf-linker {BPF_LINKER} with LLVM at {}", llvm.display());

    // Sources are read first, so that a source that changes during the build is not taken for the one that was built.
    let sources = digest::of_sources(workspace)?;
    let object = compile(&compiler, &linker)?;
    let linked = fs::read(&object).with_context(|| format!("read {}", object.display()))?;
    fs::write(&object, without_hashes(linked)).with_context(|| format!("write {}", object.display()))?;
    let stripped = workspace.join(digest::OBJECT);
    process::run(
        Command::new(llvm.join("bin/llvm-objcopy"))
            .arg("--strip-debug")
            .arg(&object)
            .arg(&stripped),
    )?;
    let bytes = fs::read(&stripped).with_context(|| format!("read {}", stripped.display()))?;
    let record = Record {
        sources,
        compiler: format!(
            "{} bpf-linker {BPF_LINKER} llvm {}",
            process::output(rustc(&compiler).arg("--version"))?.trim(),
            process::output(Command::new(llvm.join("bin/llvm-config")).arg("--version"))?.trim()
        ),
        object: digest::of_object(&bytes),
    };
    fs::write(workspace.join(digest::RECORD), record.to_string())
        .with_context(|| format!("write {}", digest::RECORD))?;
    println!("object    {}, {} bytes", stripped.display(), bytes.len());
    Ok(record)
}

/// Sets the hash in each mangled name, `17h0123456789abcdefE`, to zeros. It depends on the folder, and the object would
/// too.
fn without_hashes(mut object: Vec<u8>) -> Vec<u8> {
    const PREFIX: &[u8] = b"17h";
    const HASH: usize = 16;
    let is_hash = |name: &[u8]| {
        name.starts_with(PREFIX)
            && name[PREFIX.len()..][..HASH].iter().all(u8::is_ascii_hexdigit)
            && name.ends_with(b"E")
    };
    let len = PREFIX.len() + HASH + 1;
    for at in 0..object.len().saturating_sub(len - 1) {
        if is_hash(&object[at..][..len]) {
            object[at + PREFIX.len()..][..HASH].fill(b'0');
        }
    }
    object
}

/// `cargo clippy` for the BPF crate. None if the compiler that builds it has no clippy; only the installed one may have
/// it.
pub fn clippy() -> Result<Option<Command>> {
    let compiler = compiler()?;
    let version = process::output(rustc(&compiler).arg("-vV"))?;
    let of_clippy = process::output(Command::new("clippy-driver").args(["--rustc", "-vV"]));
    if compiler.libraries.is_some() || !of_clippy.is_ok_and(|of_clippy| of_clippy == version) {
        return Ok(None);
    }
    let mut cargo = cargo(&compiler, "clippy", "target/ebpf-lints");
    cargo
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args(["--", "-D", "warnings"]);
    Ok(Some(cargo))
}

/// Runs a cargo command for the BPF crate.
fn cargo(compiler: &Compiler, command: &str, target_dir: &str) -> Command {
    let mut cargo = process::cargo();
    cargo
        .current_dir(process::root().join("tracer-ebpf"))
        .arg(command)
        .args([
            "--locked",
            "--release",
            "-Zbuild-std=core",
            "--target=bpfel-unknown-none",
        ])
        .arg("--target-dir")
        .arg(process::root().join(target_dir))
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS");
    if let Some(libraries) = &compiler.libraries {
        cargo.env("LD_LIBRARY_PATH", libraries);
    }
    cargo
}

fn compile(compiler: &Compiler, linker: &Path) -> Result<PathBuf> {
    const TARGET_DIR: &str = "target/ebpf";
    // The object must not contain the folders of this machine.
    let remaps = [
        (process::root().to_owned(), "/tracer"),
        (cargo_home()?, "/cargo"),
        (sysroot(compiler)?, "/rust"),
        (cache::dir()?, "/cache"),
    ];
    let mut flags = vec![
        format!("-Clinker={}", linker.display()),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // The legacy names have their hash at a known place: see `without_hashes`.
        "-Zunstable-options".to_owned(),
        "-Csymbol-mangling-version=legacy".to_owned(),
    ];
    flags.extend(
        remaps
            .iter()
            .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())),
    );
    // Cargo compares the files' times, the record their content. If a copied source has an old time, cargo would take
    // the old object for the new one.
    process::run(cargo(compiler, "clean", TARGET_DIR).args(["--quiet", "-p", "tracer-ebpf", "-p", "tracer-common"]))?;
    let mut cargo = cargo(compiler, "build", TARGET_DIR);
    process::run(cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")))?;
    Ok(process::root()
        .join(TARGET_DIR)
        .join("bpfel-unknown-none/release/tracer"))
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

/// The first compiler that works: the installed one with its source, the source fetched by rustup, or Debian's compiler
/// and source unpacked into the cache.
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

/// Debian's rustc-web and its library source. They are only unpacked, because installed packages would replace the
/// machine's own Rust.
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
    let apt = Apt::of_machine()?;
    let depends = process::output(Command::new("apt-cache").args(["depends", "libstd-rust-web-dev"]))?;
    let runtime = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("libstd-rust-web-"))
        .context("the package libstd-rust-web-dev names no libstd-rust-web-VERSION")?;
    if root.exists() {
        // The folder was just found unusable: it is of an older release, or was unpacked in another way.
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    cache::filled(&root, |dir| {
        apt.unpack(&["rustc-web", "libstd-rust-web-dev", runtime, "rust-web-src"], dir)
    })?;
    let found = sysroot(&compiler).context("the unpacked rustc-web does not run")?;
    ensure!(
        has_source(&found),
        "rust-web-src has no library source under {}",
        found.display()
    );
    Ok(compiler)
}

/// An LLVM for the linker, not older than the compiler's. It is installed if there is none.
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
    // Writing to a String cannot fail.
    let mut tried = String::new();
    for &version in &candidates {
        match apt::install(&[&format!("llvm-{version}-dev"), &format!("libpolly-{version}-dev")]) {
            Ok(()) if usable(&prefix(version)) => return Ok(prefix(version)),
            Ok(()) => {
                let missing = prefix(version);
                let _ = write!(
                    tried,
                    "\n  LLVM {version}: installed, but not usable in {}",
                    missing.display()
                );
            }
            Err(error) => {
                let _ = write!(tried, "\n  LLVM {version}: {error:#}");
            }
        }
    }
    bail!(
        "no LLVM of version {wanted} or later that bpf-linker {BPF_LINKER} can use: install llvm-{wanted}-dev and libpolly-{wanted}-dev{tried}"
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
        process::cargo()
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

#[cfg(test)]
mod tests {
    use super::without_hashes;

    #[test]
    fn only_hashes_are_set_to_zero() {
        let object = b"\x00_ZN4tell17h0123456789abcdefE\x0017h01234\x0017h0123456789abcdefF".to_vec();
        let expected = b"\x00_ZN4tell17h0000000000000000E\x0017h01234\x0017h0123456789abcdefF".to_vec();
        assert_eq!(without_hashes(object), expected);
        assert!(without_hashes(Vec::new()).is_empty());
    }
    use super::{Record, compare};
    use tracer_tests_report::tally::Verdict;

    fn record(compiler: &str, object: &str) -> Record {
        Record {
            sources: "ab".into(),
            compiler: compiler.into(),
            object: object.into(),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let written = record("rustc 1.95.0 (x) bpf-linker 0.13.0 llvm 22.1.8", "cd");
        assert_eq!(Record::parse(&written.to_string()), Some(written));
        assert_eq!(Record::parse("ab\n"), None);
    }

    #[test]
    fn only_another_compiler_excuses_other_bytes() {
        let built = record("rustc 1", "cd");
        let verdict = |committed: Option<Record>| compare(committed.as_ref(), &built).0;
        assert_eq!(verdict(Some(record("rustc 1", "cd"))), Verdict::Passed);
        assert_eq!(verdict(Some(record("rustc 2", "cd"))), Verdict::Passed);
        assert_eq!(verdict(Some(record("rustc 2", "ef"))), Verdict::NotApplicable);
        assert_eq!(verdict(Some(record("rustc 1", "ef"))), Verdict::Failed);
        assert_eq!(verdict(None), Verdict::Failed);
    }
}
