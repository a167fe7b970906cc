//! Finds the kernel to boot: from `debian:6.1` or a file name to a kernel image.
//! Input: the command line, Debian's package names, the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::host::apt::Apt;
use crate::host::{cache, process};

/// A kernel as it is named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    File(PathBuf),
    Debian(Debian),
}

/// `debian:VERSION[-cloud][@SUITE]`: the newest package of that version. It is the full build unless `-cloud` is given,
/// because machines run the full build. The cloud build is smaller and of another configuration (6.1's has no
/// MEMORY_FAILURE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debian {
    /// As many components as matter: `6`, `6.1`, `6.12.117+deb12`.
    version: String,
    cloud: bool,
    /// A suite that the machine itself does not use, such as `trixie-backports` or `sid`.
    suite: Option<String>,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(debian) = text.strip_prefix("debian:") else {
            return match Path::new(text) {
                path if path.is_file() => Ok(Self::File(path.to_owned())),
                _ => Err("neither debian:VERSION nor a file".to_owned()),
            };
        };
        let (build, suite) = debian
            .split_once('@')
            .map_or((debian, None), |(build, suite)| (build, Some(suite)));
        let (version, cloud) = build
            .strip_suffix("-cloud")
            .map_or((build, false), |version| (version, true));
        let plain = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".+~-".contains(&byte))
        };
        if !plain(version) || !suite.is_none_or(plain) {
            return Err("expected debian:VERSION[-cloud][@SUITE], as in debian:6.12-cloud".to_owned());
        }
        Ok(Self::Debian(Debian {
            version: version.to_owned(),
            cloud,
            suite: suite.map(str::to_owned),
        }))
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Debian(debian) => {
                let build = if debian.cloud { "-cloud" } else { "" };
                write!(f, "debian:{}{build}", debian.version)?;
                debian.suite.as_ref().map_or(Ok(()), |suite| write!(f, "@{suite}"))
            }
        }
    }
}

/// A kernel that can be booted.
pub struct Kernel {
    /// `uname -r` for a package, the file's name otherwise.
    pub name: String,
    pub image: PathBuf,
    /// The modules that tests load, by their names in the initramfs, decompressed.
    pub modules: Vec<(String, Vec<u8>)>,
}

/// The modules that tests load: brd, a RAM disk to swap on; null_blk, a disk of any slowness, and configfs, which it
/// needs; zram, a RAM disk whose pages belong to a driver.
const MODULES: &[&str] = &["brd", "configfs", "null_blk", "zram"];

/// Modules that some kernels have built in: fuse, for files of any slowness; the requirements of zram.
const MODULES_IF_ANY: &[&str] = &["fuse", "zsmalloc", "lz4_compress", "lz4hc_compress"];

impl Kernel {
    /// The kernel's own name, as in /proc/version: release, builder, package version and date. None: the image is no
    /// bzImage.
    pub fn banner(&self) -> Option<String> {
        banner(&fs::read(&self.image).ok()?)
    }
}

/// Documentation/arch/x86/boot.rst: `header` at 0x202 says "HdrS", `kernel_version` at 0x20e points 0x200 before a string.
fn banner(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = usize::from(u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?));
    let text = image.get(at + 0x200..)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// Finds or downloads the kernel.
pub fn resolve(spec: &Spec) -> Result<Kernel> {
    match spec {
        Spec::File(path) => {
            let name = path
                .file_name()
                .unwrap_or(path.as_os_str())
                .to_string_lossy()
                .into_owned();
            Ok(Kernel {
                name,
                image: path.clone(),
                modules: Vec::new(),
            })
        }
        Spec::Debian(debian) => {
            let named = || format!("find the kernel debian:{}", debian.version);
            let apt = debian
                .suite
                .as_deref()
                .map_or_else(Apt::of_machine, Apt::of_suite)
                .with_context(named)?;
            let package = newest_package(&apt, debian)?;
            let dir = cache::filled(&cache::dir()?.join("kernels").join(&package), |dir| {
                eprintln!("xtask: downloading {package}");
                apt.unpack(&[&package], dir)
            })
            .with_context(|| format!("unpack {package}"))?;
            let kernel = image_in(&dir).with_context(|| format!("find the kernel in {}", dir.display()))?;
            // If the image has a package of its own, the modules have one too.
            let package = package.replace("linux-binary", "linux-modules");
            let wanted = [MODULES, MODULES_IF_ANY].concat().join("+");
            let dir = cache::filled(&cache::dir()?.join("modules").join(&package).join(wanted), |dir| {
                eprintln!("xtask: downloading modules of {package}");
                apt.unpack_modules(&package, MODULES, MODULES_IF_ANY, dir)
            });
            let modules = dir.and_then(|dir| read_modules(&dir)).unwrap_or_else(|error| {
                eprintln!("xtask: continuing without the modules of {package}: {error:#}");
                Vec::new()
            });
            Ok(Kernel { modules, ..kernel })
        }
    }
}

/// `*.ko` and `*.ko.xz` below a directory.
fn read_modules(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut modules = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            modules.append(&mut read_modules(&path)?);
        } else if let Some(plain) = name.strip_suffix(".xz") {
            let mut xz = Command::new("xz");
            xz.args(["--decompress", "--stdout"]).arg(&path);
            modules.push((plain.to_owned(), process::output_bytes(&mut xz)?));
        } else {
            modules.push((
                name,
                fs::read(&path).with_context(|| format!("read {}", path.display()))?,
            ));
        }
    }
    Ok(modules)
}

