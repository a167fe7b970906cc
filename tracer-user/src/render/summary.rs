//! What a run comes to: totals, losses, conservation, verdicts, cost.
//! Input: the summary of a run; output: lines of text.

use std::fmt::{self, Write as _};

use crate::{
    escape::Printable,
    kernel::hooks::Kinds,
    render::{
        books as words, histogram,
        quantity::{Bytes, Count, Duration},
        rows::{self, failure},
    },
    run::{
        backend::{Backend, BackendName},
        books::{Books, Unasked},
        header::{Header, MissingHook},
        intervals::SoFar,
        summary::Summary,
        totals::{Durations, NodePair, Totals},
    },
    units::{Nanos, PAGE_SIZE},
};

/// What a person can do who wants to see something.
const HINT: &str = "to provoke moves, ask for compaction:  echo 1 | sudo tee /proc/sys/vm/compact_memory";

/// The closing page of a run. `header` is None where nothing began; with `hints` it says what to do when nothing moved.
#[must_use]
pub fn text(header: Option<&Header>, summary: &Summary, hints: bool) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, header, summary, hints);
    out
}

/// `exact (fentry)`: how events are captured.
#[must_use]
pub fn backend(name: &BackendName) -> String {
    match name {
        BackendName::Known(Backend::Exact) => "exact (fentry)".to_owned(),
        BackendName::Known(Backend::Tracepoint) => "tracepoint (owners by pagemap)".to_owned(),
        BackendName::Other(name) => Printable(name).to_string(),
    }
}

/// `2 nodes`
#[must_use]
pub fn nodes(nodes: usize) -> String {
    match nodes {
        1 => "1 node".to_owned(),
        n => format!("{n} nodes"),
    }
}

/// What events come to, where they are some of a run, or with `so_far` where it is not known how their run ended.
#[must_use]
pub fn sums(header: &Header, totals: &Totals, so_far: Option<&SoFar>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_sums(&mut out, header, totals, so_far);
    out
}

fn write_sums(out: &mut String, header: &Header, totals: &Totals, so_far: Option<&SoFar>) -> fmt::Result {
    moved(out, totals)?;
    writeln!(out, " moved")?;
    mapped(out, totals)?;
    tables(out, totals, &Books::default())?;
    writeln!(out)?;
    if let Some(books) = so_far.filter(|books| books.totals.closed > 0) {
        writeln!(
            out,
            "books     until {} after the begin the kernel counted {}, tracer saw {}; how it ended is not known",
            Duration(books.until.since(header.begun)),
            Count(books.kernel),
            Count(books.moved)
        )?;
    }
    pagemap(out, totals)?;
    how(out, header)
}

fn write(out: &mut String, header: Option<&Header>, summary: &Summary, hints: bool) -> fmt::Result {
    let totals = &summary.totals;
    let lost = &summary.books.lost;
    moved(out, totals)?;
    writeln!(
        out,
        " moved in {} · {} lost",
        Duration(summary.duration),
        Count(lost.events()),
    )?;
    mapped(out, totals)?;
    losses(out, &summary.books)?;
    if totals.pages == 0 && hints {
        writeln!(out, "{HINT}")?;
    }
    tables(out, totals, &summary.books)?;
    writeln!(out)?;
    if header.is_none_or(|header| header.kinds.known().any_of(Kinds::MOVE)) {
        books(out, &summary.books)?;
    } else {
        writeln!(out, "books     none: moves through migrate_pages were not asked for")?;
    }
    unasked(out, &summary.books.unasked)?;
    pagemap(out, totals)?;
    if let Some(header) = header {
        how(out, header)?;
    }
    writeln!(
        out,
        "cost      start {} · tracing {} ({} of one CPU) · {} of memory at most",
        Duration(summary.startup_cpu),
        Duration(summary.cpu),
        percent(summary.cpu, summary.duration),
        Bytes(summary.max_rss),
    )
}

fn moved(out: &mut String, totals: &Totals) -> fmt::Result {
    match totals.pages {
        0 => write!(out, "no page"),
        1 => write!(out, "{} in 1 page", Bytes(PAGE_SIZE)),
        pages => write!(
            out,
            "{} in {} pages",
            Bytes(pages.saturating_mul(PAGE_SIZE)),
            Count(pages)
        ),
    }
}

