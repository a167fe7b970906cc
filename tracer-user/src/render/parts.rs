//! Which files of a run are not there, in words.
//! Input: the files of a run.

use crate::{escape::Printable, recording::parts::Files, render::clock};

/// What is not there: None where all of it is. Files are numbered from 1, as people do.
#[must_use]
pub fn missing(files: &Files) -> Option<String> {
    let numbers = |(first, last): (u32, u32)| match (u64::from(first) + 1, u64::from(last) + 1) {
        (first, last) if first == last => format!("file {first}"),
        (first, last) => format!("files {first} to {last}"),
    };
    let mut what: Vec<String> = Vec::new();
    match files.ends() {
        Some((first, _)) if first > 0 => what.push(format!("{} before it", numbers((0, first - 1)))),
        _ => {}
    }
    what.extend(
        files
            .gaps()
            .into_iter()
            .map(|gap| format!("{} within it", numbers(gap))),
    );
    if files.goes_on() {
        what.push("what follows".to_owned());
    }
    (!what.is_empty()).then(|| {
        format!(
            "of the run of {} that began {}: {}",
            Printable(&files.header.host),
            clock::date(&files.header, files.header.begun),
            what.join(", ")
        )
    })
}
