//! Rows of folios that could not be moved, with the cause in words.
//! Input: failures.

use std::fmt::Write as _;

use super::{Layout, NONE, mover, nodes, owners, place, reason};
use crate::{
    event::{
        Residence,
        failure::{Cause, Failure, Refs},
    },
    units::Nanos,
    words::{
        cause::cause,
        quantity::{Count, PageSize},
    },
};

/// Folios that could not be moved for the same reason, shown as one row.
#[derive(Clone, Debug)]
pub struct Row {
    first: Failure,
    folios: u64,
}

impl Row {
    /// A row of one.
    #[must_use]
    pub fn new(failure: &Failure) -> Self {
        Self {
            first: failure.clone(),
            folios: 1,
        }
    }

    /// The time of the first failure.
    #[must_use]
    pub fn at(&self) -> Nanos {
        self.first.at
    }

    /// Adds a failure with the same owner, VMA, order, node, reason, actor and cause, at any address. Returns false if
    /// the failure needs a row of its own.
    pub fn extend(&mut self, failure: &Failure) -> bool {
        let first = &self.first;
        let who = |failure: &Failure| {
            let place = failure.places.first();
            place.map(|place| (place.owner.tgid, place.vma.as_ref().map(|vma| vma.start)))
        };
        let same = first.cause == failure.cause
            && first.inferred == failure.inferred
            && first.refs == failure.refs
            && first.errno == failure.errno
            && first.attempts == failure.attempts
            && first.reason == failure.reason
            && first.order == failure.order
            && first.node == failure.node
            && first.actor.tid == failure.actor.tid
            && first.places.len() == failure.places.len()
            && who(first) == who(failure);
        self.folios += u64::from(same);
        same
    }

    /// The row as text, without the last line's end.
    #[must_use]
    pub fn text(&self, time: &str, layout: &Layout) -> String {
        let failure = &self.first;
        let owner = failure.places.first();
        let process = owner.map_or_else(
            || "unknown".to_owned(),
            |place| owners(&place.owner, failure.places.len() - 1),
        );
        let size = match self.folios {
            1 => PageSize(failure.order).to_string(),
            n => format!("{} x{n}", PageSize(failure.order)),
        };
        let node = Residence::of(failure.node);
        let columns = [
            time,
            &process,
            &owner.map_or_else(|| NONE.to_owned(), |place| format!("{:012x}", place.vaddr.0)),
            &size,
            &failure
                .pfn
                .map_or_else(|| "stays".to_owned(), |pfn| format!("{pfn} stays")),
            &nodes((node, node)),
            &reason(&failure.reason),
            &mover(&failure.actor, owner.map(|place| &place.owner), Some(&failure.reason)),
            NONE,
        ];
        let notes = format!("NOT MOVED: {} · ", story(failure));
        layout.lines(columns, &notes, &place(owner.and_then(|place| place.vma.as_deref())))
    }
}

fn counted(refs: Refs) -> String {
    let (held, expected) = (Count(refs.held.into()), Count(refs.expected.into()));
    format!("{held} references, {expected} expected")
}

/// The cause with its figures: `pinned: 3 references, 1 expected · tried in 10 passes`.
fn story(failure: &Failure) -> String {
    let mut story = match failure.cause {
        Cause::Unknown => "cause unknown".to_owned(),
        Cause::References if failure.inferred => "in use for a moment: extra references (inferred)".to_owned(),
        Cause::References => match failure.refs {
            Some(refs) => format!("in use: {}", counted(refs)),
            None => "extra references".to_owned(),
        },
        Cause::Pinned if let Some(refs) = failure.refs => {
            format!("{}: {}", cause(failure.cause, &failure.reason), counted(refs))
        }
        Cause::Error | Cause::NumaRefused => match failure.errno {
            Some(errno) => {
                let error = std::io::Error::from_raw_os_error(errno.cast_signed());
                format!("{}: {error}", cause(failure.cause, &failure.reason))
            }
            None => cause(failure.cause, &failure.reason).to_owned(),
        },
        other => cause(other, &failure.reason).to_owned(),
    };
    if failure.attempts > 0 {
        // Writing to a String cannot fail.
        let _ = match failure.attempts {
            1 => write!(story, " · tried in 1 pass"),
            passes => write!(story, " · tried in {} passes", Count(passes.into())),
        };
    }
    story
}
