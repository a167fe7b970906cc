//! Joins recordings into one: one run after the other, each with all of its files.
//! Input: recordings that can be read twice; output: blocks.

use std::{
    cmp::Reverse,
    io::{self, Read, Seek, SeekFrom},
};

use crate::{
    recording::{
        blocks::Blocks,
        header::{Begin, End},
        reader::{Item, Missing, ReadError, RecordingFile, UNWRITTEN},
        redact::{Key, Redactor},
        rows::{Batch, Step},
        store::Store,
    },
    run::{header::Header, kept::Damaged},
};

/// A stretch of a file that is one file of one run.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The number of its recording.
    pub recording: usize,
    /// Its begin, bytes from the start of the file.
    from: u64,
    /// Its end, bytes from the start of the file.
    to: u64,
    /// None: its headers are damaged.
    begin: Option<Begin>,
    /// None: it has no end.
    end: Option<End>,
}

impl Piece {
    fn starts(&self, begin: &Begin) -> bool {
        self.end.is_none() && self.begin.as_ref().is_none_or(|known| known.same_file(begin))
    }

    fn header(&self) -> Option<&Header> {
        self.begin.as_ref().map(|begin| &begin.header)
    }

    /// Its number among the files of its run; the first and the last number if others were joined to it.
    #[must_use]
    pub fn parts(&self) -> (u32, u32) {
        self.begin
            .as_ref()
            .map_or((0, 0), |begin| (begin.part, begin.last_part()))
    }
}

/// Finds the pieces of a recording, and reports each missing part to `missing`. `decoded`: also what is missing if the
/// events are read, not only copied.
///
/// # Errors
/// [`ReadError`].
pub fn survey<R: Read>(
    input: R,
    recording: usize,
    decoded: bool,
    mut missing: impl FnMut(&Missing),
) -> Result<Vec<Piece>, ReadError> {
    let mut file = if decoded {
        RecordingFile::new(input)?
    } else {
        RecordingFile::undecoded(input)?
    };
    let mut pieces: Vec<Piece> = Vec::new();
    while let Some(item) = file.next_item()? {
        if let Item::Missing(what) = &item {
            missing(what);
            continue;
        }
        if matches!(item, Item::Events) {
            let mut events = file.events();
            while events.next().is_some() {}
        }
        let goes_on = pieces.last().is_some_and(|piece| match &item {
            Item::Begin(begin) => piece.starts(begin),
            // An unknown block may follow the end as well.
            Item::Unknown => true,
            Item::Events | Item::Interval(_) | Item::End(_) | Item::Missing(_) => piece.end.is_none(),
        });
        if !goes_on {
            pieces.push(Piece {
                recording,
                from: file.place.map_or(0, |place| place.at),
                to: 0,
                begin: None,
                end: None,
            });
        }
        let Some(piece) = pieces.last_mut() else { continue };
        piece.to = file.position();
        match item {
            Item::Begin(begin) => {
                piece.begin.get_or_insert(*begin);
            }
            Item::End(end) => piece.end = Some(*end),
            Item::Events | Item::Interval(_) | Item::Unknown | Item::Missing(_) => {}
        }
    }
    Ok(pieces)
}

/// A run and its pieces that were given, in order.
#[derive(Debug)]
pub struct RunPieces {
    /// Its files; at least one.
    pieces: Vec<Piece>,
}

impl RunPieces {
    /// Ranges of files between its pieces, and within them, that are missing.
    fn absent(&self) -> Vec<(u32, u32)> {
        let mut absent = Vec::new();
        let mut next = None;
        let begins = self.pieces.iter().filter_map(|piece| piece.begin.as_ref());
        for (first, last) in begins.flat_map(Begin::spans) {
            if let Some(next) = next.filter(|next| *next < first) {
                absent.push((next, first - 1));
            }
            next = Some(last.saturating_add(1));
        }
        absent
    }
}

/// A problem that is found while pieces are put in order.
#[derive(Clone, Debug)]
pub enum Note {
    /// Both are the same part of one run; the second is used.
    Twice(Piece, Piece),
    /// Files of the run between the end of the first and the begin of the second were not given.
    Between(Piece, Piece),
}

/// Groups pieces into runs, ordered by the time at which the runs began, and reports problems to `note`.
pub fn arrange(mut pieces: Vec<Piece>, mut note: impl FnMut(Note)) -> Vec<RunPieces> {
    let began = |header: &Header| header.clock_offset.saturating_add(header.begun.0.into());
    let identity = |header: &Header| (began(header), header.host.clone(), header.boot_id.clone());
    // Between two pieces of one part, the one with an end is used, else the longer one. A run without a header comes
    // first.
    pieces.sort_by_cached_key(|piece| {
        let size = Reverse(piece.to - piece.from);
        (piece.header().map(identity), piece.parts().0, piece.end.is_none(), size)
    });
    let mut runs: Vec<RunPieces> = Vec::new();
    for piece in pieces {
        let same_run = |last: &Piece| match (last.header(), piece.header()) {
            (Some(last), Some(this)) => last.same_run(this),
            _ => false,
        };
        let run = runs
            .last_mut()
            .and_then(|run| Some((run.pieces.last()?.clone(), run)))
            .filter(|(last, _)| same_run(last));
        match run {
            None => runs.push(RunPieces { pieces: vec![piece] }),
            Some((last, _)) if piece.parts().0 <= last.parts().1 => note(Note::Twice(piece, last)),
            Some((last, run)) => {
                if piece.parts().0 > last.parts().1.saturating_add(1) {
                    note(Note::Between(last, piece.clone()));
                }
                run.pieces.push(piece);
            }
        }
    }
    runs
}

