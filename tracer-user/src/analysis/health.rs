//! The diagnosis of a machine: what it allows, what is missing, what that costs and what to do about it.
//! Input: facts that were collected elsewhere; nothing here reads the machine.

mod checks;
mod facts;
mod finding;
#[cfg(test)]
pub(crate) mod made_up;
mod page;

use crate::run::backend::Backend;

pub use facts::{Btf, Caller, Facts, Hooks, OwnFrame, ProcFiles, Settings};
pub use finding::{Finding, Status};

/// The result of the checks.
#[derive(Clone, Debug)]
pub struct Health {
    /// Every check, in reading order.
    pub findings: Vec<Finding>,
    /// The backend that tracing would use; None if tracing is not possible.
    pub backend: Option<Backend>,
    /// The first remedies if there is no backend, from the checks that prevent tracing.
    pub remedies: Vec<String>,
}

/// Runs all checks.
#[must_use]
pub fn examine(facts: &Facts) -> Health {
    let usable: Vec<Backend> = Backend::ALL.into_iter().filter(|&b| facts.attaches(b)).collect();
    // These are checked before the hooks are tried: their remedies come first.
    let required = [
        checks::privileges(facts),
        checks::pid_namespace(facts.caller),
        checks::btf(facts),
        checks::numa(&facts.nodes),
    ];
    // A requirement that could not be checked prevents tracing as well.
    let in_the_way = |finding: &&Finding| {
        matches!(finding.status, Status::Missing | Status::Unknown)
            && (finding.name != checks::PRIVILEGES || !checks::may_trace(facts.caller))
    };
    let mut blockers: Vec<&Finding> = required.iter().filter(in_the_way).collect();
    let hooks = Backend::ALL.map(|backend| checks::hooks(facts, backend, &usable));
    if blockers.is_empty() && usable.is_empty() {
        // The tracepoint backend needs less: its remedy comes first.
        blockers.extend(hooks.iter().rev().filter(|finding| finding.remedy.is_some()).take(1));
    }
    let backend = usable.first().copied().filter(|_| blockers.is_empty());
    let mut remedies: Vec<String> = Vec::new();
    for remedy in blockers.iter().filter_map(|finding| finding.remedy.as_ref()) {
        if !remedies.contains(remedy) {
            remedies.push(remedy.clone());
        }
    }
    if backend.is_none() && remedies.is_empty() {
        remedies.push("see what the checks above lack".to_owned());
    }
    let [privileges, pid_namespace, btf, numa] = required;
    let mut findings = vec![
        checks::kernel(facts),
        privileges,
        pid_namespace,
        checks::lockdown(facts.lockdown),
        checks::configuration(facts),
        btf,
    ];
    findings.extend(hooks);
    findings.extend([
        checks::bpf_settings(facts),
        checks::confinement(facts.confinement),
        checks::pagemap(facts),
        checks::frame_files(&facts.proc.frame_files),
        checks::counters(&facts.proc.vmstat),
    ]);
    findings.extend(checks::hidepid(facts));
    findings.push(numa);
    findings.push(checks::balancing(facts));
    findings.push(checks::compaction(facts));
    findings.extend(checks::reclaim(&facts.settings));
    Health {
        findings,
        backend,
        remedies,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        made_up::{capabilities, config, fine, locked_down, tried, unprivileged},
        *,
    };
    use crate::kernel::{capabilities::Capability, release::Lockdown, vmstat::Vmstat};

    fn finding<'a>(health: &'a Health, name: &str) -> &'a Finding {
        let mut named = health.findings.iter().filter(|finding| finding.name == name);
        named.next().unwrap_or_else(|| panic!("no check named {name}"))
    }

    #[test]
    fn nothing_is_missing_on_a_good_machine() {
        let health = examine(&fine());
        assert_eq!(health.backend, Some(Backend::Exact));
        assert!(health.remedies.is_empty());
        for finding in &health.findings {
            assert_eq!(finding.status, Status::Ok, "{finding:?}");
            assert_eq!((&finding.loses, &finding.remedy), (&None, &None), "{finding:?}");
        }
    }

    #[test]
    fn lockdown_leaves_the_tracepoints() {
        let health = examine(&locked_down());
        assert_eq!(health.backend, Some(Backend::Tracepoint));
        let exact = finding(&health, "exact");
        assert_eq!(exact.status, Status::Missing);
        assert_eq!(exact.found.matches("Operation not permitted").count(), 1);
        assert!(
            exact
                .found
                .contains("fexit/move_to_new_folio, fentry/remove_migration_pte")
        );
        // Mainline's lockdown=integrity refuses no hook.
        let remedy = exact.remedy.as_deref().unwrap();
        assert!(
            remedy.contains("the cause is not known") && !remedy.contains("boot"),
            "{remedy}"
        );
        let confidential = Facts {
            lockdown: Lockdown::Confidentiality,
            ..locked_down()
        };
        let remedy = finding(&examine(&confidential), "exact").remedy.clone().unwrap();
        assert!(remedy.starts_with("boot without lockdown=confidentiality"), "{remedy}");
        assert_eq!(finding(&health, "tracepoint").status, Status::Ok);
    }

    #[test]
    fn options_that_hooks_need_are_named() {
        let facts = Facts {
            config: Some(config(&["BPF_JIT", "FUNCTION_TRACER", "KPROBES"])),
            ..fine()
        };
        let health = examine(&facts);
        let configuration = finding(&health, "configuration");
        assert_eq!(configuration.status, Status::Note);
        assert_eq!(
            configuration.found,
            "/boot/config-6.12.117+deb12-amd64: without CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, CONFIG_BPF_EVENTS"
        );
        assert_eq!(
            configuration.loses.as_deref(),
            Some("function hooks; kprobe/migrate_pages")
        );
        let unknown = Facts { config: None, ..fine() };
        assert_eq!(finding(&examine(&unknown), "configuration").status, Status::Unknown);
    }

    #[test]
    fn an_optional_hook_does_not_cost_the_backend() {
        let facts = Facts {
            hooks: tried(|hook| (hook.program == "unmapping").then_some(("unknown function", None))),
            ..fine()
        };
        let health = examine(&facts);
        assert_eq!(health.backend, Some(Backend::Exact));
        let exact = finding(&health, "exact");
        assert_eq!(exact.status, Status::Note);
        assert_eq!(exact.loses.as_deref(), Some("blackout times"));
        assert!(exact.found.ends_with("fentry/try_to_migrate_one: unknown function"));
    }

    #[test]
    fn an_ordinary_user_is_told_to_use_sudo() {
        let health = examine(&unprivileged());
        assert_eq!(health.backend, None);
        assert_eq!(health.remedies, ["run with sudo"]);
        assert_eq!(finding(&health, "privileges").status, Status::Missing);
        for name in ["exact", "tracepoint", "lockdown"] {
            let finding = finding(&health, name);
            assert_eq!(finding.status, Status::Unknown);
            assert!(finding.found.starts_with("not checked: "), "{finding:?}");
        }
    }

    #[test]
    fn a_container_is_no_place_to_trace_from() {
        let mut facts = fine();
        facts.caller.initial_pid_namespace = Some(false);
        let health = examine(&facts);
        assert_eq!(health.backend, None);
        assert!(health.remedies[0].contains("--pid=host"));

        let mut facts = fine();
        facts.caller.initial_user_namespace = Some(false);
        let health = examine(&facts);
        assert_eq!(health.backend, None);
        assert!(health.remedies[0].contains("rootless"));

        let mut facts = fine();
        facts.caller.seccomp = true;
        facts.hooks = Hooks::Refused("cannot load the BPF object: Operation not permitted (os error 1)".to_owned());
        let health = examine(&facts);
        assert_eq!(health.backend, None);
        assert!(health.remedies[0].contains("seccomp"), "{:?}", health.remedies);
    }

    #[test]
    fn without_btf_hooks_are_not_checked() {
        let facts = Facts {
            btf: Err("No such file or directory (os error 2)".to_owned()),
            hooks: Hooks::NotTried,
            ..fine()
        };
        let health = examine(&facts);
        assert_eq!(health.backend, None);
        assert!(health.remedies[0].contains("CONFIG_DEBUG_INFO_BTF"));
        assert_eq!(finding(&health, "exact").status, Status::Unknown);
    }

    #[test]
    fn capabilities_that_do_not_matter_are_not_asked_for() {
        let without = |lacking: &[Capability]| {
            let bits = lacking.iter().fold(u64::MAX, |bits, &c| bits & !(1 << (c as u8)));
            let mut facts = fine();
            facts.caller.capabilities = capabilities(bits);
            examine(&facts)
        };
        let idle = [
            Capability::SysResource,
            Capability::Syslog,
            Capability::Bpf,
            Capability::Perfmon,
            Capability::DacReadSearch,
        ];
        let health = without(&idle);
        assert_eq!(finding(&health, "privileges").status, Status::Ok);
        // A detail is lost, and tracing still works.
        let health = without(&[Capability::SysPtrace, Capability::SysResource]);
        let privileges = finding(&health, "privileges");
        assert_eq!(privileges.status, Status::Missing);
        assert_eq!(
            privileges.found,
            "root, without CAP_SYS_PTRACE (and CAP_SYS_RESOURCE, not needed)"
        );
        assert_eq!(health.backend, Some(Backend::Exact));
        let health = without(&[Capability::SysAdmin]);
        assert_eq!(health.backend, None);
        assert!(health.remedies[0].contains("--privileged"));
    }

    #[test]
    fn tracepoints_that_an_old_kernel_lacks() {
        let facts = Facts {
            release: "5.15.0-1051-azure".to_owned(),
            hooks: tried(|hook| (hook.loses.is_none()).then_some(("No such file or directory (os error 2)", Some(2)))),
            ..fine()
        };
        let health = examine(&facts);
        assert_eq!(health.backend, None);
        assert_eq!(finding(&health, "kernel").status, Status::Note);
        assert!(health.remedies[0].contains("older than 6.1"));
    }

    #[test]
    fn what_cannot_move_is_said() {
        let mut facts = fine();
        facts.proc.vmstat = Ok(Vmstat::parse(b"nr_free_pages 1\n"));
        facts.settings.numa_balancing = Some(0);
        let health = examine(&facts);
        assert!(finding(&health, "kernel counts").found.contains("CONFIG_MIGRATION"));
        assert!(finding(&health, "compaction").found.contains("CONFIG_COMPACTION"));
        assert_eq!(finding(&health, "balancing").status, Status::Note);
    }
}
