//! Feeds a recording into a sink, in the same way as a live run.
//! Input: a recording; a sink.

use std::io::{self, Read};

use crate::{
    analysis::Input,
    pipeline::feed::Feed,
    recording::{
        header::{Begin, End},
        parts::RunFiles,
        reader::{Item, Missing, ReadError, RecordingFile},
        rows::Step,
    },
    run::kept::{Damaged, Kept},
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

/// Feeds the runs of recordings into a sink: each is begun once, and finished or abandoned once. A run continues in the
/// next file of its rotation.
pub struct Replay<'s> {
    feed: Feed<'s>,
    /// Facts about the recordings that were read so far.
    pub input: Input,
    /// The damage in the run's files, except in the file that is being read.
    damaged: Damaged,
    file: File,
}

/// The file that is being read.
#[derive(Default)]
struct File {
    /// Events that were read.
    events: u64,
    damaged: Damaged,
}

impl<'s> Replay<'s> {
    /// A replay into `sink`; no run has begun.
    #[must_use]
    pub fn new(sink: &'s mut dyn Sink) -> Self {
        Self {
            feed: Feed::new(sink),
            input: Input::default(),
            damaged: Damaged::default(),
            file: File::default(),
        }
    }

    /// Feeds a recording. Reports to `missing` each part that is missing, after what came before has been flushed.
    ///
    /// # Errors
    /// [`ReplayError`]: the sink was not finished.
    pub fn recording<R: Read>(
        &mut self,
        recording: &mut RecordingFile<R>,
        mut missing: impl FnMut(&Missing),
    ) -> Result<(), ReplayError> {
        while let Some(item) = recording.next_item()? {
            match item {
                Item::Begin(begin) => self.begin(&begin)?,
                Item::Events => self.events(recording)?,
                Item::Interval(interval) => {
                    self.started();
                    self.feed.interval(&interval)?;
                }
                Item::End(end) => self.end_file(*end)?,
                Item::Unknown => {}
                Item::Missing(what) => {
                    self.input.is_damaged = true;
                    self.file.damaged.add(Damaged::from(&what));
                    self.feed.flush()?;
                    missing(&what);
                }
            }
        }
        self.close_file();
        if self.feed.run().is_none() {
            // Data after the end of a run does not belong to the next one.
            self.damaged = Damaged::default();
        }
        Ok(())
    }

    /// Ends the last run, after the last recording.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn end(&mut self) -> io::Result<()> {
        self.abandon()
    }

    fn begin(&mut self, begin: &Begin) -> io::Result<()> {
        self.input.parts.begin(begin);
        let run = self.feed.run();
        if run.is_some_and(|run| run.same_run(&begin.header)) {
            return Ok(());
        }
        if run.is_some() {
            self.close_file();
            self.abandon()?;
        }
        self.feed.begin(&begin.header)
    }

    /// Notes that the feed begins a run without any facts, because all of its headers may be damaged.
    fn started(&mut self) {
        if self.feed.run().is_none() {
            self.input.parts.begin_headless();
        }
    }

    fn events<R: Read>(&mut self, recording: &mut RecordingFile<R>) -> io::Result<()> {
        self.started();
        if let Some(place) = &recording.place {
            self.input.parts.span(place.header.first, place.header.last);
        }
        let mut events = recording.events();
        while let Some(step) = events.next() {
            match step {
                Step::Event(event) => {
                    self.file.events += 1;
                    self.feed.event(event)?;
                }
                Step::Turn => self.feed.flush()?,
            }
        }
        Ok(())
    }

    /// Handles the end of a file. The run continues in the next file of its rotation, unless `end` says how it ended.
    fn end_file(&mut self, end: End) -> io::Result<()> {
        self.input.parts.end(&end);
        let File { events, damaged } = &mut self.file;
        // If a damaged block has lost its number of events, the number of events of the whole file reveals it.
        damaged.explain(end.events.saturating_add(end.unwritten), *events);
        self.close_file();
        let Some(finished) = end.finished else { return Ok(()) };
        self.started();
        let kept = self.kept();
        let summary = self.feed.finish(finished, kept)?;
        self.input.add_lost(summary.books.lost.events());
        Ok(())
    }

    fn close_file(&mut self) {
        self.damaged.add(std::mem::take(&mut self.file).damaged);
    }

    fn abandon(&mut self) -> io::Result<()> {
        let kept = self.kept();
        let lost = self.feed.abandon(kept)?;
        self.input.add_lost(lost);
        Ok(())
    }

    /// The part of the ending run that was read.
    fn kept(&mut self) -> Kept {
        let files = self.feed.run().and_then(|run| self.input.parts.of(run));
        Kept {
            part: files.and_then(RunFiles::part),
            damaged: std::mem::take(&mut self.damaged),
        }
    }
}

