//! The catalogue of hooks: each program of the object, its function or tracepoint, and what is lost without it.
//! Input: none; `source::bpf` attaches them, `tracer doctor` explains them.

use tracer_common::config::kinds;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Entry of a kernel function, through a BPF trampoline.
    Fentry,
    /// Exit of a kernel function, through a BPF trampoline.
    Fexit,
    /// Entry of a kernel function, through a probe: for functions that a trampoline cannot hook on every kernel.
    Kprobe,
    /// A tracepoint, by name and without tracefs.
    RawTracepoint,
}

/// A set of kinds of page moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// Moves through the kernel's migrate_pages.
    pub const MOVE: Self = Self(kinds::MOVE);
    /// Base pages that are copied into a huge page, by khugepaged or MADV_COLLAPSE.
    pub const COLLAPSE: Self = Self(kinds::COLLAPSE);
    /// Pages that are merged with an identical page, or unmerged.
    pub const KSM: Self = Self(kinds::KSM);
    /// Pages that are copied on write.
    pub const COW: Self = Self(kinds::COW);
    /// Pages that go to swap or come back.
    pub const SWAP: Self = Self(kinds::SWAP);
    /// The kinds that a run shows by default.
    pub const DEFAULT: Self = Self::MOVE.and(Self::COLLAPSE);
    /// Every kind.
    pub const ALL: Self = Self::DEFAULT.and(Self::KSM).and(Self::COW).and(Self::SWAP);

    /// The kinds that do not go through migrate_pages.
    pub const OUTSIDE: Self = Self::ALL.without(Self::MOVE);

    /// The bits, as [`kinds`] defines them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The union of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The kinds of this set that are not in the other one.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The kinds that are in both sets.
    #[must_use]
    pub const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const NAMES: [(Self, &str); 5] = [
        (Self::MOVE, "move"),
        (Self::COLLAPSE, "collapse"),
        (Self::KSM, "ksm"),
        (Self::COW, "cow"),
        (Self::SWAP, "swap"),
    ];

    /// The names of the kinds in the set, as on the command line.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(kind, _)| self.any_of(*kind))
            .map(|(_, name)| name)
    }

    /// Whether all kinds of the other set are in this one.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The kind with that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .into_iter()
            .find(|(_, known)| *known == name)
            .map(|(kind, _)| kind)
    }

    /// Whether the two sets have a kind in common.
    #[must_use]
    pub const fn any_of(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The backends that use a hook, and the kinds of moves for which they use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// Both, for all kinds.
    Always,
    /// Both, for moves through migrate_pages.
    Moves,
    /// Only `exact`, for moves through migrate_pages.
    Exact,
    /// Only `tracepoint`.
    Tracepoint,
    /// Only `exact`, if one of these kinds is traced; without the hook nothing of them is seen.
    Kinds(Kinds),
    /// Only `exact`, if one of these kinds is traced. The hook adds a detail; they are seen without it.
    More(Kinds),
}

/// The loss if the kernel skips a run of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Events: a move, a failure, a pass of compaction; or all events of a process that the filter then rejects by
    /// mistake.
    Events,
    /// A detail of an event, or a line of the books.
    Details,
}

/// One program of the object, and its second copy.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The program's name in the object.
    pub program: &'static str,
    /// How it is attached.
    pub attach: Attach,
    /// The kernel function or tracepoint; alternatives after a `|`, of which a kernel has one.
    pub target: &'static str,
    /// Its arguments, in order: the names of a function's parameters, alternatives after a `|`. "..." stands for any
    /// number of arguments that the program does not read, or counts from the end. BTF has only types for a
    /// tracepoint's arguments: a `*` before a name marks a pointer; without it the argument is a number.
    pub arguments: &'static [&'static str],
    /// The backends that use it.
    pub used: Used,
    /// The loss without it; None if the backend does not work without it.
    pub loses: Option<&'static str>,
    /// The loss if a run of it is skipped.
    pub skipped: Skipped,
}

impl Hook {
    /// Whether it is attached only for these kinds.
    #[must_use]
    pub fn is_only_of(&self, kinds: Kinds) -> bool {
        matches!(self.used, Used::Kinds(own) | Used::More(own) if own.and(kinds) == kinds)
    }

