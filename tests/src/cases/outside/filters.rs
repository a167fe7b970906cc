//! Filters for frames that change without migrate_pages: events that pass are shown, the others are counted.
//! Input: two workloads whose pages change in several ways, against one `tracer --json` for each filter, all at once.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use crate::case::Env;
use crate::cases::filters::steps::Changing;
use crate::machine::memory::HUGE;
use crate::machine::provoke::Knob;
use crate::tracer::lines::MoveLine;
use crate::tracer::trace::{Trace, Tracing};

/// The actions on all pages, and the reason with which each must be reported.
const STEPS: [(&str, &str); 3] = [
    ("move_pages", "syscall_or_cpuset"),
    ("copy", "cow"),
    ("collapse", "collapse"),
];

/// A page that got another frame: its owner, address, old and new frame, and the reason.
type Change = (Option<u32>, u64, Option<u64>, Option<u64>, String);

/// Whether the page at an address of a line passes.
type Passes = Box<dyn Fn(&MoveLine, u64) -> bool>;

struct Filter {
    option: &'static str,
    value: String,
    passes: Passes,
}

impl Filter {
    fn new(option: &'static str, value: &str, passes: impl Fn(&MoveLine, u64) -> bool + 'static) -> Self {
        Self {
            option,
            value: value.to_owned(),
            passes: Box::new(passes),
        }
    }

    /// Outside migrate_pages, a filter by actor drops an event before it is known whether a page moves.
    fn counts(&self) -> bool {
        self.option != "--actor"
    }
}

fn each(part: Range<u64>) -> Vec<Filter> {
    let range = format!("{:x}-{:x}", part.start, part.end);
    let reasons = ["syscall_or_cpuset", "collapse"];
    vec![
        Filter::new("--address", &range, move |_, vaddr| part.contains(&vaddr)),
        // Copies come back, because they are made on the writer's node.
        Filter::new("--nodes", "1:0", |line, _| {
            (line.old_node, line.new_node) == (Some(1), Some(0))
        }),
        Filter::new("--min-order", "2M", |line, _| line.order >= 9),
        Filter::new("--reason", &reasons.join(","), move |line, _| {
            reasons.contains(&line.reason.as_str())
        }),
        Filter::new("--actor", "wanted-*", |line, _| {
            let name = line.actor_comm.as_deref().unwrap_or_default();
            name.starts_with("wanted-")
        }),
    ]
}

/// Whether no other process moved pages meanwhile. Fails if an event is wrong.
pub fn filters(env: &Env) -> Result<bool> {
    let khugepaged = "/sys/kernel/mm/transparent_hugepage/khugepaged";
    let _asleep = Knob::set(format!("{khugepaged}/scan_sleep_millisecs"), "1000000")?;
    let mut processes = ["wanted-a", "other-b"]
        .map(|name| Changing::start_with(&[name, "collapsible"]))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let pids: Vec<String> = processes.iter().map(|each| each.pid.to_string()).collect();
    let pids = pids.join(",");
    let start = |args: &[&str]| {
        let all = ["-p", &pids, "--backend", "exact", "--kinds", "move,collapse,cow"];
        Tracing::start(&env.tracer, &[&all, args].concat())
    };
    // The range is a whole huge page of the first process: a run that is collapsed passes whole if one of its pages
    // does.
    let first = processes[0].range()?.start;
    let filters = each(first..first + HUGE as u64);
    let all = start(&[])?;
    let filtered = filters
        .iter()
        .map(|filter| start(&[filter.option, &filter.value]))
        .collect::<Result<Vec<_>>>()?;
    let mut truth: Vec<Change> = Vec::new();
    for process in &mut processes {
        for (call, reason) in STEPS {
            let step = process.step(call, 1, true)?;
            let moves = step.report.moves.0.into_iter();
            truth.extend(moves.map(|(vaddr, moved)| {
                (
                    Some(step.pid),
                    vaddr,
                    Some(moved.old),
                    Some(moved.new),
                    reason.to_owned(),
                )
            }));
        }
    }
    truth.sort_unstable();
    let all = all.finish()?;
    let filtered = filtered.into_iter().map(Tracing::finish).collect::<Result<Vec<_>>>()?;
    all.ensure_exact_books()?;
    // A process copies other pages of its own too, and so does its child.
    let ranges = processes
        .iter_mut()
        .map(|process| Ok((process.pid, process.range()?.range())))
        .collect::<Result<Vec<_>>>()?;
    let seen = changes(&all, |line, vaddr| {
        ranges
            .iter()
            .any(|(pid, range)| line.pid == Some(*pid) && range.contains(&vaddr))
    });
    for process in processes {
        process.exit()?;
    }
    println!("{} pages changed, tracer reported {}", truth.len(), seen.len());
    // The steps need huge pages, for which the kernel may begin to compact memory at any time.
    let lines = filtered.iter().chain([&all]).flat_map(|trace| &trace.moves);
    let daemons = lines.filter(|line| line.reason == "compaction").count();
    if daemons > 0 {
        println!("{daemons} lines of compaction");
        return Ok(false);
    }
    ensure!(seen == truth, "without a filter: {}", difference(&truth, &seen));
    for (filter, trace) in filters.iter().zip(&filtered) {
        ensure_filtered(filter, &all, trace).with_context(|| format!("{} {}", filter.option, filter.value))?;
    }
    Ok(true)
}

/// Checks that the filtered run shows the events that pass, and counts the others.
fn ensure_filtered(filter: &Filter, all: &Trace, trace: &Trace) -> Result<()> {
    trace.ensure_exact_books()?;
    let wanted = changes(all, &filter.passes);
    let shown = changes(trace, |_, _| true);
    ensure!(shown == wanted, "{}", difference(&wanted, &shown));
    let outside = |line: &MoveLine, _| ["cow", "collapse"].contains(&line.reason.as_str());
    let (of_all, of_shown) = (changes(all, outside).len(), changes(trace, outside).len());
    let left_out = if filter.counts() { of_all - of_shown } else { 0 };
    println!("{}: {of_shown} of {of_all} outside migrate_pages", filter.option);
    ensure!(of_shown < of_all && !wanted.is_empty(), "nothing is proven");
    let counted = trace.summary.books.outside_filtered_pages;
    ensure!(counted == left_out as u64, "{counted} counted, {left_out} left out");
    Ok(())
}

/// The changes of the lines, page by page, in order.
fn changes(trace: &Trace, chosen: impl Fn(&MoveLine, u64) -> bool) -> Vec<Change> {
    let page = rustix::param::page_size() as u64;
    let mut changes: Vec<Change> = trace
        .moves
        .iter()
        .flat_map(|line| (0..line.pages).map(move |at| (line, at)))
        .filter(|(line, at)| chosen(line, line.vaddr.0 + at * page))
        .map(|(line, at)| {
            let [old, new] = [line.old_pfn, line.new_pfn].map(|pfn| pfn.map(|pfn| pfn.0 + at));
            (line.pid, line.vaddr.0 + at * page, old, new, line.reason.clone())
        })
        .collect();
    changes.sort_unstable();
    changes
}

/// The numbers of changes that only one side has, with an example of each.
fn difference(expected: &[Change], seen: &[Change]) -> String {
    let without = |some: &[Change], others: &[Change]| -> Vec<Change> {
        let lacking = some.iter().filter(|change| others.binary_search(change).is_err());
        lacking.cloned().collect()
    };
    let (missed, invented) = (without(expected, seen), without(seen, expected));
    format!(
        "missed {} ({:x?}), invented {} ({:x?})",
        missed.len(),
        missed.first(),
        invented.len(),
        invented.first()
    )
}