/// Feeds one recording, and reports to `missing` each part that is missing from it. Returns facts about it.
///
/// # Errors
/// [`ReplayError`]: the sink was not finished.
pub fn replay<R: Read>(
    recording: &mut RecordingFile<R>,
    sink: &mut dyn Sink,
    missing: impl FnMut(&Missing),
) -> Result<Input, ReplayError> {
    let mut replay = Replay::new(sink);
    replay.recording(recording, missing)?;
    replay.end()?;
    Ok(replay.input)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::Event,
        made_up,
        recording::{
            block::{BlockHeader, BlockKind, HEADER, MAGIC, Packer, Span, Unpacker},
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
        let input = replay(&mut recording, &mut Text::new(&mut again, true, None), |_| {}).unwrap();
        assert!(input.is_whole());
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
            let input = replay(&mut recording, &mut JsonLines::new(&mut shown), |_| missing += 1).unwrap();
            assert_eq!(input.is_damaged, missing > 0);
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
        let input = replay(&mut recording, &mut JsonLines::new(&mut shown), |_| {}).unwrap();
        assert!(input.is_whole());
    }

    /// A sink with only the required method.
    #[derive(Default)]
    struct Count(u64);

    impl Sink for Count {
        fn event(&mut self, _event: &Event) -> io::Result<()> {
            self.0 += 1;
            Ok(())
        }
    }

    /// A recording whose first block of events is damaged: its content, or the mark at its begin.
    fn damaged(mark: bool) -> Vec<u8> {
        let mut file = Vec::new();
        feed(&mut Writer::new(&mut file).unwrap());
        let mut marks = (0..file.len()).filter(|at| file[*at..].starts_with(&MAGIC));
        let events = marks.find(|at| {
            let header = BlockHeader::parse(file[*at..].first_chunk().unwrap()).unwrap();
            header.kind == Some(BlockKind::Events)
        });
        let at = events.unwrap();
        file[if mark { at } else { at + HEADER }] ^= 1;
        file
    }

    #[test]
    fn what_damage_took_is_lost() {
        let mut whole = Count::default();
        feed(&mut whole);
        for mark in [false, true] {
            let (mut left, mut shown) = (Count::default(), Vec::new());
            let file = damaged(mark);
            for sink in [&mut left as &mut dyn Sink, &mut JsonLines::new(&mut shown)] {
                let input = replay(&mut RecordingFile::new(&file[..]).unwrap(), sink, |_| {}).unwrap();
                assert!(input.is_damaged);
            }
            let taken = whole.0 - left.0;
            assert!(taken > 0);
            let shown = String::from_utf8(shown).unwrap();
            let summary: serde_json::Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
            // If the block has lost its number of events, the end of the file reveals it.
            assert_eq!(summary["damaged"]["events"], taken, "{summary}");
            assert_eq!(summary["damaged"]["unknown"], 0);
            let recorded = made_up::summary().books.lost.events();
            assert_eq!(summary["lost"]["events"], recorded + taken);
        }
    }

    #[test]
    fn damage_behind_the_end_of_a_run_is_none_of_the_next() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        feed(&mut Writer::new(&mut first).unwrap());
        first.extend([7; 100]);
        let mut other = made_up::header();
        other.begun.0 += 1;
        feed_as(&other, &mut Writer::new(&mut second).unwrap());
        let mut shown = Vec::new();
        let mut sink = JsonLines::new(&mut shown);
        let mut replay = Replay::new(&mut sink);
        for file in [&first, &second] {
            replay
                .recording(&mut RecordingFile::new(&file[..]).unwrap(), |_| {})
                .unwrap();
        }
        replay.end().unwrap();
        assert!(replay.input.is_damaged);
        let shown = String::from_utf8(shown).unwrap();
        let damaged = "\"damaged\":{\"events\":0,\"bytes\":0,\"unknown\":0}";
        assert_eq!(shown.matches(damaged).count(), 2, "{shown}");
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
                // If it cannot be written again, the result is an error and not a panic.
                let _ = replay(&mut recording, sink, |_| {});
            }
        }
    }
}
