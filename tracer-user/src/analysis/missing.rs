//! Reports what is missing from the recordings that were read.
//! Input: the parts that could be read, and the files of runs that are there.

use crate::{
    analysis::question::{Analysis, Audience, Input, Occasion, Question},
    cells,
    recording::{parts::Files, reader},
    section::{Cell, Note, Section, joined},
};

struct Missing;

/// Only recordings can lack something.
pub(super) fn new(asked: &Question) -> Option<Box<dyn Analysis>> {
    (asked.occasion == Occasion::Report).then(|| Box::new(Missing) as Box<dyn Analysis>)
}

impl Analysis for Missing {
    fn sections(&self, asked: &Question, input: &Input) -> Vec<Section> {
        vec![match asked.audience {
            Audience::Programs => Section::record("", [("whole", input.is_whole().into())]),
            Audience::People => {
                let damage = "not everything is there: tracer info FILE shows what is missing";
                let damaged = input.is_damaged.then(|| Note::alarm("MISSING", cells![damage]));
                let files = input.parts.runs().iter().filter_map(not_here);
                let files = files.map(|words| Note::alarm("NOT HERE", words));
                Section::notes(damaged.into_iter().chain(files).collect())
            }
        }]
    }
}

/// The files of a run that are not there, numbered from 1; None if all are there.
#[must_use]
pub fn not_here(files: &Files) -> Option<Vec<Cell>> {
    let numbers = |(first, last): (u32, u32)| match (u64::from(first) + 1, u64::from(last) + 1) {
        (first, last) if first == last => cells!["file ", Cell::Number(first)],
        (first, last) => cells!["files ", Cell::Number(first), " to ", Cell::Number(last)],
    };
    let with = |mut words: Vec<Cell>, more: &'static str| {
        words.push(more.into());
        words
    };
    let mut what = Vec::new();
    match files.ends() {
        Some((first, _)) if first > 0 => what.push(with(numbers((0, first - 1)), " before it")),
        _ => {}
    }
    what.extend(files.gaps().into_iter().map(|gap| with(numbers(gap), " within it")));
    if files.goes_on() {
        what.push(cells!["what follows"]);
    }
    (!what.is_empty()).then(|| {
        let header = &files.header;
        let mut words = cells![
            "of the run of ",
            header.host.clone(),
            " that began ",
            Cell::Date(header.begun, header.clock_offset),
            ": "
        ];
        words.extend(joined(what, ", "));
        words
    })
}

/// A part of a recording that cannot be read.
#[must_use]
pub fn unreadable(missing: &reader::Missing) -> Vec<Cell> {
    let mut words = cells!["at byte ", Cell::Number(missing.at), ": ", missing.what];
    match (missing.bytes, missing.events) {
        (0, _) => {}
        (bytes, Some(events)) => words.extend(cells![
            " (",
            Cell::Counted(bytes, "byte", "bytes"),
            ", ",
            Cell::Counted(events, "event", "events"),
            ")"
        ]),
        (bytes, None) => words.extend(cells![" (", Cell::Counted(bytes, "byte", "bytes"), ")"]),
    }
    words
}
