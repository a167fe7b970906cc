//! The running kernel's names for its numbers: reasons of moves, page flags, results of compaction.
//! Input: the constants of enumerations, from the kernel's BTF.

use std::{collections::BTreeSet, fmt, sync::Arc};

use tracer_common::event::outside;

/// A migrate reason: the kernel's number and its name for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// `enum migrate_reason`, or one of [`outside`].
    pub number: u8,
    /// None if this kernel's BTF has no name for the number.
    pub name: Option<Arc<str>>,
}

/// The constants of `enum migrate_reason` from 6.1 to 7.3 (include/linux/migrate_mode.h), as they are spelled in output.
const KERNEL_REASONS: [&str; 10] = [
    "compaction",
    "memory_failure",
    "memory_hotplug",
    "syscall_or_cpuset",
    "mempolicy_mbind",
    "numa_misplaced",
    "contig_range",
    "longterm_pin",
    "demotion",
    "damon",
];

impl Reason {
    /// The names of reasons that are known without a kernel: a recording may be of any. Newer kernels may have more.
    pub fn known() -> impl Iterator<Item = &'static str> {
        KERNEL_REASONS.into_iter().chain(outside::NAMES.iter().copied())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.pad(name),
            None => f.pad(&format!("reason_{}", self.number)),
        }
    }
}

/// The running kernel's names for one range of numbers.
#[derive(Clone, Debug, Default)]
pub struct Names(Vec<Option<Arc<str>>>);

impl Names {
    /// Collects the constants of an enumeration. `spelled` returns the name of a constant, or None to leave it out. If
    /// several constants have one number, only the first is considered, even if it is left out.
    pub fn new<'a>(constants: impl Iterator<Item = (&'a str, u32)>, spelled: impl Fn(&str) -> Option<String>) -> Self {
        let mut names: Vec<Option<Arc<str>>> = Vec::new();
        let mut known = BTreeSet::new();
        for (constant, value) in constants.filter(|(_, value)| known.insert(*value)) {
            let (Some(name), Ok(index @ 0..=254)) = (spelled(constant), usize::try_from(value)) else {
                continue;
            };
            if names.len() <= index {
                names.resize(index + 1, None);
            }
            names[index] = Some(Arc::from(name));
        }
        Self(names)
    }

    /// The reasons: those of the kernel's `enum migrate_reason`, and tracer's own for moves outside migrate_pages.
    pub fn reasons<'a>(constants: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let ours = outside::NAMES.iter().copied().zip(u32::from(outside::FIRST)..);
        let kernels = constants.filter(|(_, value)| *value < u32::from(outside::FIRST));
        Self::new(kernels.chain(ours), reason_name)
    }

    /// The name of a number.
    #[must_use]
    pub fn get(&self, number: u8) -> Option<&Arc<str>> {
        self.0.get(usize::from(number))?.as_ref()
    }

    /// The number with that name; None if this kernel has no such constant.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u8> {
        let index = self.0.iter().position(|known| known.as_deref() == Some(name))?;
        u8::try_from(index).ok()
    }

    /// Every number that has a name, with its name.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Arc<str>)> {
        (0..)
            .zip(&self.0)
            .filter_map(|(number, name)| Some((number, name.as_ref()?)))
    }
}

/// The running kernel's names for its numbers.
#[derive(Clone, Debug, Default)]
pub struct KernelNames {
    /// `enum migrate_reason`, in the spelling of the kernel's own trace output (`MIGRATE_REASON`,
    /// include/trace/events/migrate.h).
    pub reasons: Names,
    /// `enum pageflags`, by bit, without "PG_".
    pub page_flags: Names,
    /// `enum compact_result`, lower case and without "COMPACT_".
    pub compact_results: Names,
}

impl KernelNames {
    /// The reasons that have a name, by number.
    pub fn known_reasons(&self) -> impl Iterator<Item = Reason> {
        self.reasons.iter().map(|(number, name)| Reason {
            number,
            name: Some(name.clone()),
        })
    }

    /// The reason with that number.
    #[must_use]
    pub fn reason(&self, number: u8) -> Reason {
        Reason {
            number,
            name: self.reasons.get(number).cloned(),
        }
    }
}

/// The spelling of a constant of `enum migrate_reason`; tracer's own names are spelled as they are.
fn reason_name(constant: &str) -> Option<String> {
    match constant.strip_prefix("MR_") {
        None => Some(constant.to_owned()),
        Some("TYPES") => None, // the count
        Some("SYSCALL") => Some("syscall_or_cpuset".to_owned()),
        Some(other) => Some(other.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_spelled_as_the_kernel_prints_them() {
        let constants = [
            ("MR_COMPACTION", 0),
            ("MR_SYSCALL", 3),
            ("MR_NUMA_MISPLACED", 5),
            ("MR_TYPES", 10),
        ];
        let names = KernelNames {
            reasons: Names::reasons(constants.into_iter()),
            ..KernelNames::default()
        };
        assert_eq!(names.reason(0).to_string(), "compaction");
        assert_eq!(names.reason(3).to_string(), "syscall_or_cpuset");
        assert_eq!(names.reason(5).to_string(), "numa_misplaced");
        assert_eq!(names.reasons.number("numa_misplaced"), Some(5));
        assert_eq!(names.reasons.number("damon"), None);
        assert_eq!(names.reason(10).to_string(), "reason_10");
        assert_eq!(names.reason(255).to_string(), "reason_255");
        assert_eq!(names.reason(outside::COLLAPSE).to_string(), "collapse");
        assert_eq!(names.reasons.iter().count(), 3 + outside::NAMES.len());
    }

    #[test]
    fn of_two_names_the_first_counts() {
        let flags = [
            ("PG_owner_priv_1", 10),
            ("PG_swapcache", 10),
            ("x", 1),
            ("PG_head", 600),
        ];
        let names = Names::new(flags.into_iter(), |flag| Some(flag.strip_prefix("PG_")?.to_owned()));
        assert_eq!(names.get(10).map(|name| &**name), Some("owner_priv_1"));
        assert_eq!(names.iter().count(), 1);
    }
}
