//! Reports what is missing from the recordings that were read.
//! Input: the parts that could be read, and the files of runs that are present.

use crate::{
    analysis::question::{Analysis, Audience, Input, Occasion, Question},
    cells,
    recording::{parts::RunFiles, reader},
    run::kept::{Damaged, Kept, Part},
    section::{Cell, Note, Section, joined},
    units::Nanos,
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

/// The files of a run that are absent, numbered from 1; None if all are present.
#[must_use]
pub fn not_here(files: &RunFiles) -> Option<Vec<Cell>> {
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

/// The numbers of a range's first and last file, from 0, for programs.
pub(super) fn stretch((first, last): (u32, u32)) -> Cell {
    Cell::List(cells![u64::from(first), u64::from(last)])
}

/// The part of a run that was read, for programs.
#[must_use]
pub fn kept(kept: &Kept) -> Section {
    let part = kept.part.as_ref().map(part);
    Section::record("", [("part", part.into()), ("damaged", damaged(&kept.damaged).into())])
}

/// Some files of a rotation, for programs.
pub(super) fn part(part: &Part) -> Section {
    let files = part.files.iter().copied().map(stretch).collect();
    Section::record(
        "",
        [
            ("files", Cell::List(files)),
            ("from_ns", part.period.map(|(from, _)| from).into()),
            ("until_ns", part.period.map(|(_, until)| until).into()),
        ],
    )
}

/// The damage, for programs.
pub(super) fn damaged(damaged: &Damaged) -> Section {
    Section::record(
        "",
        [
            ("events", damaged.events.into()),
            ("bytes", damaged.bytes.into()),
            ("unknown", damaged.unknown.into()),
        ],
    )
}

/// The numbers of files of a rotation, from 1.
pub(super) fn numbers(files: &[(u32, u32)]) -> Vec<Cell> {
    let number = |number: u32| Cell::Number(u64::from(number) + 1);
    let stretches = files.iter().map(|&stretch| match stretch {
        (first, last) if first == last => cells![number(first)],
        (first, last) => cells![number(first), " to ", number(last)],
    });
    let is_one = matches!(files, [(first, last)] if first == last);
    let mut words = cells![if is_one { "part " } else { "parts " }];
    words.extend(joined(stretches, ", "));
    words
}

/// The files of a rotation that are present, from 1, and their period. `duration` is that of the run, if its end is
/// known. With `books` its books follow.
pub(super) fn here(part: &Part, duration: Option<Nanos>, books: bool) -> Vec<Cell> {
    let mut words = numbers(&part.files);
    words.push(" of a rotation: ".into());
    words.extend(match part.period {
        Some((from, until)) => cells![from, " to ", until],
        None => cells!["no event"],
    });
    match duration {
        Some(duration) => {
            words.extend(cells![" of a run of ", duration]);
            let whole = if books {
                "; books and losses are those of the whole run"
            } else {
                "; losses are those of the whole run"
            };
            words.push(whole.into());
        }
        None => words.push(" of a run whose end is not here".into()),
    }
    words
}

/// The number of lost events, including those that are missing from the recording. It is an estimate if calls or runs of
/// programs, which may have had any number of events, count as one.
pub(super) fn lost(events: u64, is_estimate: bool, damaged: &Damaged) -> Vec<Cell> {
    let counted = Cell::Counted(events, "event", "events");
    match (events, damaged.unknown) {
        (1.., 0) if is_estimate => cells!["about ", counted, " lost"],
        (_, 0) => cells![counted, " lost"],
        (0, _) => cells!["an unknown number of events lost"],
        (_, _) => cells![counted, " or more lost"],
    }
}

/// The data that is missing from the recording; None: it is complete.
pub(super) fn missing(damaged: &Damaged) -> Option<Vec<Cell>> {
    if damaged.is_nothing() {
        return None;
    }
    let events = Cell::Counted(damaged.events, "event", "events");
    let mut words = match (damaged.events, damaged.unknown) {
        (0, 0) => cells!["no event"],
        (0, 1..) => cells!["an unknown number of events"],
        (_, 0) => cells![events],
        (_, 1..) => cells![events, " or more"],
    };
    words.push(" missing from the recording".into());
    if damaged.bytes > 0 {
        let bytes = Cell::Counted(damaged.bytes, "byte", "bytes");
        words.extend(cells![" (", bytes, " cannot be read)"]);
    }
    Some(words)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::sentence;

    #[test]
    fn a_part_is_numbered_from_one() {
        let second = |seconds: u64| Nanos(seconds * 1_000_000_000);
        let part = Part {
            files: vec![(2, 2)],
            period: Some((second(12), second(18))),
        };
        assert_eq!(
            sentence(&here(&part, Some(second(60)), true)),
            "part 3 of a rotation: 12 s to 18 s of a run of 60 s; books and losses are those of the whole run"
        );
        assert_eq!(
            sentence(&here(&part, Some(second(60)), false)),
            "part 3 of a rotation: 12 s to 18 s of a run of 60 s; losses are those of the whole run"
        );
        let part = Part {
            files: vec![(0, 1), (4, 5)],
            period: None,
        };
        assert_eq!(
            sentence(&here(&part, None, false)),
            "parts 1 to 2, 5 to 6 of a rotation: no event of a run whose end is not here"
        );
    }

    #[test]
    fn an_unknown_number_is_no_zero() {
        let whole = Damaged::default();
        assert_eq!(sentence(&lost(7, true, &whole)), "about 7 events lost");
        assert_eq!(sentence(&lost(0, true, &whole)), "0 events lost");
        for (events, bytes, unknown, head, line) in [
            (0, 0, 0, "0 events lost", None),
            (
                2,
                2048,
                0,
                "2 events lost",
                Some("2 events missing from the recording (2,048 bytes cannot be read)"),
            ),
            (
                0,
                300,
                0,
                "0 events lost",
                Some("no event missing from the recording (300 bytes cannot be read)"),
            ),
            (
                0,
                0,
                1,
                "an unknown number of events lost",
                Some("an unknown number of events missing from the recording"),
            ),
            (
                1,
                0,
                1,
                "1 event or more lost",
                Some("1 event or more missing from the recording"),
            ),
        ] {
            let damaged = Damaged { events, bytes, unknown };
            assert_eq!(sentence(&lost(events, false, &damaged)), head);
            assert_eq!(missing(&damaged).map(|words| sentence(&words)).as_deref(), line);
        }
    }
}
