//! The findings as sections: a row for each check, and the backend that tracing would use.
//! Input: the findings.

use super::{Finding, Health, Status};
use crate::{
    cells,
    run::backend::Backend,
    section::{Cell, Column, Note, Row, Section, Tone},
};

/// Width of a check's name, in characters.
const NAME: usize = 14;
/// Width of the reading, in characters.
const FOUND: usize = 76;

impl Health {
    /// The checks and the verdict.
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        vec![self.checks(), self.verdict()]
    }

    fn checks(&self) -> Section {
        let columns = vec![
            Column::name().key("name").heading("").least(NAME),
            Column::name().key("status"),
            Column::name().key("found").heading("").least(FOUND).most(FOUND),
            Column::name().heading(""),
            Column::name().key("loses"),
            Column::name().key("do"),
        ];
        let rows = self.findings.iter().map(row).collect();
        Section {
            name: "check",
            columns,
            rows,
            ..Section::default()
        }
    }

    fn verdict(&self) -> Section {
        let remedies = &self.remedies;
        let remedy = (!remedies.is_empty()).then(|| remedies.join("; "));
        let columns = vec![
            Column::name().heading("").least(NAME),
            Column::name().heading("").least(FOUND),
            Column::name().key("backend"),
            Column::name().key("do"),
        ];
        let (tone, verdict) = match self.backend {
            Some(backend) => (Tone::Good, format!("=> backend: {backend}")),
            None => (Tone::Alarm, "=> backend: none, tracer cannot trace here".to_owned()),
        };
        let notes = remedies.iter().map(|remedy| Note::about("do:", cells![remedy.clone()]));
        let row = Row {
            cells: cells![verdict, Cell::Continued, self.backend.map(Backend::name), remedy],
            tone,
            notes: notes.collect(),
        };
        Section {
            name: "doctor",
            columns,
            rows: vec![row],
            ..Section::default()
        }
    }
}

