//! The doctor's page, and the same as JSON lines.
//! Input: the findings of `analysis::health`.
//!
//! JSON: one object a line. Every check:
//!
//! | key      | value                                                                                       |
//! |----------|---------------------------------------------------------------------------------------------|
//! | `kind`   | `"check"`                                                                                   |
//! | `name`   | what was checked: `"kernel"`, `"privileges"`, `"exact"`, ...                                  |
//! | `status` | `"ok"`; `"missing"`: something is lost; `"note"`: worth knowing; `"unknown"`: not checked     |
//! | `found`  | what was found, a sentence                                                                  |
//! | `loses`  | what is lost by it, or null                                                                 |
//! | `do`     | what the reader can do, or null                                                             |
//!
//! and the last line: `kind` is `"doctor"`, `backend` is `"exact"`, `"tracepoint"` or null, `do` is what to do where it
//! is null, else null itself.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::{
    analysis::health::{Finding, Health, Status},
    escape::{self, Printable},
};

/// Columns of the name.
const NAME: usize = 16;
/// Columns of what was found.
const FOUND: usize = 76;
/// Columns of the lines below it.
const BELOW: usize = 84;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const NOTABLE: Style = AnsiColor::Yellow.on_default();

/// Writes the page. The writer strips the styles where there is no terminal.
///
/// # Errors
/// What the writer answered.
pub fn text(health: &Health, out: &mut impl Write) -> io::Result<()> {
    for finding in &health.findings {
        check(finding, out)?;
    }
    if let Some(backend) = health.backend {
        return writeln!(out, "{GOOD}=> backend: {backend}{GOOD:#}");
    }
    writeln!(out, "{BAD}=> backend: none, tracer cannot trace here{BAD:#}")?;
    for remedy in &health.remedies {
        below("do: ", remedy, out)?;
    }
    Ok(())
}

fn check(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let (word, style) = match finding.status {
        Status::Ok => ("ok", GOOD),
        Status::Missing => ("NO", BAD),
        Status::Note => ("note", NOTABLE),
        Status::Unknown => ("?", NOTABLE),
    };
    let found = Printable(&finding.found).to_string();
    let mut lines = wrap(&found, FOUND).into_iter();
    let first = lines.next().unwrap_or_default();
    writeln!(out, "{:NAME$}{first:FOUND$}  {style}{word}{style:#}", finding.name)?;
    for line in lines {
        writeln!(out, "{:NAME$}{line}", "")?;
    }
    if let Some(loses) = &finding.loses {
        below("loses: ", loses, out)?;
    }
    if let Some(remedy) = &finding.remedy {
        below("do: ", remedy, out)?;
    }
    Ok(())
}

/// An indented sentence with its heading.
fn below(heading: &str, sentence: &str, out: &mut impl Write) -> io::Result<()> {
    let sentence = Printable(sentence).to_string();
    let mut heading = heading;
    let width = heading.len();
    for line in wrap(&sentence, BELOW - width) {
        writeln!(out, "{:NAME$}{heading:width$}{line}", "")?;
        heading = "";
    }
    Ok(())
}

/// Breaks a sentence at spaces into lines of at most `width` characters; a longer word stays whole.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'a> {
    Check {
        name: &'a str,
        status: &'a str,
        found: &'a str,
        loses: Option<&'a str>,
        r#do: Option<&'a str>,
    },
    Doctor {
        backend: Option<&'a str>,
        r#do: Option<String>,
    },
}

