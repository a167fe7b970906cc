//! `tracer pages` compared with the kernel's own sums, and with a workload that knows its own memory.
//! Input: `tracer pages --json`, /proc/PID/{smaps,numa_maps,stat}.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::case::{Case, Env, Needs, Outcome, Site};
use crate::machine::provoke::Knob;
use crate::tracer::invocation::{ensure_harmless, program_with, public_copy, run, tracer};
use crate::worker::Worker;
use crate::workloads::states::Made;

const ROOT: Needs = Needs {
    root: true,
    ..Needs::NOTHING
};

pub const CASES: &[Case] = &[
    Case {
        name: "pages/states",
        what: "every state of memory is reported under its name, and no other",
        needs: ROOT,
        run: states,
    },
    Case {
        name: "pages/states_hugetlb",
        what: "the same with pages of hugetlb",
        needs: Needs { site: Site::Vm, ..ROOT },
        run: states_hugetlb,
    },
    Case {
        name: "pages/smaps",
        what: "sizes by mapping, swap, huge pages and nodes equal smaps and numa_maps to the page",
        needs: ROOT,
        run: smaps,
    },
    Case {
        name: "pages/untouched",
        what: "a look at a process faults nothing in: its RSS and its page faults do not change",
        needs: ROOT,
        run: untouched,
    },
    Case {
        name: "pages/hidden",
        what: "without privileges, sizes and states are shown, and frames and nodes are reported as hidden",
        needs: ROOT,
        run: hidden,
    },
    Case {
        name: "pages/refused",
        what: "processes without pages and invalid requests are refused in one message",
        needs: ROOT,
        run: refused,
    },
    Case {
        name: "pages/frames",
        what: "the frames of the machine include those of a process, with the same flags",
        needs: ROOT,
        run: frames,
    },
];

const READY: Duration = Duration::from_mins(1);

/// A workload with memory in every state, and its list of that memory.
fn start() -> Result<(Worker, Vec<Made>)> {
    let mut worker = Worker::spawn("states", &[])?;
    worker.wait_ready(READY)?;
    let line = worker.read_line(READY)?;
    Ok((worker, serde_json::from_str(&line).context("what was made")?))
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Pages(PagesLine),
    Vma(VmaLine),
    Process(Counts),
    Summary {},
    Frames(FramesLine),
}

