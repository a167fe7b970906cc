//! Feeds a recording into a sink, in the same way as a live run.
//! Input: a recording; a sink.

use std::io::{self, Read};

use crate::{
    pipeline::feed::Feed,
    recording::{
        parts::Parts,
        reader::{Item, Missing, ReadError, RecordingFile},
        rows::Step,
    },
    sink::Sink,
};

/// The reason why a recording was not fed to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The sink cannot be written.
    #[error(transparent)]
    Sink(#[from] io::Error),
}

/// Feeds all runs of a recording into a sink: each is begun, and finished or abandoned. Reports gaps to `missing`,
/// after the events before them have been flushed, and to `parts` which files of runs are there. Returns whether
/// nothing was missing.
///
/// # Errors
/// [`ReplayError`]: the sink was not finished.
pub fn replay<R: Read>(
    recording: &mut RecordingFile<R>,
    sink: &mut dyn Sink,
    parts: &mut Parts,
    mut missing: impl FnMut(&Missing),
) -> Result<bool, ReplayError> {
    let mut whole = true;
    let mut feed = Feed::new(sink);
    while let Some(item) = recording.next_item()? {
        match item {
            Item::Begin(begin) => {
                parts.begin(&begin);
                feed.begin(&begin.header)?;
            }
            Item::Events => {
                let mut events = recording.events();
                while let Some(step) = events.next() {
                    match step {
                        Step::Event(event) => feed.event(event)?,
                        Step::Turn => feed.flush()?,
                    }
                }
            }
            Item::Interval(interval) => feed.interval(&interval)?,
            Item::End(end) => {
                parts.end(&end);
                // Without an end, the run continues in the next file of its rotation.
                if let Some(finished) = end.finished {
                    feed.finish(finished)?;
                }
            }
            Item::Unknown => {}
            Item::Missing(what) => {
                whole = false;
                feed.flush()?;
                missing(&what);
            }
        }
    }
    feed.abandon()?;
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::Event,
        made_up,
        recording::{
            block::{BlockHeader, HEADER, MAGIC, Packer, Span, Unpacker},
            writer::Writer,
        },
        run::{header::Header, totals::Totals},
        sink::{json::JsonLines, text::Text},
    };

    /// Feeds a sink as the pipeline does: two turns, of which the second continues the first.
    fn feed(sink: &mut dyn Sink) {
        feed_as(&made_up::header(), sink);
    }

    fn feed_as(header: &Header, sink: &mut dyn Sink) {
        let next = |by: u64| {
            let mut moved = made_up::moved();
            moved.vaddr = moved.vaddr.plus_pages(by);
            moved.old_pfn = moved.old_pfn.map(|pfn| pfn.plus(by));
            moved.new_pfn = moved.new_pfn.map(|pfn| pfn.plus(by));
            Event::Move(moved)
        };
        sink.begin(header).unwrap();
        for turn in [[next(0), next(2)], [next(4), Event::Move(made_up::unknown())]] {
            for event in &turn {
                sink.event(event).unwrap();
            }
            sink.flush().unwrap();
        }
        for event in made_up::others() {
            sink.event(&event).unwrap();
        }
        sink.interval(&made_up::interval()).unwrap();
        sink.flush().unwrap();
        let mut summary = made_up::summary();
        summary.totals = Totals::default();
        for event in [next(0), next(2), next(4), Event::Move(made_up::unknown())] {
            summary.totals.add(&event);
        }
        for event in made_up::others() {
            summary.totals.add(&event);
        }
        sink.finish(&summary).unwrap();
    }

    #[test]
    fn a_recording_shows_the_rows_of_the_run() {
        let (mut live, mut again, mut file) = (Vec::new(), Vec::new(), Vec::new());
        feed(&mut Text::new(&mut live, true, None));
        feed(&mut Writer::new(&mut file).unwrap());
        let mut recording = RecordingFile::new(&file[..]).unwrap();
        assert!(
            replay(
                &mut recording,
                &mut Text::new(&mut again, true, None),
                &mut Parts::default(),
                |_| {}
            )
            .unwrap()
        );
        assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(live).unwrap());
    }

    #[test]
    fn recordings_one_behind_the_other_are_runs() {
        let mut other = made_up::header();
        other.begun.0 += 1;
        let mut file = Vec::new();
        feed(&mut Writer::new(&mut file).unwrap());
        let first = file.len();
        feed_as(&other, &mut Writer::new(&mut file).unwrap());
        let mut live = Vec::new();
        feed(&mut JsonLines::new(&mut live));
        let of_first = live.len();
        feed_as(&other, &mut JsonLines::new(&mut live));

        let read = |bytes: &[u8]| {
            let (mut shown, mut missing) = (Vec::new(), 0);
            let mut recording = RecordingFile::new(bytes).unwrap();
            let whole = replay(
                &mut recording,
                &mut JsonLines::new(&mut shown),
                &mut Parts::default(),
                |_| missing += 1,
            )
            .unwrap();
            assert_eq!(whole, missing == 0);
            (shown, missing)
        };
        assert!(read(&file) == (live.clone(), 0));
        // The last byte of the first one is removed: its end is damaged.
        file.remove(first - 1);
        let (shown, missing) = read(&file);
        assert!(missing > 0 && shown.ends_with(&live[of_first..]) && shown.len() < live.len());
    }

    /// Recordings of each version are kept for ever (tests/golden). If the recording of this version is missing, this
    /// makes it.
    #[test]
    fn this_version_has_a_golden_recording() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
        let path = root.join(format!("v{}/made-up.data", crate::recording::VERSION));
        let Ok(there) = std::fs::read(&path) else {
            let mut file = Vec::new();
            feed(&mut Writer::new(&mut file).unwrap());
            std::fs::write(&path, file).unwrap();
            panic!("{} was missing and is written: commit it", path.display());
        };
        let mut shown = Vec::new();
        let mut recording = RecordingFile::new(&there[..]).unwrap();
        assert!(
            replay(
                &mut recording,
                &mut JsonLines::new(&mut shown),
                &mut Parts::default(),
                |_| {}
            )
            .unwrap()
        );
    }

    /// The file with the content of one block changed, and valid checksums.
    fn changed(file: &[u8], number: usize, changes: &[(usize, u8)]) -> Option<Vec<u8>> {
        let marks = file
            .windows(MAGIC.len())
            .enumerate()
            .filter(|(_, bytes)| *bytes == MAGIC);
        let at = marks.map(|(at, _)| at).nth(number)?;
        let header = BlockHeader::parse(file[at..].first_chunk()?)?;
        let end = at + HEADER + header.packed;
        let mut content = Vec::new();
        Unpacker::new()
            .ok()?
            .unpack(&header, &file[at + HEADER..end], &mut content)
            .ok()?;
        for (place, byte) in changes {
            let place = place % content.len();
            content[place] = *byte;
        }
        let span = Span {
            rows: header.rows,
            first: header.first,
            last: header.last,
        };
        let mut out = file[..at].to_vec();
        Packer::new()
            .ok()?
            .pack(header.kind?, header.sequence, span, &content, &mut out)
            .ok()?;
        out.extend(&file[end..]);
        Some(out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn no_content_makes_it_panic(
            number in 0usize..5,
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        ) {
            let mut file = Vec::new();
            feed(&mut Writer::new(&mut file).unwrap());
            let file = changed(&file, number, &changes).unwrap();
            let mut again = Vec::new();
            let sinks: [&mut dyn Sink; 3] = [
                &mut Text::new(io::sink(), true, None),
                &mut JsonLines::new(io::sink()),
                &mut Writer::new(&mut again).unwrap(),
            ];
            for sink in sinks {
                let mut recording = RecordingFile::new(&file[..]).unwrap();
                // A failure to write it again is an error, not a panic.
                let _ = replay(&mut recording, sink, &mut Parts::default(), |_| {});
            }
        }
    }
}