    /// Whether one of these kinds is not seen without it.
    #[must_use]
    pub fn is_needed_by(&self, kinds: Kinds) -> bool {
        matches!(self.used, Used::Kinds(own) if own.any_of(kinds))
    }

    /// The same hook; a skipped run of it costs details only.
    const fn of_details(self) -> Self {
        Self {
            skipped: Skipped::Details,
            ..self
        }
    }

    /// Whether its program sees calls of migrate_pages begin. While it is not attached, no call is recorded.
    #[must_use]
    pub fn opens_calls(&self) -> bool {
        self.program == "migrate_begin"
    }

    /// The name of the program's second copy. Kprobes and RCU callbacks need none: the kernel runs them to their end.
    #[must_use]
    pub fn again(&self) -> Option<String> {
        let once = self.attach == Attach::Kprobe || self.program == "freed";
        (!once).then(|| format!("{}_again", self.program))
    }

    /// `fentry/remove_migration_pte`, as errors and the doctor name it, with the first alternative.
    #[must_use]
    pub fn label(&self) -> String {
        let kind = match self.attach {
            Attach::Fentry => "fentry",
            Attach::Fexit => "fexit",
            Attach::Kprobe => "kprobe",
            Attach::RawTracepoint => "tracepoint",
        };
        let target = self.target.split('|').next().unwrap_or_default();
        format!("{kind}/{target}")
    }
}

const fn hook(
    program: &'static str,
    attach: Attach,
    target: &'static str,
    arguments: &'static [&'static str],
    used: Used,
    loses: Option<&'static str>,
) -> Hook {
    Hook {
        program,
        attach,
        target,
        arguments,
        used,
        loses,
        skipped: Skipped::Events,
    }
}

const COPIES: Kinds = Kinds::KSM.and(Kinds::COW);
const COPYING: &str = "copies on write (cow), of shared pages too (ksm)";
const HUGE_COPYING: &str = "copies of hugetlb pages on write (cow)";
const SPLITTING: &str = "of blackouts of copies on write (cow) the part in which a huge page is split";
const SWAPPING: &str = "pages that go to swap and come back (swap)";
const COLLAPSES: &str = "moves into huge pages (collapse)";

