//! A run's page for people: what moved, what was lost, the books, how it was made, what it cost.
//! Input: the sums of a run, its header and its summary.

use super::sums;
use crate::{
    analysis::{books, missing, outside, question::Occasion},
    cells,
    kernel::hooks::Kinds,
    run::{
        backend::Backend,
        books::Books,
        header::{Header, MissingHook},
        intervals::SoFar,
        kept::{Kept, Unfinished},
        summary::Summary,
        totals::Totals,
    },
    section::{Cell, Note, Section, joined},
    units::{Nanos, PAGE_SIZE},
};

/// A command that makes pages move.
const HINT: &str = "to provoke moves, request compaction:  echo 1 | sudo tee /proc/sys/vm/compact_memory";

/// Words for things that can be lost: one, and several.
const MOVES: [&str; 2] = ["move", "moves"];
const CALLS: [&str; 2] = ["call", "calls"];
const RUNS: [&str; 2] = ["run", "runs"];

/// The page of a run that ended.
pub(super) fn closing(header: &Header, totals: &Totals, summary: &Summary, occasion: Occasion) -> Vec<Section> {
    let kept = &summary.kept;
    let period = kept.part.as_ref().and_then(|part| part.period);
    let whole = &summary.books.whole;
    let time = period.map_or(summary.duration, |(from, until)| until.since(from));
    let lost = missing::lost(summary.lost_events(), summary.books.lost.is_estimate(), &kept.damaged);
    let is_lossy = summary.lost_events() > 0 || kept.damaged.unknown > 0;
    let none = || match kept.part {
        Some(_) => none_in_part(is_lossy),
        None => none_moved(whole.kernel.unwrap_or(whole.moved), is_lossy),
    };
    let mut notes = vec![Note::plain(head(totals, Some(time), none, lost))];
    notes.extend(self::kept(kept, Some(summary.duration), true, occasion));
    notes.extend(mapped(totals));
    notes.extend(losses(&summary.books));
    if totals.pages == 0 && occasion == (Occasion::Closing { hints: true }) {
        notes.push(Note::plain(cells![HINT]));
    }
    let mut sections = vec![Section::notes(notes)];
    sections.extend(sums::sections(totals, summary.books.compaction_deferred));
    let compaction = &totals.compaction;
    // Allocations may have waited for passes that were lost.
    if compaction.runs > 0 && compaction.direct.is_empty() && summary.books.lost.compactions == 0 {
        let none = Note::more(cells!["no allocation waited for compaction"]);
        sections.push(Section::notes(vec![none]));
    }
    let mut notes = if header.kinds.known().any_of(Kinds::MOVE) {
        books::notes(&summary.books)
    } else {
        let none = "none: moves through migrate_pages were not requested";
        let none = Note::about("books", cells![none]);
        [none].into_iter().chain(books::outside(&summary.books)).collect()
    };
    notes.extend(books::filtered(&summary.books.unasked));
    notes.extend(outside::hints(&summary.books.machine_outside, header));
    notes.extend(pagemap(totals));
    notes.extend(how(header));
    notes.push(Note::about(
        "cost",
        cells![
            "start ",
            summary.startup_cpu,
            " · tracing ",
            summary.cpu,
            " (",
            Cell::Share(summary.cpu.0, summary.duration.0),
            " of one CPU) · ",
            Cell::Bytes(summary.max_rss),
            " of memory at most"
        ],
    ));
    sections.push(Section::notes(notes).apart());
    sections
}

/// The page of a run that is not shown to its end, with its books as far as they go.
pub(super) fn sums(header: &Header, unfinished: &Unfinished, so_far: &SoFar, occasion: Occasion) -> Vec<Section> {
    let Unfinished {
        totals,
        kept,
        duration,
        selected,
        ..
    } = unfinished;
    let lost = unfinished.lost_events();
    let is_lossy = lost > 0 || kept.damaged.unknown > 0;
    let none = || match (selected, &kept.part) {
        (true, _) if is_lossy => ("no matching page seen that moved", Vec::new()),
        (true, _) => ("no matching page moved", Vec::new()),
        (false, Some(_)) => none_in_part(is_lossy),
        (false, None) => none_moved(so_far.kernel, is_lossy),
    };
    // The intervals do not tell calls from events.
    let lost = missing::lost(lost, unfinished.lost > 0, &kept.damaged);
    let mut notes = vec![Note::plain(head(totals, None, none, lost))];
    notes.extend(self::kept(kept, *duration, false, occasion));
    notes.extend(mapped(totals));
    let mut sections = vec![Section::notes(notes)];
    sections.extend(sums::sections(totals, 0));
    let mut notes = Vec::new();
    if so_far.totals.closed > 0 && !selected {
        let whole = kept.part.as_ref().is_none_or(|part| matches!(part.files[..], [(0, _)]));
        notes.push(books::so_far(so_far, header.begun, whole));
    }
    notes.extend(pagemap(totals));
    notes.extend(how(header));
    sections.push(Section::notes(notes).apart());
    sections
}

