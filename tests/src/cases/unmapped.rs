//! Page cache that nobody maps: each page that moves is reported by file and place, and counted in the books.
//! Input: the workload `cached`, which looks up where its file's pages are, against `tracer --json`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::reasons::{MORE_THAN_ELSEWHERE, MOVABLE};
use crate::case::{Case, Env, Outcome};
use crate::tracer::trace::{Trace, Tracing};
use crate::truth::{Move, Report};
use crate::worker::Worker;

const SOON: Duration = Duration::from_mins(1);

pub const CASES: &[Case] = &[
    Case {
        name: "unmapped/page_cache",
        what: "page cache that nobody maps moves: each page is reported by file and offset, and the books agree to the page",
        needs: MOVABLE,
        run: |env| page_cache(env, "exact"),
    },
    Case {
        name: "unmapped/page_cache_tracepoint",
        what: "the same with the tracepoint backend, which has these pages only in the books",
        needs: MOVABLE,
        run: |env| page_cache(env, "tracepoint"),
    },
];

/// The file's pages are some of the unmapped pages. The books must have the number of all unmapped pages.
fn page_cache(env: &Env, backend: &str) -> Result<Outcome> {
    let path = env.scratch.join("file");
    let mut worker = Worker::spawn("cached", &[&MORE_THAN_ELSEWHERE.to_string(), &path.to_string_lossy()])?;
    worker.wait_ready(SOON)?;
    let metadata = fs::metadata(&path).context("look at the file")?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let place = (format!("{major:02x}:{minor:02x}"), metadata.ino());
    let tracing = Tracing::start(&env.tracer, &["-a", "--backend", backend])?;
    let answer = worker.request("move", SOON)?;
    let trace = tracing.finish()?;
    worker.exit(SOON)?;
    let (unmapped, report) = answer.split_once(' ').context("two answers")?;
    let unmapped: u64 = unmapped.parse().context("how many pages")?;
    let truth = Report::parse(report)?;
    let moved = truth.moves.len();
    println!(
        "{moved} pages of the file and {unmapped} of anybody moved; {:?}",
        trace.summary.books
    );
    ensure!(moved > 1000, "{moved} pages of the file moved: nothing is proven");
    ensure!(unmapped >= moved as u64, "{moved} pages of the file, {unmapped} in all");
    let books = &trace.summary.books;
    if backend == "exact" {
        trace.ensure_exact_books()?;
        let pages: u64 = trace.unmapped.iter().map(|line| line.pages).sum();
        ensure!(
            books.unmapped_pages == unmapped && pages == unmapped,
            "{unmapped} unmapped pages moved, {pages} reported: {books:?}"
        );
        ensure_same_file(&trace, &place, &truth)
    } else {
        trace.ensure_sound()?;
        ensure!(trace.unmapped.is_empty(), "invented: {:?}", trace.unmapped.first());
        let unseen = books.imbalance.context("the kernel does not count")?;
        ensure!(
            unseen.cast_unsigned() >= unmapped,
            "{unmapped} unmapped pages moved: {books:?}"
        );
        Ok(Outcome::Passed)
    }
}

/// Checks that the reported moves of the file are those that happened.
fn ensure_same_file(trace: &Trace, (dev, inode): &(String, u64), truth: &Report) -> Result<Outcome> {
    let page = rustix::param::page_size() as u64;
    let mut seen = BTreeMap::new();
    for line in &trace.unmapped {
        let Some(file) = line
            .file
            .as_ref()
            .filter(|file| (&file.dev, &file.inode) == (dev, inode))
        else {
            continue;
        };
        ensure!(file.name.as_deref() == Some("file"), "name: {line:?}");
        ensure!(line.reason == "memory_hotplug", "reason: {line:?}");
        let (Some(old), Some(new)) = (line.old_pfn, line.new_pfn) else {
            bail!("no frame: {line:?}")
        };
        for at in 0..line.pages {
            let moved = Move {
                old: old.0 + at,
                new: new.0 + at,
            };
            let twice = seen.insert(file.offset + at * page, moved).is_some();
            ensure!(!twice, "moved twice: {line:?}");
        }
    }
    let differ = |(offset, moved): &(&u64, &Move)| truth.moves.0.get(offset) != Some(moved);
    let invented: Vec<_> = seen.iter().filter(differ).take(5).collect();
    ensure!(
        invented.is_empty() && seen.len() == truth.moves.len(),
        "{} of {} pages, invented {invented:x?}",
        seen.len(),
        truth.moves.len()
    );
    Ok(Outcome::Passed)
}