/// How the pages that moved are mapped; nothing where each has one mapping.
fn mapped(out: &mut String, totals: &Totals) -> fmt::Result {
    let mapped = totals.pages.saturating_sub(totals.unmapped);
    if totals.unmapped == 0 && totals.mappings == mapped {
        return Ok(());
    }
    let pages = |pages| match pages {
        1 => "1 page".to_owned(),
        pages => format!("{} pages", Count(pages)),
    };
    let mappings = match totals.mappings {
        1 => "1 mapping".to_owned(),
        mappings => format!("{} mappings", Count(mappings)),
    };
    let parts = [
        (mapped > 0 || totals.mappings > 0).then(|| format!("{} with {mappings}", pages(mapped))),
        (totals.unmapped > 0).then(|| format!("{} that no process maps", pages(totals.unmapped))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    writeln!(out, "of these  {}", parts.join(" · "))
}

/// Moves by reason and node pair, their blackouts, failures, compaction.
fn tables(out: &mut String, totals: &Totals, books: &Books) -> fmt::Result {
    if !totals.by_reason.is_empty() {
        reasons(out, totals)?;
    }
    let mut blackouts = Durations::default();
    for sums in totals.by_reason.values() {
        blackouts.merge(&sums.blackout);
    }
    histogram::write(out, "BLACKOUT", "EVENTS", &blackouts)?;
    failures(out, totals)?;
    compaction(out, totals, books)
}

/// What pagemap said.
fn pagemap(out: &mut String, totals: &Totals) -> fmt::Result {
    if !totals.verdicts.is_empty() {
        let verdicts: Vec<String> = totals
            .verdicts
            .iter()
            .map(|(verdict, &mappings)| format!("{} {}", Count(mappings), verdict.words()))
            .collect();
        writeln!(out, "pagemap   {}", verdicts.join(" · "))?;
    }
    if totals.ambiguous > 0 {
        writeln!(
            out,
            "          {} with one of several possible old frames",
            Count(totals.ambiguous)
        )?;
    }
    Ok(())
}

/// How the run was made, and what could not be had.
fn how(out: &mut String, header: &Header) -> fmt::Result {
    writeln!(
        out,
        "how       {}, Linux {}, {}, {}",
        backend(&header.backend),
        Printable(&header.kernel),
        nodes(header.nodes),
        Printable(&header.targets)
    )?;
    // Only exact has a backend after it to fall back on.
    for fallback in &header.fallbacks {
        writeln!(out, "          {} refused: {}", Backend::Exact, Printable(fallback))?;
    }
    for MissingHook { hook, reason, loses } in &header.refused {
        let [hook, reason, loses] = [hook, reason, loses].map(|text| Printable(text));
        writeln!(out, "          {hook} refused: {reason}; missing: {loses}")?;
    }
    Ok(())
}

/// Every place that lost something, with how much; nothing where nothing was lost.
fn losses(out: &mut String, books: &Books) -> fmt::Result {
    let lost = &books.lost;
    let full = lost
        .mappings_by_cpu
        .iter()
        .fold(0, |sum: u64, n| sum.saturating_add(*n));
    if full > 0 {
        let by_cpu: Vec<String> = (0..)
            .zip(&lost.mappings_by_cpu)
            .filter(|(_, n)| **n > 0)
            .map(|(cpu, &n): (u32, _)| format!("{} on CPU {cpu}", Count(n)))
            .collect();
        writeln!(
            out,
            "LOST      {} move events with {} pages: the ring was full ({})",
            Count(full),
            Count(lost.mapping_pages),
            by_cpu.join(", ")
        )?;
    }
    let mut line = |n: u64, what: &str| {
        if n > 0 {
            writeln!(out, "LOST      {} {what}", Count(n))
        } else {
            Ok(())
        }
    };
    line(
        lost.processes,
        "process events: the ring was full; names and children may be wrong",
    )?;
    line(lost.folios, "moves of folios without a mapping: the ring was full")?;
    line(
        lost.failures,
        "failures to move a folio: the ring was full, or a call's list was not seen",
    )?;
    line(lost.cut_failures, "calls with more failures than are told of")?;
    line(lost.compactions, "runs of compaction: the ring was full")?;
    line(
        lost.calls,
        "calls of migrate_pages, collapses or faults not told of: no room, an end not seen, or frames not certain",
    )?;
    line(lost.undecoded, "records that could not be decoded")?;
    line(lost.targets, "children that there was no room to follow")?;
    line(
        lost.unsearched_pages,
        "pages whose owner nobody looked for: tracer had fallen behind",
    )?;
    line(
        lost.missed_runs.events,
        "runs of a BPF program that the kernel skipped: events may be missing",
    )?;
    line(
        lost.missed_runs.details,
        "runs of a BPF program that the kernel skipped: a blackout, name, cause or line of the books may be missing",
    )
}

fn reasons(out: &mut String, totals: &Totals) -> fmt::Result {
    let mut pairs: Vec<NodePair> = totals
        .by_reason
        .values()
        .flat_map(|sums| sums.by_nodes.keys().copied())
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    let name = |(old, new): &NodePair| {
        let node = |id: &Option<_>| id.map_or_else(|| "?".to_owned(), |id: crate::units::NodeId| id.to_string());
        format!("{}->{}", node(old), node(new))
    };
    write!(
        out,
        "\n{:<18} {:>11} {:>10} {:>11}",
        "REASON", "PAGES", "SIZE", "MAPPINGS"
    )?;
    for pair in &pairs {
        write!(out, " {:>11}", name(pair))?;
    }
    writeln!(out, " {:>13} {:>8} {:>8}", "BLACKOUT p50", "p99", "max")?;
    for (reason, sums) in &totals.by_reason {
        write!(
            out,
            "{:<18} {:>11} {:>10} {:>11}",
            rows::reason(reason),
            Count(sums.pages).to_string(),
            Bytes(sums.pages.saturating_mul(PAGE_SIZE)).to_string(),
            Count(sums.mappings).to_string()
        )?;
        for pair in &pairs {
            let pages = sums
                .by_nodes
                .get(pair)
                .map_or_else(|| "-".to_owned(), |&pages| Count(pages).to_string());
            write!(out, " {pages:>11}")?;
        }
        let quantile = |q| {
            sums.blackout
                .quantile(q)
                .map_or_else(|| "-".to_owned(), |nanos| Duration(nanos).to_string())
        };
        writeln!(out, " {:>13} {:>8} {:>8}", quantile(0.5), quantile(0.99), quantile(1.0))?;
    }
    Ok(())
}

/// What could not be moved; nothing where everything could.
fn failures(out: &mut String, totals: &Totals) -> fmt::Result {
    if totals.failures.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<18} {:>11} {:>10} {:>11}  CAUSE",
        "NOT MOVED", "FOLIOS", "SIZE", "ATTEMPTS"
    )?;
    for ((reason, cause), sums) in &totals.failures {
        writeln!(
            out,
            "{:<18} {:>11} {:>10} {:>11}  {}",
            rows::reason(reason),
            Count(sums.folios).to_string(),
            Bytes(sums.pages.saturating_mul(PAGE_SIZE)).to_string(),
            Count(sums.attempts).to_string(),
            failure::words(*cause, reason)
        )?;
    }
    Ok(())
}