fn pages(pages: u64) -> Cell {
    Cell::Counted(pages, "page", "pages")
}

/// How much moved in how much time, and how much was lost. `none` has the text for no moves, and its explanation.
fn head(
    totals: &Totals,
    time: Option<Nanos>,
    none: impl FnOnce() -> (&'static str, Vec<Cell>),
    lost: Vec<Cell>,
) -> Vec<Cell> {
    let (mut head, about) = match totals.pages {
        0 => {
            let (words, about) = none();
            (cells![words], about)
        }
        count => {
            let bytes = Cell::Bytes(count.saturating_mul(PAGE_SIZE));
            (cells![bytes, " in ", pages(count), " moved"], Vec::new())
        }
    };
    head.extend(time.map(|time| cells![" in ", time]).into_iter().flatten());
    head.extend(about);
    head.push(" · ".into());
    head.extend(lost);
    head
}

/// The text for no moves in some files of a rotation. The kernel's count is that of the whole run.
fn none_in_part(is_lossy: bool) -> (&'static str, Vec<Cell>) {
    let words = if is_lossy {
        "no page seen that moved in this part"
    } else {
        "no page moved in this part"
    };
    (words, Vec::new())
}

/// The text for no moves, with the number of pages that the kernel counted nevertheless. If events are or may be lost,
/// pages of theirs may have moved.
fn none_moved(kernel: u64, is_lossy: bool) -> (&'static str, Vec<Cell>) {
    match kernel {
        0 if is_lossy => ("no page seen that moved", Vec::new()),
        0 => ("no page moved", Vec::new()),
        count if is_lossy => ("no page seen that moved", cells![" (the kernel counted ", count, ")"]),
        count => {
            let others = Cell::Counted(count, "other", "others");
            ("no traced page moved", cells![" (the kernel counted ", others, ")"])
        }
    }
}

/// The part of a recorded run that was read, if it is incomplete. Reports state beforehand what is missing. With `books`
/// the page has those of the run.
fn kept(kept: &Kept, duration: Option<Nanos>, books: bool, occasion: Occasion) -> Vec<Note> {
    let part = kept.part.as_ref().map(|part| missing::here(part, duration, books));
    let missing = missing::missing(&kept.damaged).filter(|_| occasion != Occasion::Report);
    let part = part.map(|words| Note::about("HERE", words));
    part.into_iter()
        .chain(missing.map(|words| Note::alarm("LOST", words)))
        .collect()
}

/// How the pages that moved are mapped; None if each has one mapping.
fn mapped(totals: &Totals) -> Option<Note> {
    let mapped = totals.pages.saturating_sub(totals.unmapped);
    if totals.unmapped == 0 && totals.mappings == mapped {
        return None;
    }
    let mappings = Cell::Counted(totals.mappings, "mapping", "mappings");
    let parts = [
        (mapped > 0 || totals.mappings > 0).then(|| cells![pages(mapped), " with ", mappings]),
        (totals.unmapped > 0).then(|| cells![pages(totals.unmapped), " that no process maps"]),
    ];
    Some(Note::about("of these", joined(parts.into_iter().flatten(), " · ")))
}

/// Every loss by its place, with its size; empty if nothing was lost.
fn losses(books: &Books) -> Vec<Note> {
    let lost = &books.lost;
    let sum = |sum: u64, n: &u64| sum.saturating_add(*n);
    let full = lost.mappings_by_cpu.iter().fold(0, sum);
    let mut notes = Vec::new();
    if full > 0 {
        let by_cpu = (0..).zip(&lost.mappings_by_cpu).filter(|(_, n)| **n > 0);
        let by_cpu = by_cpu.map(|(cpu, n)| cells![*n, " on CPU ", Cell::Number(cpu)]);
        let mut words = cells![
            Cell::Counted(full, "move event", "move events"),
            " with ",
            pages(lost.mapping_pages),
            ": the ring was full ("
        ];
        words.extend(joined(by_cpu, ", "));
        words.push(")".into());
        notes.push(Note::alarm("LOST", words));
    }
    let places = [
        (
            lost.processes,
            ["process event", "process events"],
            ": the ring was full; names and children may be wrong",
        ),
        (lost.folios, MOVES, " of folios without a mapping: the ring was full"),
        (
            lost.failures,
            ["failure", "failures"],
            " to move a folio: the ring was full, or a call's list was not seen",
        ),
        (lost.cut_failures, CALLS, " with more failures than are reported"),
        (
            lost.compactions,
            ["pass", "passes"],
            " of compaction: the ring was full",
        ),
        (
            lost.calls,
            CALLS,
            " of migrate_pages, collapses or faults not reported: no room, an end not seen, or frames not certain",
        ),
        (lost.undecoded, ["record", "records"], " that could not be decoded"),
        (lost.targets, ["child", "children"], " that there was no room to follow"),
        (
            lost.unsearched_pages,
            ["page", "pages"],
            " whose owner nobody looked for: tracer had fallen behind",
        ),
        (
            lost.missed_runs.events,
            RUNS,
            " of a BPF program that the kernel skipped: events may be missing",
        ),
        (
            lost.missed_runs.details,
            RUNS,
            " of a BPF program that the kernel skipped: a blackout, name, cause or line of the books may be missing",
        ),
    ];
    for (lost, [one, many], what) in places.into_iter().filter(|(lost, ..)| *lost > 0) {
        notes.push(Note::alarm("LOST", cells![Cell::Counted(lost, one, many), what]));
    }
    notes
}

/// The sums of pagemap's verdicts.
fn pagemap(totals: &Totals) -> Vec<Note> {
    let mut notes = Vec::new();
    if !totals.verdicts.is_empty() {
        let verdicts = totals.verdicts.iter();
        let verdicts = verdicts.map(|(verdict, mappings)| cells![*mappings, " ", Cell::Verdict(*verdict)]);
        notes.push(Note::about("pagemap", joined(verdicts, " · ")));
    }
    if totals.ambiguous > 0 {
        let words = cells![totals.ambiguous, " with one of several possible old frames"];
        notes.push(Note::more(words));
    }
    notes
}

/// The number of nodes: `2 nodes`.
#[must_use]
pub fn nodes(header: &Header) -> Cell {
    Cell::Counted(header.nodes as u64, "node", "nodes")
}

/// How the run was made, and what the kernel refused.
fn how(header: &Header) -> Vec<Note> {
    let made = cells![
        Cell::Backend(header.backend.clone()),
        ", Linux ",
        header.kernel.clone(),
        ", ",
        nodes(header),
        ", ",
        header.targets.clone()
    ];
    let mut notes = vec![Note::about("how", made)];
    let better = header.backend.better().map(Backend::name);
    let better = better.chain(std::iter::repeat("a better backend"));
    let fallbacks = header.fallbacks.iter().zip(better);
    notes.extend(fallbacks.map(|(why, backend)| Note::more(cells![backend, " refused: ", why.clone()])));
    notes.extend(header.refused.iter().map(|hook| Note::more(refused(hook))));
    notes
}

/// A hook that the kernel refused, and what is missing without it.
pub fn refused(hook: &MissingHook) -> Vec<Cell> {
    let MissingHook { hook, reason, loses } = hook.clone();
    cells![hook, " refused: ", reason, "; missing: ", loses]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        made_up::{header, summary},
        render::text::plain,
        run::{account::Account, books::Lost, intervals::IntervalTotals, kept::Part},
    };

    fn page(header: &Header, summary: &Summary) -> String {
        let closing = closing(header, &summary.totals, summary, Occasion::Closing { hints: true });
        plain(&closing)
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
        // The imbalances cancel out, except within the calls.
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

    #[test]
    fn no_page_moved_only_where_the_kernel_counted_none() {
        let head_of = |kernel, lost, unknown, part: Option<Part>| {
            let mut summary = Summary {
                totals: Totals::default(),
                books: Books::default(),
                ..summary()
            };
            summary.books.whole.kernel = Some(kernel);
            summary.books.lost.calls = lost;
            summary.kept.part = part;
            summary.kept.damaged.unknown = unknown;
            let page = page(&exact(), &summary);
            page.lines().next().unwrap().to_owned()
        };
        let head = |kernel, lost, part| head_of(kernel, lost, 0, part);
        assert_eq!(head(0, 0, None), "no page moved in 10 s · 0 events lost");
        assert_eq!(
            head(0, 7, None),
            "no page seen that moved in 10 s · about 7 events lost"
        );
        assert_eq!(
            head_of(6156, 0, 1, None),
            "no page seen that moved in 10 s (the kernel counted 6,156) · an unknown number of events lost"
        );
        assert_eq!(
            head(0, 7, Some(Part::default())),
            "no page seen that moved in this part in 10 s · about 7 events lost"
        );
        assert_eq!(
            head(6156, 0, None),
            "no traced page moved in 10 s (the kernel counted 6,156 others) · 0 events lost"
        );
        assert_eq!(
            head(6156, 7, None),
            "no page seen that moved in 10 s (the kernel counted 6,156) · about 7 events lost"
        );
        assert_eq!(
            head(6156, 0, Some(Part::default())),
            "no page moved in this part in 10 s · 0 events lost"
        );
    }
}
