//! Folios that could not be moved: each is reported once per call, with its owner, its address and the cause.
//! Input: the workload `mover`, which makes moves fail, records which, and reads its own pagemap.

mod busy;
mod expected;
mod full_node;
mod pinned;

use anyhow::{Result, bail, ensure};

use self::expected::{ensure_failed, traced};
use crate::case::{Case, Env, Needs, Outcome};

const NEEDS: Needs = Needs { nodes: 2, ..Needs::VM };
/// Other processes may return memory at just the wrong moment.
const HAD_ROOM: &str = "the node had room";

pub const CASES: &[Case] = &[
    Case {
        name: "failure/pinned",
        what: "pages that a pipe holds: each is reported once, with its references",
        needs: NEEDS,
        run: |env| pinned::held(env, "base", 1, false),
    },
    Case {
        name: "failure/pinned_shared",
        what: "the same pages, which a forked child maps too: both owners are reported",
        needs: NEEDS,
        run: |env| pinned::held(env, "fork_shared", 2, false),
    },
    Case {
        name: "failure/pinned_one_of_six",
        what: "the same pages, which six processes map; only the last is requested and reported",
        needs: NEEDS,
        run: |env| pinned::held(env, "shared_by_six", 6, true),
    },
    Case {
        name: "failure/pinned_hugetlb",
        what: "a hugetlb page that a pipe holds, of which a move allows one reference",
        needs: NEEDS,
        run: |env| pinned::hugetlb(env, "hugetlb", 1),
    },
    Case {
        name: "failure/pinned_hugetlb_shared",
        what: "the same for a file: the page cache holds one reference, since 6.7 one for each base page",
        needs: NEEDS,
        run: |env| pinned::hugetlb(env, "hugetlb_shared", if env.version() < (6, 7) { 2 } else { 513 }),
    },
    Case {
        name: "failure/registered",
        what: "base pages of a registered buffer, pinned as for RDMA: each stays, and is reported as pinned with its references",
        needs: NEEDS,
        run: |env| pinned::registered(env, "base", Some((1 + 1024 + 1, 2))),
    },
    Case {
        name: "failure/registered_thp",
        what: "the same with huge pages",
        needs: NEEDS,
        run: |env| pinned::registered(env, "thp", None),
    },
    Case {
        name: "failure/registered_file",
        what: "the same with pages of a file that six processes map",
        needs: NEEDS,
        run: |env| pinned::registered(env, "file_shared", Some((1 + 1 + 1024, 2))),
    },
    Case {
        name: "failure/pinned_thp_address",
        what: "two huge pages are pinned: the one with --address in its middle is reported",
        needs: NEEDS,
        run: pinned::thp_address,
    },
    Case {
        name: "failure/full_node",
        what: "the target has no free page: exactly the pages that did not move are reported",
        needs: NEEDS,
        run: full_node::base,
    },
    Case {
        name: "failure/full_node_shared",
        what: "the same with pages that a forked child maps too; only the child is traced, and found among the owners",
        needs: NEEDS,
        run: full_node::shared,
    },
    Case {
        name: "failure/full_node_hugetlb",
        what: "the target has no free huge page: a hugetlb page that was not even unmapped is found by its reverse mapping",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, HAD_ROOM, || full_node::hugetlb(env, "hugetlb")),
    },
    Case {
        name: "failure/full_node_hugetlb_shared",
        what: "the same of a file",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, HAD_ROOM, || full_node::hugetlb(env, "hugetlb_shared")),
    },
    Case {
        name: "failure/full_node_thp",
        what: "huge pages are split for a full node: the remaining pages have no target, or were not tried",
        needs: NEEDS,
        run: |env| Outcome::of_tries(3, "no huge page was split and left", || full_node::thp(env)),
    },
    Case {
        name: "failure/refused_hint_fault",
        what: "NUMA balancing wants pages on a full node, and refuses to move them",
        needs: NEEDS,
        run: full_node::hint_fault,
    },
    Case {
        name: "failure/refused_by_file",
        what: "pages of a file that refuses to move them: the error is reported",
        needs: NEEDS,
        run: refused_by_file,
    },
    Case {
        name: "failure/writeback",
        what: "page cache that is being written to a slow disk: each page is reported as under writeback",
        needs: NEEDS,
        run: busy::writeback,
    },
    Case {
        name: "failure/locked",
        what: "page cache that waits for its content: compaction leaves it, and it is reported as locked",
        needs: NEEDS,
        run: busy::locked,
    },
    Case {
        name: "failure/still_mapped",
        what: "a hugetlb page of a file while its VMA is locked: each call that could not unmap it is reported with that cause",
        needs: NEEDS,
        run: |env| busy::still_mapped(env, "alone"),
    },
    Case {
        name: "failure/still_mapped_shared",
        what: "the same if another process maps it, too",
        needs: NEEDS,
        run: |env| busy::still_mapped(env, "shared"),
    },
];

fn refused_by_file(env: &Env) -> Result<Outcome> {
    let (pid, truth, trace) = traced(env, &["secret", "mbind_refused", "1"], false)?;
    let [(_, report)] = &truth.0[..] else {
        bail!("one process was expected")
    };
    ensure!(report.moves.len() == 0 && trace.moves.is_empty(), "moved: {report:?}");
    trace.ensure_exact_books()?;
    for failure in ensure_failed(&trace, pid, report)? {
        // `secretmem_migrate_folio`, mm/secretmem.c, returns EBUSY: once among other folios, and since 6.3 once more
        // alone (`migrate_pages_sync`).
        let attempts = if env.version() < (6, 3) { 1 } else { 2 };
        ensure!(
            failure.cause == "error" && !failure.inferred && (failure.errno, failure.attempts) == (Some(16), attempts),
            "cause: {failure:?}"
        );
        ensure!(failure.reason == "mempolicy_mbind", "reason: {failure:?}");
    }
    Ok(Outcome::Passed)
}