fn row(finding: &Finding) -> Row {
    let (status, word, tone) = match finding.status {
        Status::Ok => ("ok", "ok", Tone::Good),
        Status::Missing => ("missing", "NO", Tone::Alarm),
        Status::Note => ("note", "note", Tone::Warning),
        Status::Unknown => ("unknown", "?", Tone::Warning),
    };
    let sentence = |label, text: &Option<String>| Some(Note::about(label, cells![text.clone()?]));
    let notes = [sentence("loses:", &finding.loses), sentence("do:", &finding.remedy)];
    Row {
        cells: cells![
            finding.name,
            status,
            finding.found.clone(),
            Cell::Mark(word, tone),
            finding.loses.clone(),
            finding.remedy.clone(),
        ],
        tone: Tone::Normal,
        notes: notes.into_iter().flatten().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::health::{
            examine,
            made_up::{fine, locked_down, unprivileged},
        },
        render::{json, text},
    };

    fn page(health: &Health) -> String {
        text::plain(&health.sections())
    }

    #[test]
    fn a_good_machine() {
        insta::assert_snapshot!(page(&examine(&fine())), @r"
        kernel          6.12.117+deb12-amd64, x86_64, 5-level paging, 4 KiB pages                     ok
        privileges      root, with every capability that matters                                      ok
        PID namespace   the machine's own                                                             ok
        lockdown        none                                                                          ok
        configuration   /boot/config-6.12.117+deb12-amd64: every option that hooks need               ok
        BTF             /sys/kernel/btf/vmlinux, 5.3 MiB; every needed structure member is in it      ok
        exact           46 of 46 hooks attach                                                         ok
        tracepoint      15 of 15 hooks attach; owners by the reverse mapping                          ok
        BPF settings    kernel.unprivileged_bpf_disabled=2 (does not concern root); the ring counts   ok
                        against the cgroup's memory, not ulimit -l
        confinement     Landlock and seccomp                                                          ok
        pagemap         frame numbers visible                                                         ok
        frame files     kpageflags, kpagecount, kpagecgroup readable in /proc                         ok
        kernel counts   /proc/vmstat has pgmigrate_success                                            ok
        NUMA            2 nodes; 0: CPUs 0-3, 16.0 GiB; 1: CPUs 4-7, 16.0 GiB                         ok
        balancing       kernel.numa_balancing=1 (on)                                                  ok
        compaction      vm.compaction_proactiveness=20 of 100; transparent huge pages: madvise        ok
        reclaim         vm.zone_reclaim_mode=0 (off), demotion to slower memory off                   ok
        => backend: exact
        ");
    }

    #[test]
    fn a_locked_kernel() {
        insta::assert_snapshot!(page(&examine(&locked_down())), @r"
        kernel          6.12.117+deb12-amd64, x86_64, 5-level paging, 4 KiB pages                     ok
        privileges      root, with every capability that matters                                      ok
        PID namespace   the machine's own                                                             ok
        lockdown        integrity: mainline refuses none of tracer's hooks for it                     note
        configuration   /boot/config-6.12.117+deb12-amd64: every option that hooks need               ok
        BTF             /sys/kernel/btf/vmlinux, 5.3 MiB; every needed structure member is in it      ok
        exact           16 of 46 hooks attach; fexit/move_to_new_folio, fentry/remove_migration_pte,  NO
                        fexit/remove_migration_pte, fentry/try_to_migrate_one,
                        fexit/try_to_migrate_one, fentry/migrate_folio_done,
                        fexit/alloc_migration_target, fexit/alloc_migration_target_by_mpol,
                        fexit/alloc_misplaced_dst_folio, fexit/compaction_alloc,
                        fexit/alloc_demote_folio, fexit/migrate_misplaced_folio_prepare,
                        fentry/mm_update_next_owner, fentry/collapse_huge_page,
                        fentry/pgtable_trans_huge_deposit, fexit/try_to_merge_one_page,
                        fentry/folio_add_new_anon_rmap, fexit/do_wp_page, fentry/do_wp_page,
                        fexit/do_huge_pmd_wp_page, fentry/do_huge_pmd_wp_page,
                        fentry/hugetlb_add_new_anon_rmap, fentry/copy_user_large_folio,
                        fentry/folio_remove_rmap_ptes, fexit/try_to_unmap_one,
                        fentry/try_to_unmap_one, fentry/folio_add_anon_rmap_ptes,
                        fentry/folio_add_new_anon_rmap, fexit/do_swap_page, fentry/do_swap_page:
                        `bpf_raw_tracepoint_open` failed: Operation not permitted (os error 1)
                        loses: folios that could not be moved, with cause and owner; moves of page cache
                               that nobody maps
                        do: find what refuses them; the cause is not known: a security module (dmesg may
                            name it), or a patch of this kernel
        tracepoint      15 of 15 hooks attach; owners by the reverse mapping                          ok
        BPF settings    kernel.unprivileged_bpf_disabled=2 (does not concern root); the ring counts   ok
                        against the cgroup's memory, not ulimit -l
        confinement     Landlock and seccomp                                                          ok
        pagemap         frame numbers visible                                                         ok
        frame files     kpageflags, kpagecount, kpagecgroup readable in /proc                         ok
        kernel counts   /proc/vmstat has pgmigrate_success                                            ok
        NUMA            2 nodes; 0: CPUs 0-3, 16.0 GiB; 1: CPUs 4-7, 16.0 GiB                         ok
        balancing       kernel.numa_balancing=1 (on)                                                  ok
        compaction      vm.compaction_proactiveness=20 of 100; transparent huge pages: madvise        ok
        reclaim         vm.zone_reclaim_mode=0 (off), demotion to slower memory off                   ok
        => backend: tracepoint
        ");
    }

    #[test]
    fn an_ordinary_user() {
        insta::assert_snapshot!(page(&examine(&unprivileged())), @r"
        kernel          6.12.117+deb12-amd64, x86_64, 5-level paging, 4 KiB pages                     ok
        privileges      user 1000, without CAP_SYS_ADMIN, CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE,       NO
                        CAP_DAC_READ_SEARCH (and CAP_DAC_OVERRIDE, CAP_SYS_RESOURCE, CAP_SYSLOG, not
                        needed)
                        loses: everything; in particular frame numbers (CAP_SYS_ADMIN), loading of BPF
                               programs (CAP_BPF), their hooks (CAP_PERFMON), memory maps of other users'
                               processes (CAP_SYS_PTRACE), pagemap of other users' processes
                               (CAP_DAC_READ_SEARCH)
                        do: run with sudo
        PID namespace   the machine's own                                                             ok
        lockdown        not checked: only root may see it, or the kernel has none                     ?
        configuration   /boot/config-6.12.117+deb12-amd64: every option that hooks need               ok
        BTF             /sys/kernel/btf/vmlinux, 5.3 MiB; every needed structure member is in it      ok
        exact           not checked: without the privileges above the kernel takes no BPF programs    ?
        tracepoint      not checked: without the privileges above the kernel takes no BPF programs    ?
        BPF settings    kernel.unprivileged_bpf_disabled=2 (does not concern root); the ring counts   ok
                        against the cgroup's memory, not ulimit -l
        confinement     Landlock and seccomp                                                          ok
        pagemap         frame numbers hidden: they need CAP_SYS_ADMIN                                 NO
                        loses: frame numbers, owners by pagemap, and the check of every move
                        do: run with sudo
        frame files     kpageflags, kpagecount, kpagecgroup: Permission denied (os error 13)          NO
                        loses: what kind of page a frame holds (kpageflags); how often a frame is mapped
                               (kpagecount); which cgroup a frame is charged to (kpagecgroup)
                        do: run with sudo; in a container, unmask these files of /proc
        kernel counts   /proc/vmstat has pgmigrate_success                                            ok
        NUMA            2 nodes; 0: CPUs 0-3, 16.0 GiB; 1: CPUs 4-7, 16.0 GiB                         ok
        balancing       kernel.numa_balancing=1 (on)                                                  ok
        compaction      vm.compaction_proactiveness=20 of 100; transparent huge pages: madvise        ok
        reclaim         vm.zone_reclaim_mode=0 (off), demotion to slower memory off                   ok
        => backend: none, tracer cannot trace here
                        do: run with sudo
        ");
    }

    #[test]
    fn json_has_one_object_a_line() {
        let mut out = Vec::new();
        let health = examine(&locked_down());
        json::lines(&mut out, &health.sections()).unwrap();
        let lines: Vec<serde_json::Value> = out
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let (last, checks) = lines.split_last().unwrap();
        assert_eq!(checks.len(), health.findings.len());
        assert_eq!(
            *last,
            serde_json::json!({"kind": "doctor", "backend": "tracepoint", "do": null})
        );
        let exact = checks.iter().find(|check| check["name"] == "exact").unwrap();
        assert_eq!((&exact["kind"], &exact["status"]), (&"check".into(), &"missing".into()));
        assert!(exact["loses"].is_string() && exact["do"].is_string());
        assert!(checks[0]["loses"].is_null() && checks[0]["do"].is_null());
    }
}
