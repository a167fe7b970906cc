//! Every reason for which the kernel itself moves pages: the reported moves must equal the truth.
//! Input: the workload `mover`, which makes the kernel move pages and reads its own pagemap.

use std::fs;

use anyhow::{Context, Result, ensure};
use tracer_tests_report::shape::Shape;

use crate::case::{Case, Env, Needs, Outcome};
use crate::cases::kinds::{Moving, Scenario, check};

/// Fewer moves than this prove little, if the kernel decides the number.
const ENOUGH: Moving = Moving::AtLeast(256);

/// With this number of MiB on node 0, at least 20 are in the block that goes offline. The rest of the node's movable
/// zone has room for 172, and is handed out first once the block has come online again (mm/page_alloc.c,
/// `__free_pages_core`, since 5.10). Other users leave room for all of it: the initramfs's files take 80 of the zone's
/// 300 if node 0's CPU unpacked them.
pub const MORE_THAN_ELSEWHERE: usize = 192;

const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };
pub const MOVABLE: Needs = Needs {
    shape: Shape::Movable,
    ..NEEDS
};
const TIERED: Needs = Needs {
    shape: Shape::Tiered,
    ..NEEDS
};

macro_rules! reasons {
    ($($name:ident: $what:literal, $needs:expr, $run:expr;)*) => {
        pub const CASES: &[Case] = &[
            $(
                Case {
                    name: concat!("reasons/", stringify!($name)),
                    what: $what,
                    needs: $needs,
                    run: |env| $run(env, "exact"),
                },
                Case {
                    name: concat!("reasons/", stringify!($name), "_tracepoint"),
                    what: concat!($what, ", tracepoint backend"),
                    needs: $needs,
                    run: |env| $run(env, "tracepoint"),
                },
            )*
        ];
    };
}

reasons! {
    soft_offline_thp: "a page of a huge page is retired: the huge page is split, then one page moves", NEEDS,
        |env, backend| check(env, &Scenario {
            pages: "thp", call: "soft_offline_middles", reason: "memory_failure", nodes: (0, 0),
            moving: Moving::Exactly(4), ..Scenario::BASE
        }, backend);
    cpuset: "a control group gets other nodes, and its processes' pages follow", NEEDS,
        |env, backend| check(env, &Scenario {
            call: "change_cpuset", actor: Some("kworker"), ..Scenario::BASE
        }, backend);
    damon: "DAMON's migrate_cold", NEEDS,
        |env, backend| check(env, &Scenario {
            call: "damon_migrate", reason: "damon", actor: Some("kdamond"), moving: ENOUGH,
            since: Some(("DAMON's migrate_cold came with 6.11", (6, 12))), ..Scenario::BASE
        }, backend);
    hot_remove: "a memory block is taken offline", MOVABLE,
        |env, backend| check(env, &Scenario {
            call: "offline", mib: MORE_THAN_ELSEWHERE, reason: "memory_hotplug", moving: ENOUGH, ..Scenario::BASE
        }, backend);
    longterm_pin: "pages that leave a movable zone to be pinned for long", MOVABLE,
        |env, backend| check(env, &Scenario {
            call: "pin_for_long", reason: "longterm_pin", nodes: (0, 0), ..Scenario::BASE
        }, backend);
    demotion: "reclaim demotes to a node without CPUs", TIERED, demotion;
    contig_range: "a gigabyte is emptied to become a page", TIERED,
        |env, backend| check(env, &Scenario {
            pages: "thp", call: "gigantic_page", mib: 2200, reason: "contig_range", order: |_| 9, nodes: (1, 1),
            moving: ENOUGH, ..Scenario::BASE
        }, backend);
}

fn demotion(env: &Env, backend: &str) -> Result<Outcome> {
    let tiers = fs::read_dir("/sys/devices/virtual/memory_tiering").context("list the memory tiers")?;
    let is_tier = |name: &str| {
        name.strip_prefix("memory_tier")
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    };
    let tiers = tiers.filter(|entry| {
        entry
            .as_ref()
            .is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_tier))
    });
    let tiers = tiers.count();
    if env.version() < (6, 12) {
        ensure!(tiers == 1, "{tiers} memory tiers, where this kernel should make one");
        return Ok(Outcome::NotApplicable(
            "before 6.7 the kernel puts every node into one memory tier, whatever the firmware's HMAT says".into(),
        ));
    }
    ensure!(tiers == 2, "{tiers} memory tiers, not two: the HMAT was not heard");
    let scenario = Scenario {
        call: "demote",
        mib: 32,
        reason: "demotion",
        moving: ENOUGH,
        ..Scenario::BASE
    };
    check(env, &scenario, backend)
}