/// Writes one object a line, as described above.
///
/// # Errors
/// What the writer answered.
pub fn json(health: &Health, out: &mut impl Write) -> io::Result<()> {
    let mut line = |line: &Line| {
        escape::json(&mut *out, line)?;
        out.write_all(b"\n")
    };
    for finding in &health.findings {
        line(&Line::Check {
            name: finding.name,
            status: match finding.status {
                Status::Ok => "ok",
                Status::Missing => "missing",
                Status::Note => "note",
                Status::Unknown => "unknown",
            },
            found: &finding.found,
            loses: finding.loses.as_deref(),
            r#do: finding.remedy.as_deref(),
        })?;
    }
    line(&Line::Doctor {
        backend: health.backend.map(crate::run::backend::Backend::name),
        r#do: (!health.remedies.is_empty()).then(|| health.remedies.join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::health::{
        examine,
        made_up::{fine, locked_down, unprivileged},
    };

    fn page(health: &Health) -> String {
        let mut styled = Vec::new();
        text(health, &mut styled).unwrap();
        anstream::adapter::strip_bytes(&styled).into_vec().try_into().unwrap()
    }

    #[test]
    fn a_good_machine() {
        insta::assert_snapshot!(page(&examine(&fine())), @r"
        kernel          6.12.117+deb12-amd64, x86_64, 5-level paging, 4 KiB pages                     ok
        privileges      root, with every capability that matters                                      ok
        PID namespace   the machine's own                                                             ok
        lockdown        none                                                                          ok
        BTF             /sys/kernel/btf/vmlinux, 5.3 MiB; every needed structure member is in it      ok
        exact           44 of 44 hooks attach                                                         ok
        tracepoint      15 of 15 hooks attach                                                         ok
        BPF settings    kernel.unprivileged_bpf_disabled=2 (does not concern root); the ring counts   ok
                        against the cgroup's memory, not ulimit -l
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
        lockdown        integrity; some kernels then refuse function hooks                            note
        BTF             /sys/kernel/btf/vmlinux, 5.3 MiB; every needed structure member is in it      ok
        exact           16 of 44 hooks attach; fexit/move_to_new_folio, fentry/remove_migration_pte,  NO
                        fexit/remove_migration_pte, fentry/try_to_migrate_one,
                        fexit/try_to_migrate_one, fentry/migrate_folio_done,
                        fexit/alloc_migration_target, fexit/alloc_migration_target_by_mpol,
                        fexit/alloc_misplaced_dst_folio, fexit/compaction_alloc,
                        fexit/alloc_demote_folio, fexit/migrate_misplaced_folio_prepare,
                        fentry/mm_update_next_owner, fentry/collapse_huge_page,
                        fentry/pgtable_trans_huge_deposit, fexit/try_to_merge_one_page,
                        fentry/folio_add_new_anon_rmap, fexit/do_wp_page, fentry/do_wp_page,
                        fentry/hugetlb_add_new_anon_rmap, fentry/copy_user_large_folio,
                        fentry/folio_remove_rmap_ptes, fexit/try_to_unmap_one,
                        fentry/try_to_unmap_one, fentry/folio_add_anon_rmap_ptes,
                        fentry/folio_add_new_anon_rmap, fexit/do_swap_page, fentry/do_swap_page:
                        `bpf_raw_tracepoint_open` failed: Operation not permitted (os error 1)
                        loses: owners from the kernel itself (the tracepoint backend asks pagemap a moment
                               later); moves of page cache that nobody maps
                        do: boot with lockdown off, which most likely refuses them: Secure Boot off, no
                            lockdown= on the kernel's command line
        tracepoint      15 of 15 hooks attach                                                         ok
        BPF settings    kernel.unprivileged_bpf_disabled=2 (does not concern root); the ring counts   ok
                        against the cgroup's memory, not ulimit -l
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
        BTF             /sys/kernel/btf/vmlinux, 5.3 MiB; every needed structure member is in it      ok
        exact           not checked: without the privileges above the kernel takes no BPF programs    ?
        tracepoint      not checked: without the privileges above the kernel takes no BPF programs    ?
        BPF settings    kernel.unprivileged_bpf_disabled=2 (does not concern root); the ring counts   ok
                        against the cgroup's memory, not ulimit -l
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
        json(&health, &mut out).unwrap();
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

    #[test]
    fn long_sentences_wrap_at_spaces() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable a", 4), ["unbreakable", "a"]);
        assert!(wrap("", 4).is_empty());
    }
}
