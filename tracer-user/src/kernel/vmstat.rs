//! The kernel's own counts of page moves, which are compared with tracer's.
//! Input: /proc/vmstat.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};

/// All counters at one moment, by the kernel's names. Counters in "nr_" are gauges, in pages; most others count events
/// since boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vmstat {
    counters: BTreeMap<Box<str>, u64>,
}

impl Vmstat {
    /// Parses lines of a name and a number (mm/vmstat.c, `vmstat_show`) and skips lines of another form.
    pub fn parse(text: &[u8]) -> Self {
        Self::parse_only(text, |_| true)
    }

    fn parse_only(text: &[u8], wanted: impl Fn(&str) -> bool) -> Self {
        let counters = text.split(|&byte| byte == b'\n').filter_map(|line| {
            let (name, value) = str::from_utf8(line).ok()?.split_once(' ')?;
            wanted(name).then_some(())?;
            Some((name.into(), value.parse().ok()?))
        });
        Self {
            counters: counters.collect(),
        }
    }

    /// Reads `/proc/vmstat`. Events are summed over the CPUs that are online at this moment (mm/vmstat.c,
    /// `all_vm_events`); the kernel adds each CPU's part of a gauge about once a second.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read("/proc/vmstat")?))
    }

    /// As [`Vmstat::read`], with only the counters that are `wanted`.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read_only(wanted: impl Fn(&str) -> bool) -> io::Result<Self> {
        // Each read(2) sums all counters of all CPUs again: use as few as possible.
        let mut text = Vec::with_capacity(1 << 14);
        fs::File::open("/proc/vmstat")?.read_to_end(&mut text)?;
        Ok(Self::parse_only(&text, wanted))
    }

    /// Keeps only the counters that are `wanted`.
    #[must_use]
    pub fn only(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.counters.retain(|name, _| wanted(name));
        self
    }

    /// The counter with this name ("pgmigrate_success"); `None` if this kernel does not have it.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.counters.get(name).copied()
    }

    /// The change of the counter since `earlier`; negative for a gauge that fell. `None` unless both have it.
    pub fn delta(&self, earlier: &Self, name: &str) -> Option<i64> {
        let (now, then) = (self.get(name)?, earlier.get(name)?);
        Some(now.wrapping_sub(then).cast_signed())
    }

    /// All counters, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counters.iter().map(|(name, &value)| (&**name, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_compares() {
        let earlier = Vmstat::parse(b"nr_free_pages 5764\npgmigrate_success 10\nthp_migration_split 0\n");
        let later = Vmstat::parse(b"nr_free_pages 5700\npgmigrate_success 22\n");
        assert_eq!(later.get("pgmigrate_success"), Some(22));
        assert_eq!(later.get("pgmigrate"), None);
        assert_eq!(later.delta(&earlier, "pgmigrate_success"), Some(12));
        assert_eq!(later.delta(&earlier, "nr_free_pages"), Some(-64));
        assert_eq!(later.delta(&earlier, "thp_migration_split"), None);
        assert_eq!(later.iter().count(), 2);
        let only = Vmstat::parse_only(b"nr_free_pages 5700\npgmigrate_success 22\n", |name| {
            name.starts_with("pg")
        });
        assert_eq!(only.iter().collect::<Vec<_>>(), [("pgmigrate_success", 22)]);
    }

    #[test]
    fn other_lines_are_passed_over() {
        let odd = Vmstat::parse(b"a\nb -1\nc 18446744073709551616\n\xff 1\n d 2\n\ne 3");
        assert_eq!(odd.iter().collect::<Vec<_>>(), [("e", 3)]);
        let wrapped = Vmstat::parse(b"e 0");
        assert_eq!(wrapped.delta(&odd, "e"), Some(-3));
    }

    #[test]
    fn the_running_kernel_counts() {
        assert!(Vmstat::read().unwrap().get("nr_free_pages").is_some());
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>) {
            let read = Vmstat::parse(&text);
            let _ = read.delta(&Vmstat::default(), "x");
        }
    }
}