/// Why recordings could not be joined.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The recording with that number cannot be read.
    #[error("{1}")]
    Read(usize, ReadError),
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Writes a run. Blocks are copied as they are, or redacted if there is a `key`. A number is skipped where something is
/// missing. Returns whether everything that can be read was copied.
///
/// # Errors
/// [`MergeError`].
pub fn write<R: Read + Seek, S: Store>(
    run: &RunPieces,
    recordings: &mut [R],
    key: Option<&Key>,
    out: &mut Blocks<S>,
) -> Result<bool, MergeError> {
    let (Some(first), Some(last)) = (run.pieces.first(), run.pieces.last()) else {
        return Ok(true);
    };
    let begin = first.begin.clone().unwrap_or_else(|| Begin::of(Header::unknown()));
    let begin = Begin {
        joined: last.parts().1 - first.parts().0,
        absent: run.absent(),
        ..begin
    };
    let redactor = key.map(|key| Redactor::new(key, &begin.header));
    out.begin(match &redactor {
        Some(redactor) => redactor.begin(&begin),
        None => begin,
    })?;
    let mut copying = Copying {
        out,
        redactor,
        batch: Batch::default(),
        gap: first.begin.is_none(),
        missing: Some(0),
        whole: true,
    };
    let mut next = first.parts().0;
    for piece in &run.pieces {
        if piece.parts().0 > next {
            (copying.gap, copying.missing) = (true, None);
        }
        next = piece.parts().1.saturating_add(1);
        let number = piece.recording;
        if let Some(recording) = recordings.get_mut(number) {
            copying.piece(piece, recording).map_err(|error| match error {
                CopyError::Read(error) => MergeError::Read(number, error),
                CopyError::Write(error) => MergeError::Write(error),
            })?;
        }
    }
    if let Some(end) = &last.end {
        let ends = run.pieces.iter().filter_map(|piece| piece.end.as_ref());
        let unwritten = ends.fold(0, |sum: u64, end| sum.saturating_add(end.unwritten));
        copying.pass_over();
        // If some of the missing events are not counted, the sum would hide them.
        let missing = copying.missing.unwrap_or(0);
        copying.out.end_after(missing, unwritten, end.finished.clone())?;
    }
    Ok(copying.whole)
}

enum CopyError {
    Read(ReadError),
    Write(io::Error),
}

struct Copying<'a, S> {
    out: &'a mut Blocks<S>,
    redactor: Option<Redactor<'a>>,
    batch: Batch,
    /// Whether something is missing before the next block.
    gap: bool,
    /// Events that are missing; None: their number is not known.
    missing: Option<u64>,
    /// Whether everything that can be read was copied.
    whole: bool,
}

impl<S: Store> Copying<'_, S> {
    fn pass_over(&mut self) {
        if std::mem::take(&mut self.gap) {
            self.out.gap();
        }
    }

    fn piece<R: Read + Seek>(&mut self, piece: &Piece, recording: &mut R) -> Result<(), CopyError> {
        let read = |error: io::Error| CopyError::Read(error.into());
        recording.seek(SeekFrom::Start(piece.from)).map_err(read)?;
        let stretch = recording.take(piece.to - piece.from);
        let mut file = match self.redactor {
            Some(_) => RecordingFile::new(stretch),
            None => RecordingFile::undecoded(stretch),
        }
        .map_err(read)?;
        let mut damaged = Damaged::default();
        let mut events: u64 = 0;
        while let Some(item) = file.next_item().map_err(CopyError::Read)? {
            match &item {
                Item::Missing(missing) if missing.what != UNWRITTEN => damaged.add(missing.into()),
                Item::Events => events += u64::from(file.place.map_or(0, |place| place.header.rows)),
                Item::Begin(_) | Item::Interval(_) | Item::End(_) | Item::Unknown | Item::Missing(_) => {}
            }
            self.item(&item, &mut file).map_err(CopyError::Write)?;
        }
        // An absent end counts as missing if other files follow.
        self.gap |= piece.end.is_none();
        if let Some(end) = &piece.end {
            damaged.explain(end.events, events);
        }
        let known = damaged.unknown == 0 && piece.end.is_some();
        self.missing = self
            .missing
            .filter(|_| known)
            .map(|sum| sum.saturating_add(damaged.events));
        Ok(())
    }

    fn item<R: Read>(&mut self, item: &Item, file: &mut RecordingFile<R>) -> io::Result<()> {
        match (item, &mut self.redactor) {
            // These are written anew.
            (Item::Begin(_) | Item::End(_), _) => Ok(()),
            (Item::Missing(missing), _) => {
                // The end block itself reports the events that could not be written.
                self.gap |= missing.what != UNWRITTEN;
                Ok(())
            }
            (Item::Events | Item::Interval(_) | Item::Unknown, None) => {
                self.pass_over();
                let rows = file.place.map_or(0, |place| place.header.rows);
                let of_events = matches!(item, Item::Events);
                self.out.copy(file.block(), if of_events { rows } else { 0 })
            }
            (Item::Events, Some(redactor)) => {
                redactor.next_block();
                let mut events = file.events();
                while let Some(step) = events.next() {
                    match step {
                        Step::Event(event) => self.batch.push(&redactor.event(event)),
                        Step::Turn => self.batch.turn(),
                    }
                }
                // The next item reports a block without a readable event.
                if self.batch.rows() == 0 {
                    return Ok(());
                }
                self.pass_over();
                self.out.events(&mut self.batch)
            }
            (Item::Interval(interval), Some(_)) => {
                self.pass_over();
                self.out.interval(interval)
            }
            // An unknown block may contain what is to be redacted.
            (Item::Unknown, Some(_)) => {
                (self.gap, self.whole) = (true, false);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
