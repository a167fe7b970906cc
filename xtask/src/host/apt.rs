//! Debian packages without installing them: searched, downloaded and unpacked into the cache.
//! Input: the machine's own package lists, or those of one more suite from the machine's own mirror.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{cache, process};

/// A set of package lists.
pub struct Apt {
    /// Options that make apt use private lists instead of the machine's.
    options: Vec<String>,
}

impl Apt {
    /// The machine's own lists, fetched once if there are none.
    pub fn of_machine() -> Result<Self> {
        if process::find("apt-get").is_none() {
            bail!("Debian kernels need apt-get, which is not installed; give a kernel image instead: --kernel FILE");
        }
        let apt = Self { options: Vec::new() };
        if apt.sources()?.trim().is_empty() {
            ensure!(
                process::is_root(),
                "there are no package lists; type: sudo apt-get update"
            );
            process::run(Command::new("apt-get").args(["-qq", "update"]))?;
        }
        Ok(apt)
    }

    /// The lists of `suite` alone. They are kept in the cache, so that the machine's own sources do not change, and
    /// come from the machine's own Debian mirror.
    pub fn of_suite(suite: &str) -> Result<Self> {
        let sources = Self::of_machine()?.sources()?;
        let mirror = sources.lines().find_map(|line| line.strip_prefix("Debian|Debian|"));
        let mirror = mirror.context("this machine has no Debian mirror among its apt sources")?;
        let dir = cache::dir()?.join("apt").join(suite);
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(dir.join(part)).with_context(|| format!("create {}", dir.join(part).display()))?;
        }
        let list = dir.join("sources.list");
        fs::write(&list, format!("deb {mirror} {suite} main\n"))
            .with_context(|| format!("write {}", list.display()))?;
        let at = |key: &str, path: &Path| format!("{key}={}", path.display());
        let options = vec![
            at("Dir::Etc::SourceList", &list),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            at("Dir::State::Lists", &dir.join("lists")),
            at("Dir::Cache", &dir),
        ];
        let apt = Self { options };
        if let Err(error) = process::output(apt.command("apt-get").args(["-qq", "update"])) {
            // Without a network, the last lists are used if there are any.
            if apt.sources()?.trim().is_empty() {
                return Err(error.context(format!("fetch the package lists of {suite}")));
            }
            eprintln!("xtask: continuing with the last package lists of {suite}: {error:#}");
        }
        Ok(apt)
    }

    /// `ORIGIN|LABEL|URI` of every package list.
    fn sources(&self) -> Result<String> {
        let format = [
            "indextargets",
            "--format",
            "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
            "Created-By: Packages",
        ];
        process::output(self.command("apt-get").args(format))
    }

    /// Names of the packages whose name matches a POSIX regular expression.
    pub fn search(&self, regex: &str) -> Result<Vec<String>> {
        let found = process::output(self.command("apt-cache").args(["search", "--names-only", regex]))?;
        Ok(found
            .lines()
            .filter_map(|line| Some(line.split_once(" - ")?.0.to_owned()))
            .collect())
    }

    /// Downloads packages and unpacks them into `dir`, without kernel modules: `unpack_modules` unpacks those.
    pub fn unpack(&self, packages: &[&str], dir: &Path) -> Result<()> {
        self.each_tar(packages, dir, |tar| {
            extract(tar, dir, ["--exclude=*.ko", "--exclude=*.ko.*"])
        })
    }

    /// Downloads a package and unpacks these kernel modules alone, compressed or not.
    ///
    /// # Errors
    /// Also when the package lacks one of the modules, unless it is one of `if_any`.
    pub fn unpack_modules(&self, package: &str, modules: &[&str], if_any: &[&str], dir: &Path) -> Result<()> {
        self.each_tar(&[package], dir, |tar| {
            let listing = process::output(Command::new("tar").arg("--list").arg("--file").arg(tar))?;
            let there = |module: &&&str| listing.contains(&format!("/{module}.ko"));
            let wanted = modules.iter().chain(if_any.iter().filter(there));
            let patterns = wanted.map(|module| format!("*/{module}.ko*"));
            extract(tar, dir, std::iter::once("--wildcards".to_owned()).chain(patterns))
        })
    }

    fn each_tar(&self, packages: &[&str], dir: &Path, unpack: impl Fn(&Path) -> Result<()>) -> Result<()> {
        let download = cache::Scratch::new_in(dir)?;
        let mut get = self.command("apt-get");
        process::output(get.args(["-q", "download"]).args(packages).current_dir(download.path()))?;
        for deb in fs::read_dir(download.path()).context("read the downloads")? {
            let deb = deb?.path();
            let tar = deb.with_extension("tar");
            let file = fs::File::create(&tar).with_context(|| format!("create {}", tar.display()))?;
            process::run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb).stdout(file))?;
            unpack(&tar)?;
            fs::remove_file(&tar).with_context(|| format!("remove {}", tar.display()))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // The output is parsed, so it must be in English.
        command.env("LC_ALL", "C");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }
}

fn extract(tar: &Path, dir: &Path, options: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
    let mut extract = Command::new("tar");
    extract
        .arg("--extract")
        .arg("--file")
        .arg(tar)
        .arg("--directory")
        .arg(dir);
    process::run(extract.args(options))
}

/// Installs packages on this machine.
///
/// # Errors
/// When this process is not root; the error contains the command to type.
pub fn install(packages: &[&str]) -> Result<()> {
    let typed = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    ensure!(
        process::find("apt-get").is_some(),
        "install {} with this system's packages",
        packages.join(", ")
    );
    ensure!(
        process::is_root(),
        "missing on this machine: {}; type: sudo {typed}",
        packages.join(", ")
    );
    Apt::of_machine()?;
    let mut get = Command::new("apt-get");
    get.args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages);
    process::output(get.env("DEBIAN_FRONTEND", "noninteractive")).with_context(|| typed)?;
    Ok(())
}