#[derive(Debug, Deserialize)]
struct Vma {
    start: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as the line has them")]
struct PagesLine {
    vaddr: String,
    pages: u64,
    state: String,
    pfn: Option<String>,
    hidden: bool,
    node: Option<u32>,
    order: Option<u8>,
    exclusive: bool,
    file: bool,
    uffd_wp: bool,
    flags: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct VmaLine {
    vma: Vma,
    pages: u64,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Deserialize)]
struct Counts {
    states: BTreeMap<String, u64>,
    /// By the number of the node, as JSON has it.
    nodes: BTreeMap<String, u64>,
    mappings: BTreeMap<String, u64>,
    hidden_pages: u64,
    file_pages: u64,
}

#[derive(Debug, Deserialize)]
struct FramesLine {
    pfn: String,
    pages: u64,
    flags: Vec<String>,
}

fn lines(env: &Env, args: &[&str]) -> Result<Vec<Line>> {
    let ended = run(tracer(env, &[&["pages", "--json"], args].concat()))?;
    ended.ensure_code(0)?;
    parse(&ended.stdout)
}

fn parse(text: &str) -> Result<Vec<Line>> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

fn number(hex: &str) -> Result<u64> {
    let digits = hex.strip_prefix("0x").context("a hexadecimal number")?;
    Ok(u64::from_str_radix(digits, 16)?)
}

fn states(env: &Env) -> Result<Outcome> {
    let (worker, made) = start()?;
    let pid = worker.pid().to_string();
    for made in &made {
        check(env, &pid, made).with_context(|| format!("{made:?}"))?;
    }
    worker.exit(READY)?;
    Ok(Outcome::Passed)
}

fn states_hugetlb(env: &Env) -> Result<Outcome> {
    let _reserved = Knob::set("/proc/sys/vm/nr_hugepages", "4")?;
    let (worker, made) = start()?;
    let pid = worker.pid().to_string();
    let Some(made) = made.iter().find(|made| made.name == "hugetlb") else {
        bail!("no page of hugetlb could be had");
    };
    check(env, &pid, made).with_context(|| format!("{made:?}"))?;
    worker.exit(READY)?;
    Ok(Outcome::Passed)
}

/// Checks that everything that was made is reported, and nothing else.
fn check(env: &Env, pid: &str, made: &Made) -> Result<()> {
    let range = format!("{:x}-{:x}", made.start, made.end);
    let all = lines(env, &["-p", pid, "--each", "--address", &range])?;
    let mut covered = 0;
    for line in &all {
        let Line::Pages(run) = line else { continue };
        let at = number(&run.vaddr)?;
        ensure!(
            made.start <= at && at + run.pages * 4096 <= made.end,
            "elsewhere: {run:?}"
        );
        ensure!(Some(&run.state) == made.state.as_ref(), "another state: {run:?}");
        ensure!(made.order.is_none() || run.order == made.order, "another size: {run:?}");
        for flag in &made.flags {
            let set = match flag.as_str() {
                "exclusive" => run.exclusive,
                "file" => run.file,
                "uffd_wp" => run.uffd_wp,
                flag => run.flags.iter().flatten().any(|set| set == flag),
            };
            ensure!(set, "without {flag}: {run:?}");
        }
        if run.state == "present" {
            ensure!(run.pfn.is_some() && run.node.is_some() && !run.hidden, "{run:?}");
        }
        covered += run.pages;
    }
    let expected = if made.state.is_some() {
        (made.end - made.start) / 4096
    } else {
        0
    };
    ensure!(covered == expected, "{covered} pages instead of {expected}");
    // The same pages by a filter: a state that is not requested is not shown.
    if let Some(state) = &made.state {
        let other = if state == "guard" { "migrating" } else { "guard" };
        for (asked, expected) in [(state.as_str(), expected), (other, 0)] {
            let lines = lines(env, &["-p", pid, "--address", &range, "--state", asked])?;
            let found = lines.iter().find_map(|line| match line {
                Line::Process(counts) => Some(counts.states.values().sum::<u64>()),
                _ => None,
            });
            ensure!(found == Some(expected), "--state {asked}: {found:?}");
        }
    }
    Ok(())
}

/// The kernel's sums for a mapping.
#[derive(Debug, Default)]
struct Smap {
    rss: u64,
    swap: u64,
    huge: u64,
}

/// `Rss`, `Swap` and the huge pages of each mapping, pages, by its begin (fs/proc/task_mmu.c, `__show_smap`).
fn read_smaps(pid: u32) -> Result<BTreeMap<u64, Smap>> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).context("read smaps")?;
    let mut all: BTreeMap<u64, Smap> = BTreeMap::new();
    let mut current = 0;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((start, _)) = first.split_once('-') {
            current = u64::from_str_radix(start, 16)?;
            all.insert(current, Smap::default());
            continue;
        }
        let pages = words.next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 4;
        let smap = all.entry(current).or_default();
        match first {
            "Rss:" | "Shared_Hugetlb:" | "Private_Hugetlb:" => smap.rss += pages,
            "Swap:" => smap.swap = pages,
            "AnonHugePages:" | "ShmemPmdMapped:" | "FilePmdMapped:" => smap.huge += pages,
            _ => {}
        }
    }
    Ok(all)
}

/// Pages by node of each mapping, by its begin (fs/proc/task_mmu.c, `show_numa_map`); `None` on a kernel without NUMA.
fn read_numa_maps(pid: u32) -> Option<BTreeMap<u64, BTreeMap<String, u64>>> {
    let text = fs::read_to_string(format!("/proc/{pid}/numa_maps")).ok()?;
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let start = u64::from_str_radix(words.next()?, 16).ok()?;
        let words: Vec<&str> = words.collect();
        let kib = words.iter().find_map(|word| word.strip_prefix("kernelpagesize_kB="));
        let scale = kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(4) / 4;
        let nodes = words.iter().filter_map(|word| {
            let (node, pages) = word.strip_prefix('N')?.split_once('=')?;
            Some((node.to_owned(), pages.parse::<u64>().ok()? * scale))
        });
        all.insert(start, nodes.collect());
    }
    Some(all)
}

