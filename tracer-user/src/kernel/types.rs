//! The layout of the running kernel's structures that the programs need, and its names for reasons.
//! Input: the kernel's BTF, /sys/kernel/btf/vmlinux.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracer_common::{
    arch,
    config::{Config, Origin},
};

use crate::{
    kernel::names::{KernelNames, Names},
    kernel::{
        btf::{Btf, BtfDamage, Passed},
        hooks::{Attach, HOOKS, Hook},
    },
};

/// The first step of a move by NUMA balancing, a function of its own since 6.10.
const PREPARE_MISPLACED: &str = "migrate_misplaced_folio_prepare";

/// The types of a kernel that was built with CONFIG_DEBUG_INFO_BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's types cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TypesError {
    /// The file does not exist or cannot be read.
    #[error("cannot read the kernel's type information, {}: {source}\n  tracer takes every structure offset from it; boot a kernel built with CONFIG_DEBUG_INFO_BTF=y", path.display())]
    Read {
        /// The BTF file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The file is not BTF.
    #[error("the kernel's type information is damaged: {0}")]
    Damaged(#[from] BtfDamage),
    /// A structure, member or constant that tracer needs is not in this kernel.
    #[error(
        "this kernel has no {0}, which tracer's programs read\n  boot a kernel from 6.1 to 7.3, built with CONFIG_MEMCG=y and CONFIG_MIGRATION=y"
    )]
    Missing(&'static str),
}

/// The types of a kernel.
pub struct KernelTypes(Btf);

impl KernelTypes {
    /// Reads and indexes a BTF file.
    ///
    /// # Errors
    /// [`TypesError::Read`], [`TypesError::Damaged`].
    pub fn read(path: &Path) -> Result<Self, TypesError> {
        let bytes = fs::read(path).map_err(|source| TypesError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(Btf::parse(bytes)?))
    }

    /// The offsets that the programs need.
    ///
    /// # Errors
    /// [`TypesError::Missing`] names the first one that this kernel lacks.
    pub fn config(&self) -> Result<Config, TypesError> {
        let mut config = Config {
            remove_arg_is_walk: u32::from(self.0.member("rmap_walk_arg.folio").is_some()),
            page_struct_shift: self.page_struct_shift().ok_or(TypesError::Missing("struct page"))?,
            // The function made base pages of them (mm/hugetlb.c), and was removed when that was no longer needed.
            huge_index: u32::from(self.0.parameters("hugetlb_basepage_index").is_some()),
            misplaced_moves: u32::from(self.0.parameters(PREPARE_MISPLACED).is_none()),
            // It is not used on a kernel without NUMA balancing.
            reason_numa: self.constant("migrate_reason", "MR_NUMA_MISPLACED").unwrap_or(u32::MAX),
            // `is_thp` of migrate_pages: any large folio but hugetlb on 6.1; since the counts are in a structure of
            // their own (6.3), those that a PMD can map. mm/migrate.c.
            thp_order: match self.0.size("migrate_pages_stats") {
                Some(_) => arch::PMD_ORDER,
                None => 1,
            },
            // It is the last argument: the 7th of 6.1, the 8th since large_folio_split was added before it (6.7).
            migrate_end_reason: self
                .0
                .tracepoint_arguments("mm_migrate_pages")
                .and_then(|arguments| u32::try_from(arguments.len()).ok()?.checked_sub(1))
                .ok_or(TypesError::Missing("tracepoint mm_migrate_pages"))?,
            ..Config::UNSET
        };
        for field in Config::FIELDS {
            let value = match field.origin {
                Origin::Offset(paths) => paths
                    .iter()
                    .find_map(|path| self.0.member(path))
                    .ok_or(TypesError::Missing(paths.first().copied().unwrap_or_default()))?,
                Origin::OffsetOrZero(path) => self.0.member(path).unwrap_or(0),
                Origin::Constant(enumeration, name) => {
                    self.constant(enumeration, name).ok_or(TypesError::Missing(name))?
                }
                Origin::Derived => continue,
            };
            (field.set)(&mut config, value);
        }
        Ok(config)
    }