/// The newest package with the signed image. Before 7.2 it is `linux-image-RELEASE`; from then on that package only
/// depends on `linux-binary-RELEASE`, which has the image.
fn newest_package(apt: &Apt, debian: &Debian) -> Result<String> {
    for family in ["linux-binary", "linux-image"] {
        let names = apt.search(&format!("^{family}-[0-9].*-amd64$"))?;
        let fitting = names.iter().filter(|name| fits(name, family, debian));
        if let Some(newest) = fitting.max_by_key(|name| version_key(name)) {
            return Ok(newest.clone());
        }
    }
    let (version, build) = (&debian.version, if debian.cloud { "cloud" } else { "full" });
    let suite = debian.suite.as_deref().unwrap_or("this machine's apt sources");
    bail!("no {build} build of kernel {version} in {suite}; another suite is searched by debian:VERSION@SUITE")
}

/// Whether the package is the wanted build (not `-rt`, `-unsigned`, `-dbg`) of the wanted version.
fn fits(package: &str, family: &str, debian: &Debian) -> bool {
    let release = package
        .strip_prefix(family)
        .and_then(|rest| rest.strip_prefix('-')?.strip_suffix("-amd64"));
    let Some(release) = release else { return false };
    let (release, cloud) = release
        .strip_suffix("-cloud")
        .map_or((release, false), |release| (release, true));
    let rest = release.strip_prefix(&debian.version);
    // After the version comes its next component (6.1 is not 6.12), Debian's own part, or nothing. A build such as
    // `-rt` starts with a letter after the dash.
    let whole = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '+', '-', '~']));
    let build = release
        .rsplit_once('-')
        .is_some_and(|(_, last)| last.starts_with(|c: char| c.is_ascii_alphabetic()));
    whole && cloud == debian.cloud && !build
}

/// Orders names by version: runs of digits by their value.
fn version_key(name: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(text);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(digits);
        // A pre-release (`~rc1`) comes before its release, so the text is compared before the number.
        key.push((u64::from(!word.starts_with('~')), word.to_owned()));
        key.push((number.parse().unwrap_or(0), String::new()));
        rest = tail;
    }
    key
}

/// The image: `boot/vmlinuz-RELEASE`, or `usr/lib/modules/RELEASE/vmlinuz` from 7.2 on.
fn image_in(dir: &Path) -> Result<Kernel> {
    for entry in fs::read_dir(dir.join("boot")).into_iter().flatten() {
        let entry = entry?;
        if let Some(release) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix("vmlinuz-"))
        {
            return Ok(Kernel {
                name: release.to_owned(),
                image: entry.path(),
                modules: Vec::new(),
            });
        }
    }
    for entry in fs::read_dir(dir.join("usr/lib/modules")).into_iter().flatten() {
        let entry = entry?;
        let image = entry.path().join("vmlinuz");
        if image.is_file() {
            return Ok(Kernel {
                name: entry.file_name().to_string_lossy().into_owned(),
                image,
                modules: Vec::new(),
            });
        }
    }
    bail!("neither boot/vmlinuz-* nor usr/lib/modules/*/vmlinuz is there")
}

#[cfg(test)]
mod tests {
    use super::{Debian, Spec, banner, fits, version_key};

    fn debian(text: &str) -> Debian {
        match text.parse() {
            Ok(Spec::Debian(debian)) => debian,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn specs_are_read() {
        let spec = debian("debian:7.3-cloud@sid");
        assert_eq!(
            (spec.version.as_str(), spec.cloud, spec.suite.as_deref()),
            ("7.3", true, Some("sid"))
        );
        assert_eq!(
            "debian:7.3-cloud@sid"
                .parse::<Spec>()
                .map(|spec| spec.to_string())
                .as_deref(),
            Ok("debian:7.3-cloud@sid")
        );
        assert!("debian:".parse::<Spec>().is_err());
        assert!("debian:6.1@-o".parse::<Spec>().is_err());
        assert!("/no/such/file".parse::<Spec>().is_err());
    }

    #[test]
    fn an_image_says_what_it_is() {
        let mut image = vec![0; 0x230];
        assert_eq!(banner(&image), None);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x20;
        image[0x220..0x223].copy_from_slice(b"6.1");
        assert_eq!(banner(&image).as_deref(), Some("6.1"));
        assert_eq!(banner(&image[..0x20f]), None);
    }

    #[test]
    fn only_the_wanted_build_fits() {
        let is = |package: &str, spec: &str| fits(package, "linux-image", &debian(spec));
        assert!(is("linux-image-6.1.0-56-amd64", "debian:6.1"));
        assert!(is("linux-image-6.12.117+deb12-cloud-amd64", "debian:6.12-cloud"));
        assert!(is("linux-image-6.12.117+deb12-amd64", "debian:6.12.117+deb12"));
        assert!(!is("linux-image-6.12.117+deb12-amd64", "debian:6.1"));
        assert!(!is("linux-image-6.1.0-56-cloud-amd64", "debian:6.1"));
        assert!(!is("linux-image-6.1.0-56-rt-amd64", "debian:6.1"));
        assert!(!is("linux-image-6.1.0-56-amd64-unsigned", "debian:6.1"));
        assert!(!is("linux-image-6.1-amd64-dbg", "debian:6.1"));
    }

    #[test]
    fn newest_is_by_value_not_by_letter() {
        let newest = [
            "linux-image-6.12.9+deb12-amd64",
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.48-amd64",
        ]
        .into_iter()
        .max_by_key(|name| version_key(name));
        assert_eq!(newest, Some("linux-image-6.12.117+deb12-amd64"));
        assert!(version_key("6.18~rc1") < version_key("6.18-1"));
    }
}