fn smaps(env: &Env) -> Result<Outcome> {
    let (worker, _) = start()?;
    let pid = worker.pid();
    let lines = lines(env, &["-p", &pid.to_string()])?;
    let (smaps, numa) = (read_smaps(pid)?, read_numa_maps(pid));
    // Only a walk shows whether one entry maps a huge page.
    let walks = env.version() >= (6, 7);
    let mut seen = 0;
    for line in &lines {
        let Line::Vma(line) = line else { continue };
        let VmaLine { vma, pages, counts } = line;
        let start = number(&vma.start)?;
        let Some(smap) = smaps.get(&start) else {
            ensure!(vma.name == "[vsyscall]", "not in smaps: {line:?}");
            continue;
        };
        seen += 1;
        let state = |name: &str| counts.states.get(name).copied().unwrap_or(0);
        let present = state("present");
        ensure!(present == smap.rss, "present {present}, Rss {}: {line:?}", smap.rss);
        // Shared memory in swap is not in page tables.
        if counts.file_pages == 0 {
            ensure!(state("swapped") == smap.swap, "Swap {}: {line:?}", smap.swap);
        }
        ensure!(present <= *pages, "{line:?}");
        ensure!(counts.hidden_pages == 0, "{line:?}");
        let entry = counts.mappings.get("entry").copied().unwrap_or(0);
        if walks && !vma.name.contains("hugepage") {
            ensure!(entry == smap.huge, "huge pages {}: {line:?}", smap.huge);
        }
        if let Some(numa) = &numa
            && let Some(nodes) = numa.get(&start)
            // numa_maps leaves out the kernel's own pages.
            && vma.name != "[vdso]"
        {
            ensure!(*nodes == counts.nodes, "numa_maps {nodes:?}: {line:?}");
        }
    }
    ensure!(
        seen == smaps.len() || seen + 1 == smaps.len(),
        "{seen} of {} mappings",
        smaps.len()
    );
    worker.exit(READY)?;
    Ok(Outcome::Passed)
}

/// Minor and major faults, and the resident pages of a process (fs/proc/array.c, `do_task_stat`: fields 10, 12, 24).
fn faults(pid: u32) -> Result<[u64; 3]> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("read stat")?;
    let (_, behind) = text.rsplit_once(')').context("a name")?;
    let fields: Vec<&str> = behind.split_ascii_whitespace().collect();
    let field = |number: usize| -> Result<u64> { Ok(fields.get(number - 3).context("a field")?.parse()?) };
    Ok([field(10)?, field(12)?, field(24)?])
}

fn untouched(env: &Env) -> Result<Outcome> {
    let (worker, made) = start()?;
    let pid = worker.pid();
    let before = faults(pid)?;
    let text = pid.to_string();
    for args in [
        &["pages", "-p", &text][..],
        &["pages", "-p", &text, "--each", "--json"],
        &["pages", "-p", &text, "--map"],
    ] {
        let ended = run(tracer(env, args))?;
        ended.ensure_code(0)?;
        ensure_harmless(&ended.stdout)?;
        ensure!(
            ended.stdout.contains("states") || ended.stdout.contains("tracer-tests"),
            "{ended:?}"
        );
    }
    let after = faults(pid)?;
    ensure!(before == after, "faults and resident pages: {before:?}, then {after:?}");
    let hole = made.iter().find(|made| made.name == "hole").context("a hole")?;
    check(env, &text, hole)?;
    worker.exit(READY)?;
    Ok(Outcome::Passed)
}

