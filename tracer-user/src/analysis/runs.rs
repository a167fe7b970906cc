//! The result of each run: its sums, its losses, its books. For a live run it is the closing page.
//! Input: every event of a run, its intervals and its summary.

mod page;
pub mod sums;

use crate::{
    analysis::{
        books,
        losses::Losses,
        question::{Analysis, Audience, Input, Occasion, Question},
    },
    cells,
    event::Event,
    recording::parts::Files,
    run::{
        header::Header,
        intervals::{Interval, SoFar},
        summary::Summary,
        totals::Totals,
    },
    section::{Cell, Column, Note, Section},
};

pub use page::nodes;
pub(super) use page::refused;

/// The result of one run.
struct Outcome {
    file: String,
    header: Header,
    totals: Totals,
    losses: Losses,
    so_far: SoFar,
    /// None if its end was not recorded.
    summary: Option<Summary>,
}

impl Outcome {
    fn new(header: Header, file: &str) -> Self {
        Self {
            file: file.to_owned(),
            header,
            totals: Totals::default(),
            losses: Losses::default(),
            so_far: SoFar::default(),
            summary: None,
        }
    }

    /// Lost events; if the end of the run was not recorded, those up to its last interval.
    fn lost(&self) -> u64 {
        let summary = self.summary.as_ref();
        summary.map_or_else(|| self.losses.events(), |summary| summary.books.lost.events())
    }

    fn balanced(&self) -> Option<bool> {
        self.summary.as_ref().map(|summary| summary.books.balanced())
    }

    /// The losses and the imbalances of the run: a report begins with them.
    fn warnings(&self, rows: usize) -> Vec<Note> {
        let name = || Cell::from(self.file.clone());
        let mut notes = Vec::new();
        let lost = self.lost();
        if lost > 0 {
            notes.push(Note::alarm(
                "LOST",
                cells![Cell::Counted(lost, "event", "events"), " of ", name()],
            ));
            notes.extend(self.losses.notes(rows));
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

    /// The page of the run. It shows the end if that was recorded and no events are filtered out.
    fn page(&self, filters: bool) -> Vec<Section> {
        if let Some(summary) = self.summary.as_ref().filter(|_| !filters) {
            return page::closing(&self.header, &self.totals, summary, false);
        }
        let so_far = Some(&self.so_far).filter(|_| !filters);
        page::sums(&self.header, &self.totals, so_far)
    }

    /// The run's values, one for each of [`COLUMNS`].
    fn values(&self, input: &Input) -> Vec<Cell> {
        let gap = |(first, last): (u32, u32)| Cell::List(cells![u64::from(first), u64::from(last)]);
        let gaps = |files: &Files| Cell::List(files.gaps().into_iter().map(gap).collect());
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
            self.file.clone(),
            self.header.host.clone(),
            self.header.kernel.clone(),
            input.parts.of(&self.header).map(gaps),
            summary.map(|summary| summary.duration),
            summary.map(|_| self.lost()),
            self.losses.section(),
            self.balanced(),
            summary.is_none().then(so_far),
            sums::record(&self.totals, None),
        ]
    }
}

/// The keys of a run in JSON.
const COLUMNS: [&str; 10] = [
    "file",
    "host",
    "kernel",
    "gaps",
    "duration_ns",
    "lost_events",
    "losses",
    "balanced",
    "so_far",
    "totals",
];

/// All runs; the files of a rotation belong to one run.
struct Runs {
    /// Whether the run is live: then the sums come from its summary.
    live: bool,
    outcomes: Vec<Outcome>,
    /// The index of the run whose events come.
    current: usize,
}

/// Every question needs the runs.
#[expect(clippy::unnecessary_wraps, reason = "others are not always asked for")]
pub(super) fn new(asked: &Question) -> Option<Box<dyn Analysis>> {
    Some(Box::new(Runs {
        live: asked.occasion != Occasion::Report,
        outcomes: Vec::new(),
        current: 0,
    }))
}

impl Runs {
    fn current(&mut self) -> Option<&mut Outcome> {
        self.outcomes.get_mut(self.current)
    }
}

impl Analysis for Runs {
    fn begin(&mut self, header: &Header, file: &str) {
        let known = self.outcomes.iter().position(|run| run.header.same_run(header));
        self.current = known.unwrap_or(self.outcomes.len());
        if known.is_none() {
            self.outcomes.push(Outcome::new(header.clone(), file));
        }
    }

    fn event(&mut self, event: &Event) {
        if self.live {
            return;
        }
        if let Some(run) = self.current() {
            run.totals.add(event);
        }
    }

    fn interval(&mut self, interval: &Interval) {
        if self.live {
            return;
        }
        if let Some(run) = self.current() {
            run.losses.add(interval, run.header.begun);
            run.so_far.add(interval);
        }
    }

    fn end(&mut self, summary: &Summary) {
        if self.outcomes.is_empty() {
            // The end came without a begin.
            self.begin(&Header::unknown(), "");
        }
        let live = self.live;
        if let Some(run) = self.current() {
            if live {
                run.totals = summary.totals.clone();
            }
            run.summary = Some(summary.clone());
        }
    }

    fn sections(&self, asked: &Question, input: &Input) -> Vec<Section> {
        if asked.audience == Audience::Programs {
            let columns = COLUMNS.map(|key| Column::name().key(key));
            let mut section = Section::table("recordings", columns.to_vec());
            for run in &self.outcomes {
                section.row(run.values(input));
            }
            return vec![section];
        }
        if let Occasion::Closing { hints } = asked.occasion {
            let last = self.outcomes.last();
            let ended = last.and_then(|run| Some((run, run.summary.as_ref()?)));
            return ended.map_or_else(Vec::new, |(run, summary)| {
                page::closing(&run.header, &run.totals, summary, hints)
            });
        }
        let warnings = self.outcomes.iter().flat_map(|run| run.warnings(asked.rows));
        let mut sections = vec![Section::notes(warnings.collect())];
        if asked.by.is_empty() {
            for run in &self.outcomes {
                let mut page = run.page(asked.selection.filters());
                if let Some(head) = page.first_mut().filter(|_| self.outcomes.len() > 1) {
                    head.title = cells![run.file.clone()];
                }
                sections.extend(page);
            }
        }
        sections
    }
}
