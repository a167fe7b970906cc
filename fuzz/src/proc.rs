//! Parses texts and words of /proc and /sys of any content: names in them are those that strangers chose.
//! Input: bytes of libFuzzer. The first selects the parser.
#![no_main]

use std::{
    io::{self, BufRead as _},
    sync::LazyLock,
};

use libfuzzer_sys::fuzz_target;
use tracer_user::{
    escape::Printable,
    kernel::{
        capabilities::Capabilities,
        config::BuildConfig,
        release::{Lockdown, Version},
        topology,
        vmstat::Vmstat,
    },
    proc::{
        cgroup::Hierarchy,
        entry::SwapTypes,
        kpage::{KpfQuirks, PageFlags},
        maps::{self, AddressSpace},
        page_flags,
        pagemap::{Entry, Frame},
        process::{Stat, Status},
        zones,
    },
};

fuzz_target!(|bytes: &[u8]| {
    let Some((&selector, text)) = bytes.split_first() else {
        return;
    };
    match selector {
        b'm' => vmas(text),
        b's' => name(Status::parse(text).map(|status| status.comm).unwrap_or_default()),
        b't' => name(Stat::parse(text).map(|stat| stat.comm).unwrap_or_default()),
        b'g' => drop(Hierarchy::parse(text)),
        b'z' => {
            zones::parse(text);
            topology::parse_zoneinfo(text);
            topology::parse_block_size(text);
        }
        b'v' => drop(Vmstat::parse(text)),
        b'k' => {
            Capabilities::parse(text);
            Lockdown::parse(text);
            drop(BuildConfig::parse("config", text));
            Version::parse(&String::from_utf8_lossy(text));
        }
        b'e' => words(text),
        _ => {}
    }
});

fn vmas(text: &[u8]) {
    let lines = text.lines().count();
    let parsed = maps::parse(text).count();
    assert!(parsed <= lines.max(1) || text.lines().any(|line: io::Result<String>| line.is_err()));
    let space = AddressSpace::from_reader(text).unwrap_or_default();
    for vma in space.iter() {
        let found = space.find(vma.start);
        assert!(found.is_some_and(|found| found.start <= vma.start && vma.start < found.end));
        name(vma.name.clone());
    }
}

fn name(text: impl AsRef<str>) {
    let shown = Printable(text.as_ref()).to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
}

/// The kernel's symbols are read once.
static TYPES: LazyLock<SwapTypes> = LazyLock::new(SwapTypes::running);

fn words(bytes: &[u8]) {
    let quirks = KpfQuirks::of("6.12");
    for word in bytes.chunks_exact(8) {
        let word = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
        let _ = (Frame::decode(word), Entry(word).meaning(&TYPES));
        assert!(PageFlags::new(word, quirks).names().count() <= 64);
        assert!(page_flags::names_of(word).count() == word.count_ones() as usize);
    }
}
