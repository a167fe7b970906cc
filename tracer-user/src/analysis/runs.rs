//! The result of each run: its sums, its losses, its books. For a live run it is the closing page.
//! Input: every event of a run, its intervals and its summary.

mod page;
pub mod sums;

use crate::{
    analysis::{
        books,
        losses::Losses,
        missing,
        question::{Analysis, Audience, Input, Occasion, Question},
        selection::Selection,
    },
    cells,
    event::Event,
    recording::parts::RunFiles,
    run::{
        header::Header,
        intervals::{Interval, SoFar},
        kept::Unfinished,
        summary::Summary,
    },
    section::{Cell, Column, Note, Section},
};

pub use page::nodes;
pub(super) use page::refused;

/// The result of one run.
struct RunResult {
    header: Header,
    losses: Losses,
    so_far: SoFar,
    /// The facts that are known without its end.
    known: Unfinished,
    /// None: it is not known how it ended.
    summary: Option<Summary>,
}

impl RunResult {
    fn new(header: Header) -> Self {
        Self {
            header,
            losses: Losses::default(),
            so_far: SoFar::default(),
            known: Unfinished::default(),
            summary: None,
        }
    }

    fn balanced(&self) -> Option<bool> {
        self.summary.as_ref().map(|summary| summary.books.balanced())
    }

    /// Warnings before everything else: the losses with their times, and whether the books balance.
    fn warnings(&self, name: &str, rows: usize) -> Vec<Note> {
        let name = || Cell::from(name.to_owned());
        let mut notes = Vec::new();
        let lost = self.known.lost;
        if lost > 0 {
            notes.push(Note::alarm(
                "LOST",
                cells![Cell::Counted(lost, "event", "events"), " of ", name()],
            ));
            notes.extend(self.losses.notes(rows));
        }
        if let Some(missing) = missing::missing(&self.known.kept.damaged) {
            let words = cells![name(), ": "].into_iter().chain(missing);
            notes.push(Note::alarm("LOST", words.collect()));
        }
        if self.balanced() == Some(false) {
            let words = cells!["the books of ", name(), " do not balance"];
            notes.push(Note::alarm("WARNING", words));
        } else if let Some(unbalanced) = books::unbalanced(&self.so_far.totals, self.header.begun) {
            let words = cells![name(), ": "].into_iter().chain(unbalanced);
            notes.push(Note::alarm("WARNING", words.collect()));
        }
        notes
    }

    /// Its page, with its end if that is known and no selection was made.
    fn page(&self, occasion: Occasion) -> Vec<Section> {
        match &self.summary {
            Some(summary) if !self.known.selected => page::closing(&self.header, &self.known.totals, summary, occasion),
            _ => page::sums(&self.header, &self.known, &self.so_far, occasion),
        }
    }

    /// The run's values, one for each of [`COLUMNS`].
    fn values(&self, input: &Input) -> Vec<Cell> {
        let gaps = |files: &RunFiles| Cell::List(files.gaps().into_iter().map(missing::stretch).collect());
        let kept = &self.known.kept;
        let summary = self.summary.as_ref();
        let so_far = || {
            Section::record(
                "",
                [
                    ("until_ns", self.so_far.until.since(self.header.begun).into()),
                    ("kernel_pages", self.so_far.kernel.into()),
                    ("moved_pages", self.so_far.moved.into()),
                    ("intervals", self.so_far.totals.closed.into()),
                    ("unbalanced", self.so_far.totals.unbalanced.into()),
                ],
            )
        };
        cells![
            input.parts.name_of(&self.header).to_owned(),
            self.header.host.clone(),
            self.header.kernel.clone(),
            input.parts.of(&self.header).map(gaps),
            summary.map(|summary| summary.duration),
            self.known.lost_events(),
            self.losses.section(),
            self.balanced(),
            summary.is_none().then(so_far),
            kept.part.as_ref().map(missing::part),
            missing::damaged(&kept.damaged),
            sums::record(&self.known.totals, None),
        ]
    }
}

