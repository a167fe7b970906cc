//! Frames that change without migrate_pages: each change is reported with its frames and its owner, and no other.
//! Input: workloads that cause the changes and read their own pagemap, against `tracer --json --kinds`.

mod collapse;
mod copy;
mod exact;
mod filters;
mod ksm;
mod swap;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use self::collapse::collapse;
use self::copy::{cow_file, cow_fork, cow_zero};
use self::filters::filters;
use self::ksm::{ksm, ksm_forked, ksm_shared, ksm_shared_tracepoint};
use self::swap::{swap, swap_slot_reused};
use crate::case::{Case, Env, Needs, Outcome};
use crate::workloads;

pub const CASES: &[Case] = &[
    Case {
        name: "outside/madv_collapse",
        what: "MADV_COLLAPSE of base pages with gaps: each page that had a frame goes to its place in the huge page",
        needs: Needs::VM,
        run: |env| collapse(env, "madvise", 9),
    },
    Case {
        name: "outside/khugepaged",
        what: "the same by khugepaged",
        needs: Needs::VM,
        run: |env| collapse(env, "khugepaged", 9),
    },
    Case {
        name: "outside/khugepaged_mthp",
        what: "khugepaged makes folios of 64 KiB of them",
        needs: Needs::VM,
        run: |env| collapse(env, "khugepaged", 4),
    },
    Case {
        name: "outside/cow_fork",
        what: "pages shared by fork, written by the parent and by the child: the copying process's page moves, the other's does not",
        needs: Needs::VM,
        run: |env| cow_fork(env, "fork", workloads::copy::PAGES, 0),
    },
    Case {
        name: "outside/cow_thp",
        what: "the same with huge pages, which are split to be copied page by page",
        needs: Needs::VM,
        run: |env| cow_fork(env, "thp", workloads::copy::THPS << 9, 0),
    },
    Case {
        name: "outside/cow_hugetlb",
        what: "the same with hugetlb pages",
        needs: Needs::VM,
        run: |env| cow_fork(env, "hugetlb", workloads::copy::HUGE_PAGES << 9, 9),
    },
    Case {
        name: "outside/cow_zero",
        what: "pages that were only read are written to: they go from the zero page's frame to their own",
        needs: Needs::VM,
        run: cow_zero,
    },
    Case {
        name: "outside/cow_file",
        what: "pages of a privately mapped file are written to: those that had been read leave the file's frames",
        needs: Needs::VM,
        run: cow_file,
    },
    Case {
        name: "outside/ksm",
        what: "KSM: merged, written to, moved to another node while merged, unmerged",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: ksm,
    },
    Case {
        name: "outside/ksm_shared",
        what: "KSM pages of two processes: moved, a line for each mapping of both; written to and unmerged by one of them",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: ksm_shared,
    },
    Case {
        name: "outside/ksm_shared_tracepoint",
        what: "the same pages moved, with the tracepoint backend",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: ksm_shared_tracepoint,
    },
    Case {
        name: "outside/ksm_forked",
        what: "KSM pages that a child inherited, moved: a line for each mapping of both",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| ksm_forked(env, "exact"),
    },
    Case {
        name: "outside/ksm_forked_tracepoint",
        what: "the same with the tracepoint backend",
        needs: Needs { nodes: 2, ..Needs::VM },
        run: |env| ksm_forked(env, "tracepoint"),
    },
    Case {
        name: "outside/swap",
        what: "pages that go to swap and come back: each leaves its frame, and comes back from it to another",
        needs: Needs::VM,
        run: |env| swap(env, "base"),
    },
    Case {
        name: "outside/swap_mthp",
        what: "the same with folios of each order between base pages and huge pages",
        needs: Needs::VM,
        run: |env| swap(env, "mthp"),
    },
    Case {
        name: "outside/swap_thp",
        what: "the same with huge pages",
        needs: Needs::VM,
        run: |env| swap(env, "thp"),
    },
    Case {
        name: "outside/swap_slot_reused",
        what: "pages of a process that is not requested reuse swap slots meanwhile: a page comes back from the frame that it had",
        needs: Needs::VM,
        run: swap_slot_reused,
    },
    Case {
        name: "outside/filters",
        what: "each filter with moves, copies and collapses: events that pass are shown, the others are counted",
        needs: Needs {
            nodes: 2,
            // The kernel verifies the programs six times, under software emulation.
            timeout: Duration::from_mins(10),
            ..Needs::VM
        },
        run: |env| Outcome::of_tries(5, "the kernel compacted memory meanwhile", || filters(env)),
    },
    Case {
        name: "outside/hooks",
        what: "a run without --kinds attaches no hook for page faults, unmapping and moves; with all kinds, all attach",
        needs: Needs::VM,
        run: hooks,
    },
    Case {
        name: "outside/refused",
        what: "the tracepoint backend refuses kinds that it cannot see, and accepts move",
        needs: Needs::VM,
        run: refused,
    },
];

fn hooks(env: &Env) -> Result<Outcome> {
    let attached = |args: &[&str]| -> Result<BTreeSet<String>> {
        let mut command = std::process::Command::new(&env.tracer);
        let output = command
            .args(["-v", "-a", "-d", "0.1", "--backend", "exact"])
            .args(args)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success() && !said.contains("cannot attach"),
            "{}: {said}",
            output.status
        );
        let labels = said.lines().filter_map(|line| line.strip_prefix("tracer: attached "));
        Ok(labels.map(str::to_owned).collect())
    };
    let costly = ["rmap", "do_wp_page", "do_swap_page", "try_to_unmap_one", "try_to_merge"];
    let is_costly = |label: &&String| costly.iter().any(|part| label.contains(part));
    let default = attached(&[])?;
    ensure!(default.contains("fentry/collapse_huge_page"), "{default:?}");
    ensure!(!default.iter().any(|label| is_costly(&label)), "{default:?}");
    let all = attached(&["--kinds", "move,collapse,ksm,cow,swap"])?;
    for part in costly {
        ensure!(all.iter().any(|label| label.contains(part)), "no {part}: {all:?}");
    }
    let moves = attached(&["--kinds", "move"])?;
    ensure!(
        moves.is_subset(&default) && !moves.contains("fentry/collapse_huge_page"),
        "{moves:?}"
    );
    Ok(Outcome::Passed)
}

fn refused(env: &Env) -> Result<Outcome> {
    let run = |kinds: &str| {
        std::process::Command::new(&env.tracer)
            .args(["-a", "-d", "0.1", "--backend", "tracepoint", "--kinds", kinds])
            .output()
    };
    let outcome = run("move,collapse")?;
    let said = String::from_utf8_lossy(&outcome.stderr);
    ensure!(outcome.status.code() == Some(2), "{}: {said}", outcome.status);
    ensure!(said.contains("--kinds move"), "what to do is not said: {said}");
    let outcome = run("move")?;
    ensure!(outcome.status.success(), "{}", outcome.status);
    Ok(Outcome::Passed)
}