    /// Checks that a hook passes the arguments that its program takes, and returns the target that this kernel has. A
    /// kernel that differs is refused, so that it is not misread.
    ///
    /// # Errors
    /// The arguments that the kernel has instead.
    pub fn check(&self, hook: &Hook) -> Result<&'static str, String> {
        match hook.attach {
            Attach::Fentry | Attach::Fexit | Attach::Kprobe => {
                let (target, parameters) = hook
                    .target
                    .split('|')
                    .find_map(|name| Some((name, self.0.parameters(name)?)))
                    .ok_or("this kernel has no such function")?;
                fits(hook.arguments, &parameters, |want, have| {
                    want.split('|').any(|name| name == *have)
                })
                .then_some(target)
                .ok_or_else(|| format!("this kernel's takes ({})", parameters.join(", ")))
            }
            Attach::RawTracepoint => {
                let passed = self
                    .0
                    .tracepoint_arguments(hook.target)
                    .ok_or("this kernel has no such tracepoint")?;
                fits(hook.arguments, &passed, |want, have| {
                    *have
                        == if want.starts_with('*') {
                            Passed::Pointer
                        } else {
                            Passed::Number
                        }
                })
                .then_some(hook.target)
                .ok_or_else(|| {
                    let words: Vec<&str> = passed.iter().map(|passed| word(*passed)).collect();
                    format!("this kernel's passes ({})", words.join(", "))
                })
            }
        }
    }

    /// BTF that has the functions of the catalogue alone, under the kernel's ids: what fentry and fexit programs are
    /// loaded with.
    #[must_use]
    pub fn hooked_functions(&self) -> Vec<u8> {
        let of_functions = HOOKS
            .iter()
            .filter(|hook| matches!(hook.attach, Attach::Fentry | Attach::Fexit));
        self.0
            .only_functions(of_functions.flat_map(|hook| hook.target.split('|')))
    }

    /// The running kernel's names for its numbers.
    #[must_use]
    pub fn names(&self) -> KernelNames {
        let constants = |name| self.0.constants(name).unwrap_or_default().into_iter();
        let lower = |prefix| move |name: &str| Some(name.strip_prefix(prefix)?.to_ascii_lowercase());
        // Some bits have a different meaning for each kind of folio: their numbers have no name.
        let flag = |name: &str| {
            let ambiguous = name.starts_with("PG_owner") || name.starts_with("PG_arch") || name == "PG_mappedtodisk";
            (!ambiguous).then(|| lower("PG_")(name)).flatten()
        };
        KernelNames {
            reasons: Names::reasons(constants("migrate_reason")),
            page_flags: Names::new(constants("pageflags"), flag),
            compact_results: Names::new(constants("compact_result"), lower("COMPACT_")),
        }
    }

    fn page_struct_shift(&self) -> Option<u32> {
        let size = self.0.size("page")?;
        size.is_power_of_two().then(|| size.trailing_zeros())
    }

    fn constant(&self, enumeration: &str, name: &str) -> Option<u32> {
        let constants = self.0.constants(enumeration)?;
        constants
            .into_iter()
            .find(|(have, _)| *have == name)
            .map(|(_, value)| value)
    }
}

/// Whether the arguments of a hook are the wanted ones: all of them, or with a "..." those before and after it.
fn fits<T>(wanted: &[&str], passed: &[T], same: impl Fn(&str, &T) -> bool) -> bool {
    let more = wanted.iter().position(|name| *name == "...");
    let (before, after) = match more {
        Some(at) => (&wanted[..at], &wanted[at + 1..]),
        None => (wanted, &wanted[..0]),
    };
    let named = before.len() + after.len();
    let enough = passed.len() == named || (more.is_some() && passed.len() > named);
    let same = |(want, have): (&&str, &T)| same(want, have);
    enough && before.iter().zip(passed).all(same) && after.iter().rev().zip(passed.iter().rev()).all(same)
}