/// The keys of a run.
const COLUMNS: [&str; 12] = [
    "file",
    "host",
    "kernel",
    "gaps",
    "duration_ns",
    "lost_events",
    "losses",
    "balanced",
    "so_far",
    "part",
    "damaged",
    "totals",
];

/// All runs; the files of a rotation belong to one run.
struct Runs {
    /// Whether the run is live: then the sums come from its summary.
    live: bool,
    /// The events that are added.
    selection: Selection,
    results: Vec<RunResult>,
    /// The index of the run whose events are being added.
    current: usize,
}

/// Every question needs the runs.
#[expect(clippy::unnecessary_wraps, reason = "other analyses are not always requested")]
pub(super) fn new(asked: &Question) -> Option<Box<dyn Analysis>> {
    Some(Box::new(Runs {
        live: asked.occasion != Occasion::Report,
        selection: asked.selection.clone(),
        results: Vec::new(),
        current: 0,
    }))
}

impl Runs {
    fn current(&mut self) -> Option<&mut RunResult> {
        self.results.get_mut(self.current)
    }

    /// Called after the last event of the run.
    fn ended(&mut self, known: &Unfinished) {
        let (live, selected) = (self.live, self.selection.filters());
        let kept = self.selection.narrow(&known.kept);
        let Some(run) = self.current() else { return };
        if live {
            run.known.totals = known.totals.clone();
        }
        // The parts of a run may be read with other runs between them.
        let before = std::mem::replace(&mut run.known.kept, kept).damaged;
        if !live {
            run.known.kept.damaged.add(before);
        }
        run.known.lost = known.lost;
        run.known.duration = known.duration;
        run.known.selected = known.selected || selected;
    }
}

impl Analysis for Runs {
    fn begin(&mut self, header: &Header) {
        let known = self.results.iter().position(|run| run.header.same_run(header));
        self.current = known.unwrap_or(self.results.len());
        if known.is_none() {
            self.results.push(RunResult::new(header.clone()));
        }
    }

    fn event(&mut self, event: &Event) {
        if self.live {
            return;
        }
        if let Some(run) = self.current() {
            run.known.totals.add(event);
        }
    }

    fn interval(&mut self, interval: &Interval) {
        let live = self.live;
        let Some(run) = self.current() else { return };
        run.so_far.add(interval);
        if !live {
            run.losses.add(interval, run.header.begun);
        }
    }

    fn end(&mut self, summary: &Summary) {
        if self.results.is_empty() {
            // The run ended before it began.
            self.begin(&Header::unknown());
        }
        self.ended(&Unfinished {
            totals: summary.totals.clone(),
            lost: summary.books.lost.events(),
            duration: Some(summary.duration),
            kept: summary.kept.clone(),
            selected: false,
        });
        if let Some(run) = self.current() {
            run.summary = Some(summary.clone());
        }
    }

    fn abandon(&mut self, unfinished: &Unfinished) {
        self.ended(unfinished);
    }

    fn sections(&self, asked: &Question, input: &Input) -> Vec<Section> {
        if asked.audience == Audience::Programs {
            let columns = COLUMNS.map(|key| Column::name().key(key));
            let mut section = Section::table("recordings", columns.to_vec());
            for run in &self.results {
                section.row(run.values(input));
            }
            return vec![section];
        }
        if self.live {
            let last = self.results.last();
            return last.map_or_else(Vec::new, |run| run.page(asked.occasion));
        }
        let name = |run: &RunResult| input.parts.name_of(&run.header).to_owned();
        let warnings = self.results.iter().flat_map(|run| run.warnings(&name(run), asked.rows));
        let mut sections = vec![Section::notes(warnings.collect())];
        if asked.by.is_empty() {
            for run in &self.results {
                let mut page = run.page(asked.occasion);
                if let Some(head) = page.first_mut().filter(|_| self.results.len() > 1) {
                    head.title = cells![name(run)];
                }
                sections.extend(page);
            }
        }
        sections
    }
}
