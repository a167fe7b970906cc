//! The catalogue of hooks: each program of the object, what it hangs on, what is lost without it.
//! Input: none; `source::ring` tries them, `tracer doctor` explains them.

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Entry of a kernel function, through a BPF trampoline.
    Fentry,
    /// Exit of a kernel function, through a BPF trampoline.
    Fexit,
    /// Entry of a kernel function, through a probe: for functions that a trampoline does not take everywhere.
    Kprobe,
    /// A tracepoint, by name and without tracefs.
    RawTracepoint,
}

/// Which backends use a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// Both.
    Always,
    /// Only `exact`.
    Exact,
    /// Only `tracepoint`.
    Tracepoint,
}

/// One program of the object.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The program's name in the object.
    pub program: &'static str,
    /// How it is attached.
    pub attach: Attach,
    /// The kernel function or tracepoint; alternatives after a `|`, of which a kernel has one.
    pub target: &'static str,
    /// What the program takes from it, in order: the names of a function's parameters, alternatives after a `|`; of a
    /// tracepoint, whose BTF has no names, the first so many arguments.
    pub arguments: &'static [&'static str],
    /// The backends that use it.
    pub used: Used,
    /// What is lost without it; None: the backend does not work without it.
    pub loses: Option<&'static str>,
}

impl Hook {
    /// `fentry/remove_migration_pte`, as errors and the doctor name it; of alternatives the newest.
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
    }
}

/// Every hook, in the order in which they are attached: the begin of a call last, so that whatever belongs to a call
/// whose begin is seen is seen too. Functions and prototypes hold for 6.1 to 7.3; see the program's own comment.
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
    ),
    hook(
        "folio_done",
        Attach::Fentry,
        "migrate_folio_done",
        &["src", "reason"],
        Used::Exact,
        Some("folios freed before they moved are missing from the books"),
    ),
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
        Some("folios that could not be moved"),
    ),
    hook(
        "target_found",
        Attach::Fexit,
        "alloc_migration_target",
        &["page|src", "private"],
        Used::Exact,
        Some("failures for want of a free page, of most system calls"),
    ),
    hook(
        "policy_target_found",
        Attach::Fexit,
        "alloc_migration_target_by_mpol|new_page",
        &["page|src", "start|private"],
        Used::Exact,
        Some("failures for want of a free page, of mbind"),
    ),
    hook(
        "misplaced_target_found",
        Attach::Fexit,
        "alloc_misplaced_dst_folio|alloc_misplaced_dst_page",
        &["page|src", "data"],
        Used::Exact,
        Some("failures for want of a free page, of NUMA balancing"),
    ),
    hook(
        "compaction_target_found",
        Attach::Fexit,
        "compaction_alloc",
        &["migratepage|src", "data"],
        Used::Exact,
        Some("failures for want of a free page, of compaction"),
    ),
    hook(
        "demotion_target_found",
        Attach::Fexit,
        "alloc_demote_folio|alloc_migrate_folio|alloc_demote_page",
        &["page|src", "private"],
        Used::Exact,
        Some("failures for want of a free page, of demotion"),
    ),
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
        &["cc", "zone_start", "zone_end", "sync"],
        Used::Always,
        Some("runs of compaction"),
    ),
    hook(
        "compaction_end",
        Attach::RawTracepoint,
        "mm_compaction_end",
        &["cc", "zone_start", "zone_end", "sync", "status"],
        Used::Always,
        Some("runs of compaction"),
    ),
    hook(
        "compaction_deferred",
        Attach::RawTracepoint,
        "mm_compaction_deferred",
        &["zone", "order"],
        Used::Always,
        Some("how often compaction was put off"),
    ),
    hook(
        "owner_leaves",
        Attach::Fentry,
        "mm_update_next_owner",
        &["mm"],
        Used::Exact,
        Some("owners of pages that move while their process exits"),
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
        &["parent", "child"],
        Used::Always,
        Some("children are not followed"),
    ),
    hook(
        "execed",
        Attach::RawTracepoint,
        "sched_process_exec",
        &["p", "old_pid"],
        Used::Always,
        Some("names of processes may be old"),
    ),
    hook(
        "renamed",
        Attach::RawTracepoint,
        "task_rename",
        &["task", "comm"],
        Used::Always,
        Some("processes that get another name keep the old one, also for --comm and --actor"),
    ),
    hook(
        "regrouped",
        Attach::RawTracepoint,
        "cgroup_attach_task",
        &["dst_cgrp", "path", "task"],
        Used::Always,
        Some("processes that go to another cgroup are not followed by --cgroup"),
    ),
    hook(
        "exited",
        Attach::RawTracepoint,
        "sched_process_exit",
        &["p"],
        Used::Always,
        Some("a reused PID may be taken for its predecessor"),
    ),
    hook(
        "migrate_end",
        Attach::RawTracepoint,
        "mm_migrate_pages",
        &["succeeded"],
        Used::Always,
        None,
    ),
    hook(
        "migrate_begin",
        Attach::RawTracepoint,
        "mm_migrate_pages_start",
        &["mode", "reason"],
        Used::Always,
        None,
    ),
];

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSymbol as _};

    use super::*;

    #[test]
    fn catalogue_and_object_hold_the_same_programs() {
        let object = object::File::parse(crate::source::object::BYTES).expect("the embedded object is ELF");
        let in_object: std::collections::BTreeSet<&str> = object
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
            .filter_map(|symbol| symbol.name().ok())
            .collect();
        let in_catalogue: std::collections::BTreeSet<&str> = HOOKS.iter().map(|hook| hook.program).collect();
        assert_eq!(in_object, in_catalogue);
    }
}