fn word(passed: Passed) -> &'static str {
    match passed {
        Passed::Pointer => "pointer",
        Passed::Number => "number",
        Passed::Other => "other",
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "the samples are small")]
mod tests {
    use super::*;
    use crate::kernel::btf;

    const NUMBER: u32 = 1;
    const POINTER: u32 = 2;
    const ENUM: u32 = 3;
    const STRUCT: u32 = 4;
    /// A constant type whose target is a pointer.
    const CONST: u32 = 5;

    /// The result of the catalogue's check for a tracepoint whose arguments have these types.
    fn check(tracepoint: &str, arguments: &[u32]) -> Result<&'static str, String> {
        let strings = format!("\0btf_trace_{tracepoint}\0");
        #[rustfmt::skip]
        let mut types = vec![
            0, 1 << 24, 8, 64,       // 1: integer
            0, 2 << 24, 0,           // 2: pointer
            0, 6 << 24, 4,           // 3: enumeration
            0, 4 << 24, 16,          // 4: structure
            0, 10 << 24, 2,          // 5: const -> 2
            1, 8 << 24, 7,           // 6: typedef -> 7
            0, 2 << 24, 8,           // 7: pointer -> 8
            0, 13 << 24 | (arguments.len() as u32 + 1), 0, // 8: prototype, the private data first
                0, POINTER,
        ];
        types.extend(arguments.iter().flat_map(|&ty| [0, ty]));
        let types = btf::words(&types);
        let types =
            KernelTypes(Btf::parse(btf::file(&types, strings.as_bytes())).map_err(|damage| damage.to_string())?);
        let hook = HOOKS.iter().find(|hook| hook.target == tracepoint);
        types.check(hook.ok_or("no such hook")?)
    }

    #[test]
    fn tracepoints_are_taken_as_they_are_known() {
        // The arguments of 6.1; since 6.7 large_folio_split comes before the last two.
        let counts = [NUMBER; 5];
        let (old, new) = (
            [&counts[..], &[ENUM, NUMBER]].concat(),
            [&counts[..], &[NUMBER, ENUM, NUMBER]].concat(),
        );
        assert!(check("mm_migrate_pages", &old).is_ok());
        assert!(check("mm_migrate_pages", &new).is_ok());
        assert!(check("task_rename", &[POINTER, CONST]).is_ok());
        assert!(check("sched_process_exit", &[POINTER]).is_ok());
        assert!(check("sched_process_exit", &[POINTER, NUMBER]).is_ok());
        assert!(check("mm_collapse_huge_page_isolate", &[POINTER, NUMBER, NUMBER]).is_ok());
    }

    #[test]
    fn a_changed_prototype_is_refused() {
        let refused = |tracepoint, arguments: &[u32]| check(tracepoint, arguments).err();
        // There are too few arguments for the numbers that the program reads; then a pointer comes before them.
        assert!(refused("mm_migrate_pages", &[NUMBER; 6]).is_some());
        assert!(
            refused(
                "mm_migrate_pages",
                &[POINTER, NUMBER, NUMBER, NUMBER, NUMBER, ENUM, NUMBER]
            )
            .is_some()
        );
        // Another argument follows the reason.
        assert!(
            refused(
                "mm_migrate_pages",
                &[NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, POINTER]
            )
            .is_some()
        );
        assert!(refused("sched_process_fork", &[POINTER, POINTER, NUMBER]).is_some());
        assert!(refused("set_migration_pte", &[NUMBER, STRUCT, NUMBER]).is_some());
        assert_eq!(
            refused("mm_migrate_pages_start", &[POINTER, ENUM]).as_deref(),
            Some("this kernel's passes (pointer, number)")
        );
    }
}
