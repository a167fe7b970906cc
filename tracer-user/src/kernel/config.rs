//! The options that the running kernel was built with.
//! Input: /proc/config.gz, or the file that distributions install beside the kernel.

use std::{collections::BTreeSet, fs, path::Path};

use miniz_oxide::inflate::decompress_to_vec_with_limit;

use crate::kernel::release;

/// The kernel's own copy, if it keeps one (CONFIG_IKCONFIG_PROC).
const OWN: &str = "/proc/config.gz";
/// The largest configuration that is unpacked; a kernel's has about 300 KiB.
const MOST_BYTES: usize = 16 << 20;

/// The options that a kernel was built with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildConfig {
    /// The file that was read.
    pub file: String,
    /// Names, without "CONFIG_", of options that are built in or a module.
    options: BTreeSet<Box<str>>,
}

impl BuildConfig {
    /// The configuration of the running kernel; None if neither file can be read.
    #[must_use]
    pub fn read() -> Option<Self> {
        let installed = format!("/boot/config-{}", release::release());
        let own = || Some((OWN, unpacked(&fs::read(OWN).ok()?)?));
        let (file, text) = own().or_else(|| Some((&*installed, fs::read(Path::new(&installed)).ok()?)))?;
        Some(Self::parse(file, &text))
    }

    /// Parses lines `CONFIG_NAME=y` and `CONFIG_NAME=m` and skips others.
    #[must_use]
    pub fn parse(file: &str, text: &[u8]) -> Self {
        let lines = text.split(|&byte| byte == b'\n').filter_map(|line| {
            let (name, value) = str::from_utf8(line).ok()?.strip_prefix("CONFIG_")?.split_once('=')?;
            matches!(value, "y" | "m").then(|| name.into())
        });
        Self {
            file: file.to_owned(),
            options: lines.collect(),
        }
    }

    /// Whether the kernel has the option with this name, which is given without "CONFIG_".
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.options.contains(name)
    }
}

/// The contents of a gzip file whose header has no optional parts (RFC 1952). The kernel's file has no name in it
/// (kernel/Makefile, scripts/Makefile.lib, `cmd_gzip`, 6.1 to 7.3).
fn unpacked(file: &[u8]) -> Option<Vec<u8>> {
    let [0x1f, 0x8b, 8, 0, _, _, _, _, _, _, packed @ ..] = file else {
        return None;
    };
    let packed = packed.get(..packed.len().checked_sub(8)?)?;
    decompress_to_vec_with_limit(packed, MOST_BYTES).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_options() {
        let text =
            b"# Automatic\nCONFIG_BPF_JIT=y\n# CONFIG_KPROBES is not set\nCONFIG_ZRAM=m\nCONFIG_HZ=250\nCONFIG_X\n";
        let config = BuildConfig::parse("/boot/config", text);
        assert!(config.has("BPF_JIT") && config.has("ZRAM"));
        assert!(!config.has("KPROBES") && !config.has("HZ") && !config.has("X"));
    }

    #[test]
    fn unpacks_what_gzip_made() {
        // printf 'CONFIG_BPF_JIT=y\n' | gzip -n9
        let packed = [
            0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0x73, 0xf6, 0xf7, 0x73, 0xf3, 0x74, 0x8f, 0x77, 0x0a, 0x70, 0x8b, 0xf7,
            0xf2, 0x0c, 0xb1, 0xad, 0xe4, 0x02, 0x00, 0xe6, 0x7f, 0x57, 0x33, 0x11, 0, 0, 0,
        ];
        assert_eq!(unpacked(&packed).as_deref(), Some(&b"CONFIG_BPF_JIT=y\n"[..]));
        assert_eq!(unpacked(&packed[..12]), None);
        assert_eq!(unpacked(b"CONFIG_BPF_JIT=y\n"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>) {
            let _ = BuildConfig::parse("", &text);
            let _ = unpacked(&text);
            let _ = unpacked(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3][..], &text].concat());
        }
    }
}