/// What compaction did; nothing where there was none.
fn compaction(out: &mut String, totals: &Totals, books: &Books) -> fmt::Result {
    let sums = &totals.compaction;
    if sums.runs == 0 && books.compaction_deferred == 0 {
        return Ok(());
    }
    write!(
        out,
        "\ncompaction {} over a zone in {}: {} pages moved, {} not",
        match sums.runs {
            1 => "1 run".to_owned(),
            runs => format!("{} runs", Count(runs)),
        },
        Duration(sums.time),
        Count(sums.moved),
        Count(sums.failed)
    )?;
    if books.compaction_deferred > 0 {
        write!(out, " · put off {} times", Count(books.compaction_deferred))?;
    }
    writeln!(out)?;
    if let (Some(median), Some(longest)) = (sums.direct.quantile(0.5), sums.direct.max()) {
        writeln!(
            out,
            "          {} of them direct, allocations waited {}: {} p50, {} max",
            Count(sums.direct.len()),
            Duration(sums.direct_time),
            Duration(median),
            Duration(longest)
        )?;
    }
    Ok(())
}

fn books(out: &mut String, books: &Books) -> fmt::Result {
    let whole = &books.whole;
    let kernel = whole
        .kernel
        .map_or_else(|| "nothing (no pgmigrate_success)".to_owned(), |n| Count(n).to_string());
    writeln!(
        out,
        "books     the kernel counted {kernel}, tracer saw {}",
        Count(whole.moved)
    )?;
    let mut part = |n: u64, what: &str| {
        if n > 0 {
            writeln!(out, "          {} {what}", Count(n))
        } else {
            Ok(())
        }
    };
    if [books.filtered, books.unowned, books.unmapped] != [0; 3] {
        part(books.reported, "asked for")?;
    }
    part(books.filtered, "not asked for")?;
    part(books.unowned, "of a process that was being forked or torn down")?;
    part(
        books.unmapped,
        "of nobody (page cache without a mapping, a driver's, or unmapped meanwhile)",
    )?;
    part(
        whole.released,
        "counted by the kernel, but freed before they moved, or a driver's (zram, balloon)",
    )?;
    part(whole.unseen, "in calls that had begun before tracing")?;
    let without_owner = books.lost.unattributed;
    part(
        without_owner.unnamed,
        "without an owner: of a process that was being forked or torn down",
    )?;
    part(
        without_owner.unsearched,
        "without an owner: tracer had fallen behind, and nobody looked for one",
    )?;
    part(
        without_owner.not_found,
        "found in no traced process: another's, or gone before pagemap could be asked",
    )?;
    part(
        books.lost.not_asked_pages,
        "not checked against pagemap: tracer had fallen behind",
    )?;
    part(books.lost.unpaired, "mappings restored whose start was not seen")?;
    match whole.imbalance() {
        Some(missing) if missing > 0 && whole.blind_to_unmapped => writeln!(
            out,
            "          {} not visible to the tracepoint backend: no mapping, or freed before they moved",
            Count(missing.unsigned_abs())
        )?,
        Some(missing) if missing != 0 && !whole.settled => writeln!(
            out,
            "          {missing:+} while the counts were read: pages moved all the time"
        )?,
        _ => {}
    }
    let intervals = &books.intervals;
    if intervals.closed > 0 && intervals.unbalanced == 0 && !whole.blind_to_unmapped {
        writeln!(
            out,
            "          balanced in each of {} intervals",
            Count(intervals.closed)
        )?;
    }
    for complaint in words::complaints(whole) {
        writeln!(out, "WARNING   the books do not balance: {complaint}")?;
    }
    if let Some(unbalanced) = words::unbalanced(intervals, whole.begin) {
        writeln!(out, "WARNING   {unbalanced}")?;
    }
    Ok(())
}

