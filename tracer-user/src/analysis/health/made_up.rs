//! Facts about invented machines, for tests.
//! Input: none.

use super::*;
use crate::{
    confinement::Means,
    kernel::{
        capabilities::Capabilities,
        config::BuildConfig,
        hooks::{HOOKS, Hook},
        release::Lockdown,
        topology::Node,
        vmstat::Vmstat,
    },
    source::bpf::{attach::Refusal, trial::Tried},
    units::NodeId,
};

/// The capabilities of a status file with these bits.
pub(crate) fn capabilities(bits: u64) -> Option<Capabilities> {
    Capabilities::parse(format!("CapEff:\t{bits:016x}\n").as_bytes())
}

/// Every hook; `refuse` returns the reason for those that are refused.
pub(crate) fn tried(refuse: impl Fn(&Hook) -> Option<(&'static str, Option<i32>)>) -> Hooks {
    let tried = HOOKS.iter().map(|hook| Tried {
        hook,
        refusal: refuse(hook).map(|(reason, errno)| Refusal {
            hook,
            reason: reason.to_owned(),
            errno,
        }),
    });
    Hooks::Tried(tried.collect())
}

/// A kernel that was built with these options.
pub(crate) fn config(options: &[&str]) -> BuildConfig {
    let lines: Vec<String> = options.iter().map(|name| format!("CONFIG_{name}=y")).collect();
    BuildConfig::parse("/boot/config-6.12.117+deb12-amd64", lines.join("\n").as_bytes())
}

/// A machine with two nodes; the caller is root, and nothing is refused.
pub(crate) fn fine() -> Facts {
    Facts {
        release: "6.12.117+deb12-amd64".to_owned(),
        arch: "x86_64".to_owned(),
        page_size: 4096,
        paging_levels: Some(5),
        caller: Caller {
            uid: 0,
            capabilities: capabilities(u64::MAX),
            initial_user_namespace: Some(true),
            initial_pid_namespace: Some(true),
            seccomp: false,
        },
        lockdown: Lockdown::None,
        config: Some(config(&[
            "BPF_JIT",
            "FUNCTION_TRACER",
            "DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
            "KPROBES",
            "BPF_EVENTS",
        ])),
        btf: Ok(Btf {
            bytes: 5_516_713,
            offsets: Ok(()),
        }),
        hooks: tried(|_| None),
        memory_map: true,
        settings: Settings {
            unprivileged_bpf_disabled: Some(2),
            bpf_stats: Some(0),
            numa_balancing: Some(1),
            compaction_proactiveness: Some(20),
            zone_reclaim_mode: Some(0),
            huge_pages: Some("madvise".to_owned()),
            demotion: Some(false),
        },
        confinement: Means {
            paths: true,
            calls: true,
        },
        proc: ProcFiles {
            own_frame: OwnFrame::Visible,
            frame_files: vec![("kpageflags", Ok(())), ("kpagecount", Ok(())), ("kpagecgroup", Ok(()))],
            vmstat: Ok(Vmstat::parse(b"pgmigrate_success 1\ncompact_stall 0\n")),
            hidepid: None,
        },
        nodes: Ok((0..2)
            .map(|id| Node {
                id: NodeId(id),
                cpus: format!("{}-{}", id * 4, id * 4 + 3),
                bytes: 16 << 30,
            })
            .collect()),
    }
}

/// The same machine, locked down: function hooks are refused.
pub(crate) fn locked_down() -> Facts {
    let denied = "`bpf_raw_tracepoint_open` failed: Operation not permitted (os error 1)";
    Facts {
        lockdown: Lockdown::Integrity,
        hooks: tried(|hook| hook.label().starts_with('f').then_some((denied, Some(1)))),
        ..fine()
    }
}

/// The same machine, seen by an ordinary user.
pub(crate) fn unprivileged() -> Facts {
    let denied = || Err("Permission denied (os error 13)".to_owned());
    let fine = fine();
    Facts {
        caller: Caller {
            uid: 1000,
            capabilities: capabilities(0),
            ..fine.caller
        },
        lockdown: Lockdown::Unknown,
        hooks: Hooks::Refused("cannot load the BPF object: map error: Operation not permitted (os error 1)".to_owned()),
        proc: ProcFiles {
            own_frame: OwnFrame::Hidden,
            frame_files: vec![
                ("kpageflags", denied()),
                ("kpagecount", denied()),
                ("kpagecgroup", denied()),
            ],
            ..fine.proc
        },
        ..fine
    }
}