fn hidden(env: &Env) -> Result<Outcome> {
    let program = public_copy(env, &env.tracer)?;
    // This process belongs to the same user.
    let mut other = program_with("/bin/sh".as_ref(), &["-c", "read line"]);
    other.stdin(std::process::Stdio::piped()).uid(65534).gid(65534);
    let mut other = match other.spawn() {
        Ok(other) => other,
        Err(error) => return Ok(Outcome::NotApplicable(format!("no shell here: {error}"))),
    };
    let pid = other.id().to_string();
    let result = (|| {
        let tracer = |args: &[&str]| {
            let mut command = program_with(&program, args);
            command.uid(65534).gid(65534);
            run(command)
        };
        let ended = tracer(&["pages", "-p", &pid, "--json", "--each"])?;
        ended.ensure_code(0)?;
        let mut present = 0;
        for line in parse(&ended.stdout)? {
            match line {
                Line::Pages(run) => {
                    ensure!(
                        run.pfn.is_none() && run.node.is_none() && run.flags.is_none(),
                        "{run:?}"
                    );
                    ensure!(run.state != "present" || run.hidden, "{run:?}");
                    present += if run.state == "present" { run.pages } else { 0 };
                }
                Line::Process(counts) => {
                    ensure!(counts.states.get("present") == Some(&present), "{counts:?}");
                    ensure!(counts.hidden_pages == present && counts.nodes.is_empty(), "{counts:?}");
                }
                Line::Vma(_) | Line::Summary {} | Line::Frames(_) => {}
            }
        }
        ensure!(present > 0, "nothing is present");
        let text = tracer(&["pages", "-p", &pid])?;
        text.ensure_code(0)?;
        ensure!(
            text.stdout.contains("hidden") && text.stdout.contains("sudo"),
            "{text:?}"
        );
        tracer(&["pages", "-p", "1"])?.ensure_refused(&["process 1", "sudo"])?;
        tracer(&["pages", "--all-memory"])?.ensure_refused(&["kpageflags", "sudo"])
    })();
    drop(other.stdin.take());
    other.wait()?;
    result?;
    Ok(Outcome::Passed)
}

fn refused(env: &Env) -> Result<Outcome> {
    let pages = |args: &[&str]| run(tracer(env, &[&["pages"], args].concat()));
    pages(&["-p", "4194303"])?.ensure_refused(&["no process 4194303"])?;
    pages(&["-p", "2"])?.ensure_refused(&["kernel thread"])?;
    pages(&[])?.ensure_refused(&["no process is given", "-a"])?;
    pages(&["-p", "1", "--flags", "dirtier"])?.ensure_refused(&["dirtier", "--flags-help"])?;
    pages(&["-p", "1", "--state", "gone"])?.ensure_refused(&["--state", "migrating"])?;
    pages(&["-p", "1", "--node", "4000"])?.ensure_refused(&["no node 4000"])?;
    pages(&["--comm", "nobody-has-this"])?.ensure_refused(&["no process fits"])?;
    let help = pages(&["--flags-help"])?;
    help.ensure_code(0)?;
    ensure!(
        help.stdout.contains("pgtable") && help.stdout.contains("soft_dirty"),
        "{help:?}"
    );
    Ok(Outcome::Passed)
}

fn frames(env: &Env) -> Result<Outcome> {
    let (worker, made) = start()?;
    let present = made.iter().find(|made| made.name == "present").context("memory")?;
    let range = format!("{:x}-{:x}", present.start, present.end);
    let mut looked = 0;
    for line in lines(env, &["-p", &worker.pid().to_string(), "--each", "--address", &range])? {
        let Line::Pages(PagesLine {
            pfn: Some(pfn),
            pages,
            flags: Some(flags),
            ..
        }) = line
        else {
            continue;
        };
        let pfn = number(&pfn)?;
        let frames = lines(env, &["--pfn", &format!("{pfn:x}-{:x}", pfn + pages), "--each"])?;
        let mut found = 0;
        for line in frames {
            let Line::Frames(frames) = line else { continue };
            ensure!(number(&frames.pfn)? == pfn + found, "{frames:?}");
            // Reclaim may look at a page at any time.
            let settled = |flags: &[String]| {
                let unsettled = ["referenced", "active", "lru", "idle"];
                flags
                    .iter()
                    .filter(|flag| !unsettled.contains(&flag.as_str()))
                    .cloned()
                    .collect::<Vec<_>>()
            };
            ensure!(settled(&frames.flags) == settled(&flags), "{frames:?}, {flags:?}");
            found += frames.pages;
        }
        ensure!(found == pages, "{found} of {pages} frames");
        looked += found;
    }
    ensure!(looked == (present.end - present.start) / 4096, "{looked} frames");
    let all = run(tracer(env, &["pages", "--all-memory"]))?;
    all.ensure_code(0)?;
    ensure!(all.stdout.contains("buddy"), "nothing is free: {}", all.stdout);
    worker.exit(READY)?;
    Ok(Outcome::Passed)
}