/// What was filtered out and is no move of a mapped page; nothing where nothing was.
fn unasked(out: &mut String, unasked: &Unasked) -> fmt::Result {
    let mut label = "filtered";
    for (pages, what) in [
        (unasked.unmapped, "that nobody maps"),
        (unasked.failed, "that could not be moved"),
        (unasked.refused, "that NUMA balancing refused to move"),
        (unasked.outside, "that moved outside migrate_pages"),
    ] {
        if pages > 0 {
            writeln!(out, "{label:<9} {} pages {what}", Count(pages))?;
            label = "";
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn percent(part: Nanos, whole: Nanos) -> String {
    format!("{:.1} %", part.0 as f64 * 100.0 / (whole.0.max(1)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        made_up::{header, summary},
        run::{account::Account, books::Lost, intervals::IntervalTotals},
    };

    fn page(header: &Header, summary: &Summary) -> String {
        let text = text(Some(header), summary, true);
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    fn exact() -> Header {
        Header {
            nodes: 1,
            backend: Backend::Exact.into(),
            fallbacks: Vec::new(),
            refused: Vec::new(),
            ..header()
        }
    }

    #[test]
    fn everything_lost_with_tracepoints() {
        insta::assert_snapshot!("tracepoint_losses", page(&header(), &summary()));
    }

    #[test]
    fn books_that_do_not_balance() {
        let mut summary = summary();
        summary.books.whole.blind_to_unmapped = false;
        summary.books.lost = Lost::default();
        summary.books.intervals.unbalanced = 2;
        summary.books.intervals.worst = Some(Account {
            begin: Nanos(7_500_000_000),
            ..summary.books.whole.clone()
        });
        insta::assert_snapshot!("exact_imbalance", page(&exact(), &summary));
        // Both errors cancel out, except in the calls.
        summary.books.whole.kernel = Some(903);
        summary.books.whole.checks.clear();
        summary.books.intervals = IntervalTotals::default();
        insta::assert_snapshot!("exact_unbalanced_calls", page(&exact(), &summary));
    }

    #[test]
    fn nothing_moved() {
        let summary = Summary {
            totals: Totals::default(),
            books: Books {
                whole: Account {
                    kernel: Some(0),
                    ..Account::default()
                },
                ..Books::default()
            },
            ..summary()
        };
        insta::assert_snapshot!("nothing_moved", page(&exact(), &summary));
    }
}
