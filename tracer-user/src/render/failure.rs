//! Why a folio could not be moved, in words.
//! Input: failures.

use std::fmt::Write as _;

use crate::{
    event::failure::{Cause, Failure, Refs},
    render::quantity::Count,
};

/// The cause in a few words.
#[must_use]
pub fn words(cause: Cause) -> &'static str {
    match cause {
        Cause::Unknown => "unknown",
        Cause::References => "in use: extra references",
        Cause::Error => "the copy failed",
        Cause::NoTarget => "no free page on the target",
        Cause::StillMapped => "a mapping was left",
        Cause::Locked => "locked by somebody (inferred)",
        Cause::Writeback => "under writeback (inferred)",
        Cause::NotTried => "not tried: memory had run out (inferred)",
        Cause::NumaRefused => "refused by NUMA balancing",
        Cause::Pinned => "pinned by a device or direct I/O (inferred)",
    }
}

fn counted(refs: Refs) -> String {
    let (held, expected) = (Count(refs.held.into()), Count(refs.expected.into()));
    format!("{held} references, {expected} expected")
}

/// The cause with its figures: `pinned: 3 references, 1 expected · 10 attempts`.
#[must_use]
pub fn story(failure: &Failure) -> String {
    let mut story = match failure.cause {
        Cause::Unknown => "cause unknown".to_owned(),
        Cause::References if failure.inferred => "in use for a moment: extra references (inferred)".to_owned(),
        Cause::References => match failure.refs {
            Some(refs) => format!("in use: {}", counted(refs)),
            None => "extra references".to_owned(),
        },
        Cause::Pinned if let Some(refs) = failure.refs => {
            format!("{}: {}", words(failure.cause), counted(refs))
        }
        Cause::Error | Cause::NumaRefused => match failure.errno {
            Some(errno) => {
                let error = std::io::Error::from_raw_os_error(errno.cast_signed());
                format!("{}: {error}", words(failure.cause))
            }
            None => words(failure.cause).to_owned(),
        },
        other => words(other).to_owned(),
    };
    match failure.attempts {
        0 => {}
        1 => story.push_str(" · 1 attempt"),
        n => {
            // Writing to a String cannot fail.
            let _ = write!(story, " · {n} attempts");
        }
    }
    story
}