/// Every hook, in the order of attaching. The begin of a call is attached last, after the first reading of the books: if
/// it is seen, all that belongs to the call is seen as well. Functions and prototypes hold for 6.1 to 7.3; see the comments
/// of the programs.
pub const HOOKS: &[Hook] = &[
    hook(
        "folio_moved",
        Attach::Fexit,
        "move_to_new_folio",
        &["dst", "src", "mode"],
        Used::Exact,
        None,
    ),
    hook(
        "restoring",
        Attach::Fentry,
        "remove_migration_pte",
        &["folio", "vma", "addr", "old|arg"],
        Used::Exact,
        None,
    ),
    hook(
        "restored",
        Attach::Fexit,
        "remove_migration_pte",
        &["folio", "vma", "addr", "old|arg"],
        Used::Exact,
        None,
    ),
    hook(
        "mapping_restored",
        Attach::RawTracepoint,
        "remove_migration_pte",
        &["addr", "pte", "order"],
        Used::Exact,
        None,
    ),
    hook(
        "huge_mapping_restored",
        Attach::RawTracepoint,
        "remove_migration_pmd",
        &["addr", "pmd"],
        Used::Exact,
        None,
    ),
    hook(
        "unmapping",
        Attach::Fentry,
        "try_to_migrate_one",
        &["folio", "vma", "address", "arg"],
        Used::Exact,
        Some("blackout times"),
    )
    .of_details(),
    hook(
        "unmapping_ended",
        Attach::Fexit,
        "try_to_migrate_one",
        &["folio", "vma", "address", "arg"],
        Used::Exact,
        Some("the cause \"a mapping was left\" of failures"),
    )
    .of_details(),
    hook(
        "folio_done",
        Attach::Fentry,
        "migrate_folio_done",
        &["src", "reason"],
        Used::Exact,
        Some("folios freed before they moved are missing from the books"),
    )
    .of_details(),
    hook(
        "migrate_enter",
        Attach::Kprobe,
        "migrate_pages",
        &[
            "from",
            "get_new_page|get_new_folio",
            "put_new_page|put_new_folio",
            "private",
            "mode",
            "reason",
            "ret_succeeded",
        ],
        Used::Exact,
        Some("folios that could not be moved, but those that NUMA balancing refuses"),
    )
    // Failures that a skipped run costs are counted as lost.
    .of_details(),
    hook(
        "target_found",
        Attach::Fexit,
        "alloc_migration_target",
        &["page|src", "private"],
        Used::Exact,
        Some("the cause \"no free page on the target\" of failures: most system calls"),
    )
    .of_details(),
    hook(
        "policy_target_found",
        Attach::Fexit,
        "alloc_migration_target_by_mpol|new_page",
        &["page|src", "start|private"],
        Used::Exact,
        Some("the cause \"no free page on the target\" of failures: mbind"),
    )
    .of_details(),
    hook(
        "misplaced_target_found",
        Attach::Fexit,
        "alloc_misplaced_dst_folio|alloc_misplaced_dst_page",
        &["page|src", "data"],
        Used::Exact,
        Some("the cause \"no free page on the target\" of failures: NUMA balancing"),
    )
    .of_details(),
    hook(
        "compaction_target_found",
        Attach::Fexit,
        "compaction_alloc",
        &["migratepage|src", "data"],
        Used::Exact,
        Some("the cause \"no free page on the target\" of failures: compaction"),
    )
    .of_details(),
    hook(
        "demotion_target_found",
        Attach::Fexit,
        "alloc_demote_folio|alloc_migrate_folio|alloc_demote_page",
        &["page|src", "private"],
        Used::Exact,
        Some("the cause \"no free page on the target\" of failures: demotion"),
    )
    .of_details(),
    hook(
        "misplaced",
        Attach::Fexit,
        "migrate_misplaced_folio_prepare|migrate_misplaced_page",
        &["folio|page", "vma", "node"],
        Used::Exact,
        Some("pages that NUMA balancing refuses to move"),
    ),
    hook(
        "compaction_begin",
        Attach::RawTracepoint,
        "mm_compaction_begin",
        &["*cc", "zone_start", "zone_end", "sync"],
        Used::Moves,
        Some("passes of compaction"),
    ),
    hook(
        "compaction_end",
        Attach::RawTracepoint,
        "mm_compaction_end",
        &["*cc", "zone_start", "zone_end", "sync", "status"],
        Used::Moves,
        Some("passes of compaction"),
    ),
    hook(
        "compaction_deferred",
        Attach::RawTracepoint,
        "mm_compaction_deferred",
        &["*zone", "order"],
        Used::Moves,
        Some("how often compaction was put off"),
    )
    .of_details(),
    hook(
        "owner_leaves",
        Attach::Fentry,
        "mm_update_next_owner",
        &["mm"],
        Used::More(Kinds::ALL),
        Some("owners of pages that move while their process exits"),
    )
    .of_details(),
    hook(
        "collapse_begin",
        Attach::Fentry,
        "collapse_huge_page",
        &["mm", "address|start_addr", "referenced", "unmapped", "cc", "..."],
        Used::Kinds(Kinds::COLLAPSE),
        Some(COLLAPSES),
    ),
    hook(
        "collapse_isolated",
        Attach::RawTracepoint,
        "mm_collapse_huge_page_isolate",
        &["..."],
        Used::Kinds(Kinds::COLLAPSE),
        Some(COLLAPSES),
    ),
    hook(
        "collapse_deposits",
        Attach::Fentry,
        "pgtable_trans_huge_deposit",
        &["mm", "pmdp", "pgtable"],
        Used::Kinds(Kinds::COLLAPSE),
        Some(COLLAPSES),
    ),
    hook(
        "collapse_end",
        Attach::RawTracepoint,
        "mm_collapse_huge_page",
        &["*mm", "isolated", "status", "..."],
        Used::Kinds(Kinds::COLLAPSE),
        Some(COLLAPSES),
    ),
    hook(
        "ksm_merged",
        Attach::Fexit,
        "try_to_merge_one_page",
        &["vma", "page", "kpage"],
        Used::Kinds(Kinds::KSM),
        Some("moves to shared pages (ksm)"),
    ),
    hook(
        "copy_mapped",
        Attach::Fentry,
        "folio_add_new_anon_rmap|page_add_new_anon_rmap",
        &["folio|page", "vma", "address", "..."],
        Used::Kinds(COPIES),
        Some(COPYING),
    ),
    hook(
        "copy_end",
        Attach::Fexit,
        "do_wp_page",
        &["vmf"],
        Used::Kinds(COPIES),
        Some(COPYING),
    ),
    hook(
        "copy_begin",
        Attach::Fentry,
        "do_wp_page",
        &["vmf"],
        Used::Kinds(COPIES),
        Some(COPYING),
    ),
    hook(
        "split_end",
        Attach::Fexit,
        "do_huge_pmd_wp_page",
        &["vmf"],
        Used::More(Kinds::COW),
        Some(SPLITTING),
    )
    .of_details(),
    hook(
        "split_begin",
        Attach::Fentry,
        "do_huge_pmd_wp_page",
        &["vmf"],
        Used::More(Kinds::COW),
        Some(SPLITTING),
    )
    .of_details(),
    hook(
        "huge_copy_mapped",
        Attach::Fentry,
        "hugetlb_add_new_anon_rmap|hugepage_add_new_anon_rmap",
        &["folio|page", "vma", "address"],
        Used::More(Kinds::COW),
        Some(HUGE_COPYING),
    ),
    hook(
        "huge_copy_begin",
        Attach::Fentry,
        "copy_user_large_folio|copy_user_huge_page",
        &["dst", "src", "addr_hint", "vma", "..."],
        Used::More(Kinds::COW),
        Some(HUGE_COPYING),
    ),
    hook(
        "swap_out_unmapped",
        Attach::Fentry,
        "folio_remove_rmap_ptes|page_remove_rmap",
        &["folio|page", "page|vma", "nr_pages|compound", "..."],
        Used::Kinds(Kinds::SWAP),
        Some(SWAPPING),
    ),
    hook(
        "swap_out_end",
        Attach::Fexit,
        "try_to_unmap_one",
        &["folio", "vma", "address", "arg"],
        Used::Kinds(Kinds::SWAP),
        Some(SWAPPING),
    ),
    hook(
        "swap_out_begin",
        Attach::Fentry,
        "try_to_unmap_one",
        &["folio", "vma", "address", "arg"],
        Used::Kinds(Kinds::SWAP),
        Some(SWAPPING),
    ),
    hook(
        "swap_in_mapped",
        Attach::Fentry,
        "folio_add_anon_rmap_ptes|page_add_anon_rmap",
        &["folio|page", "page|vma", "nr_pages|address", "vma|flags", "..."],
        Used::Kinds(Kinds::SWAP),
        Some(SWAPPING),
    ),
    hook(
        "swap_in_mapped_new",
        Attach::Fentry,
        "folio_add_new_anon_rmap|page_add_new_anon_rmap",
        &["folio|page", "vma", "address", "..."],
        Used::Kinds(Kinds::SWAP),
        Some(SWAPPING),
    ),
    hook(
        "swap_in_end",
        Attach::Fexit,
        "do_swap_page",
        &["vmf"],
        Used::Kinds(Kinds::SWAP),
        Some(SWAPPING),
    ),
    hook(
        "swap_in_begin",
        Attach::Fentry,
        "do_swap_page",
        &["vmf"],
        Used::Kinds(Kinds::SWAP),
        Some(SWAPPING),
    ),
    hook(
        "tp_unmapped",
        Attach::RawTracepoint,
        "set_migration_pte",
        &["addr", "pte", "order"],
        Used::Tracepoint,
        None,
    ),
    hook(
        "tp_restored",
        Attach::RawTracepoint,
        "remove_migration_pte",
        &["addr", "pte", "order"],
        Used::Tracepoint,
        None,
    ),
    hook(
        "tp_huge_unmapped",
        Attach::RawTracepoint,
        "set_migration_pmd",
        &["addr", "pmd"],
        Used::Tracepoint,
        None,
    ),
    hook(
        "tp_huge_restored",
        Attach::RawTracepoint,
        "remove_migration_pmd",
        &["addr", "pmd"],
        Used::Tracepoint,
        None,
    ),
    hook(
        "forked",
        Attach::RawTracepoint,
        "sched_process_fork",
        &["*parent", "*child"],
        Used::Always,
        Some("children are not followed"),
    ),
    hook(
        "execed",
        Attach::RawTracepoint,
        "sched_process_exec",
        &["*p", "old_pid", "*bprm"],
        Used::Always,
        Some("names of processes may be old"),
    )
    .of_details(),
    hook(
        "renamed",
        Attach::RawTracepoint,
        "task_rename",
        &["*task", "*comm"],
        Used::Always,
        Some("processes that get another name keep the old one, also for --comm and --actor"),
    ),
    hook(
        "regrouped",
        Attach::RawTracepoint,
        "cgroup_attach_task",
        &["*dst_cgrp", "*path", "*task", "threadgroup"],
        Used::Always,
        Some("processes that go to another cgroup are not followed by --cgroup"),
    ),
    hook(
        "exited",
        Attach::RawTracepoint,
        "sched_process_exit",
        &["*p", "..."],
        Used::Always,
        Some("a reused PID may be taken for its predecessor"),
    )
    .of_details(),
    hook(
        "freed",
        Attach::RawTracepoint,
        "sched_process_free",
        &["*p"],
        Used::Always,
        Some("processes that have ended take up room of those that can be followed"),
    )
    .of_details(),
    hook(
        "migrate_end",
        Attach::RawTracepoint,
        "mm_migrate_pages",
        &[
            "succeeded",
            "failed",
            "thp_succeeded",
            "thp_failed",
            "thp_split",
            "...",
            "mode",
            "reason",
        ],
        Used::Moves,
        None,
    ),
    hook(
        "migrate_begin",
        Attach::RawTracepoint,
        "mm_migrate_pages_start",
        &["mode", "reason"],
        Used::Moves,
        None,
    ),
];

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSymbol as _};

    use super::*;

    fn hook(program: &str) -> &'static Hook {
        let found = HOOKS.iter().find(|hook| hook.program == program);
        found.expect("the catalogue has the program")
    }

    #[test]
    fn a_kind_goes_on_without_what_only_adds_to_it() {
        for program in ["copy_begin", "copy_mapped", "copy_end"] {
            assert!(hook(program).is_needed_by(Kinds::COW), "{program}");
        }
        // A kernel without CONFIG_HUGETLBFS has neither of the first two, and its copies on write are seen without
        // them.
        for program in ["huge_copy_begin", "huge_copy_mapped", "owner_leaves"] {
            assert!(!hook(program).is_needed_by(Kinds::ALL), "{program}");
            assert!(hook(program).loses.is_some(), "{program}: its absence is not reported");
        }
        assert!(hook("huge_copy_begin").is_only_of(Kinds::OUTSIDE));
        assert!(!hook("owner_leaves").is_only_of(Kinds::OUTSIDE));
    }

    #[test]
    fn what_a_skipped_run_costs() {
        for program in [
            "folio_moved",
            "collapse_end",
            "swap_in_begin",
            "misplaced",
            "compaction_end",
        ] {
            assert_eq!(hook(program).skipped, Skipped::Events, "{program}");
        }
        // A skipped run then costs a process, with all its events.
        for program in ["forked", "renamed", "regrouped"] {
            assert_eq!(hook(program).skipped, Skipped::Events, "{program}");
        }
        for program in ["unmapping", "owner_leaves", "execed", "exited", "target_found"] {
            assert_eq!(hook(program).skipped, Skipped::Details, "{program}");
        }
        for hook in HOOKS.iter().filter(|hook| hook.loses.is_none()) {
            assert_eq!(hook.skipped, Skipped::Events, "{}", hook.program);
        }
    }

    #[test]
    fn catalogue_and_object_hold_the_same_programs() {
        let object = object::File::parse(crate::source::bpf::object::BYTES).expect("the embedded object is ELF");
        let in_object: std::collections::BTreeSet<String> = object
            .symbols()
            .filter(|symbol| symbol.is_definition() && symbol.kind() == object::SymbolKind::Text)
            .filter(|symbol| {
                let section = symbol
                    .section_index()
                    .and_then(|index| object.section_by_index(index).ok());
                section.is_some_and(|section| {
                    object::ObjectSection::name(&section).is_ok_and(|name| name.contains('/') || name == "kprobe")
                })
            })
            .filter_map(|symbol| symbol.name().ok().map(str::to_owned))
            .collect();
        let programs = HOOKS.iter().map(|hook| hook.program.to_owned());
        let attached_to_none = [crate::source::bpf::bases::PROGRAM.to_owned()];
        let in_catalogue = programs
            .chain(HOOKS.iter().filter_map(Hook::again))
            .chain(attached_to_none)
            .collect();
        assert_eq!(in_object, in_catalogue);
    }
}
