//! The files of runs: a rotated run has several, and each can be read without the others.
//! Input: the begin and end blocks of recordings.

use std::collections::BTreeMap;

use crate::{
    recording::header::{Begin, End},
    run::{header::Header, kept::Part},
    units::Nanos,
};

/// The files of one run.
#[derive(Clone, Debug)]
pub struct RunFiles {
    /// How the run was made.
    pub header: Header,
    /// From the number of a file, from 0, to the number of the last file that is joined to it.
    spans: BTreeMap<u32, u32>,
    /// Whether its last file is present and has an end.
    ended: bool,
    /// Whether the most recently read file has an end.
    closed: bool,
    /// The name of the first recording that has part of the run.
    pub name: String,
    /// The earliest and the latest event.
    period: Option<(Nanos, Nanos)>,
}

impl RunFiles {
    /// The numbers of the first and the last file, from 0; None: there is none.
    #[must_use]
    pub fn ends(&self) -> Option<(u32, u32)> {
        Some((*self.spans.keys().next()?, *self.spans.values().max()?))
    }

    /// The part of the run that is present; None: all of it, as far as is known.
    #[must_use]
    pub fn part(&self) -> Option<Part> {
        let (first, _) = self.ends()?;
        if first == 0 && self.gaps().is_empty() && !self.goes_on() {
            return None;
        }
        let mut files: Vec<(u32, u32)> = Vec::new();
        for (&first, &last) in &self.spans {
            match files.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => files.push((first, last)),
            }
        }
        let begun = self.header.begun;
        let period = self.period.map(|(first, last)| (first.since(begun), last.since(begun)));
        Some(Part { files, period })
    }

    /// Whether the run goes on in a file that is absent.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.closed && !self.ended
    }

    /// Ranges of missing files between others, each with its first and last number.
    #[must_use]
    pub fn gaps(&self) -> Vec<(u32, u32)> {
        let mut gaps = Vec::new();
        let mut next = None;
        for (&first, &last) in &self.spans {
            if let Some(next) = next.filter(|next| *next < first) {
                gaps.push((next, first - 1));
            }
            next = next.max(Some(last.saturating_add(1)));
        }
        gaps
    }
}

/// The files of runs, in the order in which the runs were read.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    runs: Vec<RunFiles>,
    /// The name of the recording that is being read.
    name: String,
    /// The name of the first recording that has a run without a header.
    headless: Option<String>,
}

impl Parts {
    /// Begins a recording with that name.
    pub fn open(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    /// Begins a run without a header.
    pub fn begin_headless(&mut self) {
        self.headless.get_or_insert_with(|| self.name.clone());
    }

    /// Begins a file, or handles its repeated header.
    pub fn begin(&mut self, begin: &Begin) {
        // Most often it belongs to the run that has just been read.
        let known = self.runs.iter().rposition(|files| files.header.same_run(&begin.header));
        let mut files = match known {
            Some(known) => self.runs.remove(known),
            None => RunFiles {
                header: begin.header.clone(),
                spans: BTreeMap::new(),
                ended: false,
                closed: false,
                name: self.name.clone(),
                period: None,
            },
        };
        for (first, last) in begin.spans() {
            let known = files.spans.entry(first).or_default();
            *known = last.max(*known);
        }
        files.closed = false;
        self.runs.push(files);
    }

    /// Ends the file that began last.
    pub fn end(&mut self, end: &End) {
        if let Some(files) = self.runs.last_mut() {
            files.closed = true;
            files.ended |= end.finished.is_some();
        }
    }

    /// Extends the period of the run that began last to these times.
    pub fn span(&mut self, first: Nanos, last: Nanos) {
        if let Some(files) = self.runs.last_mut() {
            let (from, until) = files.period.unwrap_or((first, last));
            files.period = Some((from.min(first), until.max(last)));
        }
    }

    /// The files of each run.
    #[must_use]
    pub fn runs(&self) -> &[RunFiles] {
        &self.runs
    }

    /// The files of the run with that header.
    #[must_use]
    pub fn of(&self, header: &Header) -> Option<&RunFiles> {
        self.runs.iter().find(|files| files.header.same_run(header))
    }

    /// The name of the first recording that has part of that run.
    #[must_use]
    pub fn name_of(&self, header: &Header) -> &str {
        let headless = self.headless.as_deref().unwrap_or_default();
        self.of(header).map_or(headless, |files| &files.name)
    }

    /// Whether files are missing between others.
    #[must_use]
    pub fn have_gaps(&self) -> bool {
        self.runs.iter().any(|files| !files.gaps().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, recording::header::Finished};

    fn end(parts: &mut Parts, last: bool) {
        parts.end(&End {
            events: 1,
            unwritten: 0,
            finished: last.then(|| Finished::from(&made_up::summary())),
        });
    }

    #[test]
    fn gaps_are_between_files() {
        let (mut parts, one) = (Parts::default(), made_up::header());
        let mut other = one.clone();
        other.begun.0 += 1;
        for (header, part, joined, last) in [
            (&one, 7, 0, true),
            (&one, 2, 1, false),
            (&other, 0, 0, true),
            (&one, 6, 0, false),
        ] {
            let header = header.clone();
            let begin = Begin {
                part,
                joined,
                ..Begin::of(header)
            };
            // The header is repeated.
            parts.begin(&begin);
            parts.begin(&begin);
            end(&mut parts, last);
        }
        let files = parts.of(&one).unwrap();
        assert_eq!((files.ends(), files.gaps()), (Some((2, 7)), vec![(4, 5)]));
        assert!(parts.have_gaps() && !files.goes_on());
        let files = parts.of(&other).unwrap();
        assert_eq!((files.ends(), files.gaps()), (Some((0, 0)), vec![]));
    }

    #[test]
    fn a_part_has_stretches_of_files_and_the_period_of_their_events() {
        let header = made_up::header();
        let after = |nanos| Nanos(header.begun.0 + nanos);
        let part = |files: &[(u32, u32)], last| {
            let mut parts = Parts::default();
            parts.open("r.data");
            for &(part, joined) in files {
                parts.begin(&Begin {
                    part,
                    joined,
                    ..Begin::of(header.clone())
                });
                parts.span(after(70), after(90));
                parts.span(after(50), after(80));
                end(&mut parts, last);
            }
            assert_eq!(parts.name_of(&header), "r.data");
            parts.runs()[0].part()
        };
        assert_eq!(part(&[(0, 2), (3, 0)], true), None);
        let period = Some((Nanos(50), Nanos(90)));
        for (given, last, files) in [
            (&[(7, 0), (2, 1), (4, 0)][..], true, vec![(2, 4), (7, 7)]),
            (&[(0, 0)], false, vec![(0, 0)]),
            (&[(3, 0)], true, vec![(3, 3)]),
        ] {
            assert_eq!(part(given, last), Some(Part { files, period }), "{given:?}");
        }
    }

    #[test]
    fn a_run_goes_on_where_its_last_file_is_missing() {
        let mut parts = Parts::default();
        parts.begin(&Begin::of(made_up::header()));
        // A file without an end is cut off: its reader reports that.
        assert!(!parts.runs()[0].goes_on());
        end(&mut parts, false);
        assert!(parts.runs()[0].goes_on() && !parts.have_gaps());
    }

    #[test]
    fn numbers_of_files_may_be_whatever_can_be_written() {
        let mut parts = Parts::default();
        for (part, joined) in [(u32::MAX, u32::MAX), (0, u32::MAX), (5, 0), (u32::MAX, 0)] {
            parts.begin(&Begin {
                part,
                joined,
                ..Begin::of(made_up::header())
            });
            end(&mut parts, false);
        }
        let files = &parts.runs()[0];
        assert_eq!((files.ends(), files.gaps()), (Some((0, u32::MAX)), vec![]));
    }
}
