//! Reads recordings again, block by block, whatever damage a file has.
//! Input: a recording, from a file or a pipe.

use std::io::{self, BufRead as _, BufReader, Read};

use crate::{
    recording::{
        Damage, VERSION,
        block::{BlockHeader, BlockKind, HEADER, MAGIC, MAX_JSON, MAX_PAYLOAD, Unpacker},
        header::{Begin, End},
        rows::{self, Step},
    },
    run::intervals::Interval,
};

/// Bytes of one read.
const CHUNK: usize = 1 << 18;

/// The next item of a recording.
#[derive(Debug)]
pub enum Item {
    /// How the run was made. It is repeated within a file.
    Begin(Box<Begin>),
    /// Some events, in the order in which they came: [`RecordingFile::events`] reads them.
    Events,
    /// An interval of the books.
    Interval(Box<Interval>),
    /// The end of the file.
    End(Box<End>),
    /// A block of a kind that this version does not know, and need not know.
    Unknown,
    /// Something is missing.
    Missing(Missing),
}

/// A part of a recording that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its begin, bytes from the start of the file.
    pub at: u64,
    /// Its length, bytes.
    pub bytes: u64,
    /// The number of events in it; None: unknown.
    pub events: Option<u64>,
    /// The kind of damage.
    pub what: &'static str,
}

/// Why a recording cannot be read at all, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It contains nothing that tracer has written.
    #[error("not a recording of tracer")]
    Foreign,
    /// It has no bytes.
    #[error("empty: not a recording of tracer")]
    Empty,
    /// It was written by a later tracer.
    #[error("recorded in version {0} of the format; this tracer reads up to version {VERSION}: use a newer one")]
    Newer(u16),
    /// An error of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn json<T: serde::de::DeserializeOwned>(content: &[u8]) -> Result<T, Damage> {
    if content.len() > MAX_JSON {
        return Err(Damage("its content is too long"));
    }
    serde_json::from_slice(content).map_err(|_| Damage("its content makes no sense"))
}

/// The position and header of a block in the file, for `info`.
#[derive(Clone, Copy, Debug)]
pub struct BlockPlace {
    /// Its begin, bytes from the start of the file.
    pub at: u64,
    /// Its header.
    pub header: BlockHeader,
}

/// The kind of the previous part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No block yet.
    Foreign,
    /// A valid block.
    Whole,
    /// Damage. A gap in the numbers after it is not reported again.
    Damaged,
    /// The end block.
    Ended,
}

/// A recording that is being read.
pub struct RecordingFile<R> {
    input: BufReader<R>,
    /// Bytes that were read and are not yet used, from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// The position of `start` in the file.
    at: u64,
    at_end: bool,
    unpacker: Unpacker,
    content: Vec<u8>,
    /// Whether events are not decoded: they are only copied, so that a valid checksum is enough.
    undecoded: bool,
    /// The next block's number.
    sequence: u32,
    state: State,
    /// The end of the file, held back until the events that could not be written were reported.
    end: Option<Box<End>>,
    /// Events of the last item that were not read.
    unread: u32,
    /// The damage that was found while reading them. The next item reports it.
    broken: Option<Damage>,
    /// The last block that was found, valid or not.
    pub place: Option<BlockPlace>,
}

impl<R: Read> RecordingFile<R> {
    /// A reader that starts at the first byte of `input`.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(input: R) -> io::Result<Self> {
        Ok(Self {
            input: BufReader::with_capacity(CHUNK, input),
            buffer: Vec::new(),
            start: 0,
            at: 0,
            at_end: false,
            unpacker: Unpacker::new()?,
            content: Vec::new(),
            undecoded: false,
            sequence: 0,
            state: State::Foreign,
            end: None,
            unread: 0,
            broken: None,
            place: None,
        })
    }

    /// The same, but [`RecordingFile::events`] is empty: for callers that copy blocks.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn undecoded(input: R) -> io::Result<Self> {
        Ok(Self {
            undecoded: true,
            ..Self::new(input)?
        })
    }

    /// The bytes and header of the last item's block, unless something is missing.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        let whole = self.place.map_or(0, |place| HEADER + place.header.packed);
        &self.buffer[self.start.saturating_sub(whole)..self.start]
    }

    /// The events of the last [`Item::Events`]. They end before one that cannot be read; the next item reports it.
    pub fn events(&mut self) -> Events<'_> {
        let rows = if self.unread > 0 {
            rows::Events::new(&self.content).map(Some)
        } else {
            Ok(None)
        };
        let rows = rows.unwrap_or_else(|damage| {
            self.broken = Some(damage);
            None
        });
        Events {
            rows,
            unread: &mut self.unread,
            broken: &mut self.broken,
        }
    }

    /// Bytes that were used so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// The next item; None at the end.
    ///
    /// # Errors
    /// [`ReadError`]: nothing more can be read.
    pub fn next_item(&mut self) -> Result<Option<Item>, ReadError> {
        let unread = std::mem::take(&mut self.unread);
        if let Some(Damage(what)) = self.broken.take() {
            let bytes = self.place.map_or(0, |place| (HEADER + place.header.packed) as u64);
            return Ok(Some(self.missing(self.at - bytes, bytes, Some(unread.into()), what)));
        }
        if let Some(end) = self.end.take() {
            return Ok(Some(Item::End(end)));
        }
        let skipped = self.find_block()?;
        if skipped > 0 && self.place.is_none() && self.header().is_none() {
            return Err(ReadError::Foreign);
        }
        if skipped > 0 {
            return Ok(Some(self.missing(
                self.at - skipped,
                skipped,
                None,
                "no block begins there",
            )));
        }
        let Some(header) = self.header() else {
            return self.close();
        };
        if header.version > VERSION {
            return Err(ReadError::Newer(header.version));
        }
        let begins = header.sequence == 0 && header.kind == Some(BlockKind::Header) && self.state != State::Foreign;
        if begins && self.state != State::Ended {
            return Ok(Some(self.no_end()));
        }
        if begins {
            // Recordings may follow each other in one file.
            self.sequence = 0;
        }
        let damaged = self.state == State::Damaged;
        self.state = State::Whole;
        self.place = Some(BlockPlace { at: self.at, header });
        let rows = (header.kind == Some(BlockKind::Events)).then(|| u64::from(header.rows));
        let expected = std::mem::replace(&mut self.sequence, header.sequence.wrapping_add(1));
        if header.sequence != expected && !damaged {
            self.sequence = header.sequence;
            return Ok(Some(self.missing(self.at, 0, None, "blocks are missing before it")));
        }
        let whole = HEADER + header.packed;
        if self.fill(whole)? < whole {
            let at = self.at;
            let left = self.skip(self.next_header(self.buffer.len() - self.start));
            return Ok(Some(self.missing(
                at,
                left,
                rows.or(Some(0)),
                "the file was cut off in this block",
            )));
        }
        let at = self.at;
        let item = self.read_block(&header);
        let read = if item.is_err() { self.next_header(whole) } else { whole };
        self.skip(read);
        match item {
            Ok(item) => Ok(Some(item)),
            Err(Damage(what)) => Ok(Some(self.missing(at, read as u64, rows.or(Some(0)), what))),
        }
    }

    fn read_block(&mut self, header: &BlockHeader) -> Result<Item, Damage> {
        let block = &self.buffer[self.start..self.start + HEADER + header.packed];
        let packed = &block[HEADER..];
        let kind = match header.kind {
            Some(BlockKind::Events) if self.undecoded => return header.check(packed).map(|()| Item::Events),
            None => return header.check(packed).map(|()| Item::Unknown),
            Some(kind) => kind,
        };
        self.unpacker.unpack(header, packed, &mut self.content)?;
        Ok(match kind {
            BlockKind::Header => Item::Begin(json(&self.content)?),
            BlockKind::Events => {
                self.unread = header.rows;
                Item::Events
            }
            BlockKind::Interval => Item::Interval(json(&self.content)?),
            BlockKind::End => {
                let end: Box<End> = json(&self.content)?;
                self.state = State::Ended;
                if end.unwritten == 0 {
                    return Ok(Item::End(end));
                }
                let missing = Missing {
                    at: self.at,
                    bytes: 0,
                    events: Some(end.unwritten),
                    what: "they could not be written",
                };
                self.end = Some(end);
                Item::Missing(missing)
            }
        })
    }

    fn missing(&mut self, at: u64, bytes: u64, events: Option<u64>, what: &'static str) -> Item {
        // Other data after an end is not part of the file.
        if self.state != State::Ended {
            self.state = State::Damaged;
        }
        Item::Missing(Missing {
            at,
            bytes,
            events,
            what,
        })
    }

    /// Handles the end of the file.
    fn close(&mut self) -> Result<Option<Item>, ReadError> {
        if self.place.is_none() {
            return Err(if self.at == 0 {
                ReadError::Empty
            } else {
                ReadError::Foreign
            });
        }
        if self.state == State::Ended {
            return Ok(None);
        }
        Ok(Some(self.no_end()))
    }

    fn no_end(&mut self) -> Item {
        let what = "it has no end: tracer was killed, the file was cut off, or it is still being recorded; events of up \
                    to a second before are missing";
        let missing = self.missing(self.at, 0, None, what);
        self.state = State::Ended;
        missing
    }

    /// Skips to the begin of the next block, or to the end. Returns the number of skipped bytes.
    fn find_block(&mut self) -> Result<u64, ReadError> {
        let mut skipped = 0;
        loop {
            let there = self.fill(HEADER)?;
            if there == 0 || self.header().is_some() {
                return Ok(skipped);
            }
            if self.place.is_none() && skipped > (MAX_PAYLOAD + HEADER) as u64 {
                return Err(ReadError::Foreign);
            }
            let bytes = &self.buffer[self.start + 1..];
            let next = bytes.windows(MAGIC.len()).position(|window| window == MAGIC);
            // The last bytes may be the begin of a mark.
            let keep = if self.at_end { 0 } else { MAGIC.len() - 1 };
            let step = next.map_or_else(|| (bytes.len() + 1).saturating_sub(keep).max(1), |at| at + 1);
            skipped += self.skip(step);
        }
    }

    /// The distance from a damaged block's begin to the next possible header, at most `most`: some of the block's bytes
    /// may be missing.
    fn next_header(&self, most: usize) -> usize {
        let bytes = &self.buffer[self.start..];
        let begins = |at: &usize| bytes[*at..].first_chunk().and_then(BlockHeader::parse).is_some();
        (HEADER..most).find(begins).unwrap_or(most)
    }

    fn header(&self) -> Option<BlockHeader> {
        BlockHeader::parse(self.buffer[self.start..].first_chunk()?)
    }

    fn skip(&mut self, bytes: usize) -> u64 {
        self.start += bytes;
        self.at += bytes as u64;
        bytes as u64
    }

    /// Reads until `wanted` bytes are there, or to the end. Returns the number of bytes that are there.
    fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        if self.buffer.len() - self.start < wanted && !self.at_end {
            self.buffer.drain(..self.start);
            self.start = 0;
            while self.buffer.len() < wanted && !self.at_end {
                // Only the available bytes are taken: a pipe's writer may be slow.
                let read = match self.input.fill_buf() {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                self.buffer.extend_from_slice(read);
                let read = read.len();
                self.input.consume(read);
                self.at_end = read == 0;
            }
        }
        Ok(self.buffer.len() - self.start)
    }
}

/// The events of a block.
pub struct Events<'a> {
    /// None: nothing more can be read.
    rows: Option<rows::Events<'a>>,
    unread: &'a mut u32,
    broken: &'a mut Option<Damage>,
}

impl Events<'_> {
    /// The next event, or the turn after shown events; None at the end.
    #[inline]
    #[expect(
        clippy::should_implement_trait,
        reason = "the returned event is valid until the next call"
    )]
    pub fn next(&mut self) -> Option<Step<'_>> {
        if self.broken.is_some() {
            return None;
        }
        let damage = match self.rows.as_mut()?.step() {
            Ok(Some(Step::Event(event))) => match self.unread.checked_sub(1) {
                Some(left) => {
                    *self.unread = left;
                    return Some(Step::Event(event));
                }
                None => Damage("it has more rows than it says"),
            },
            Ok(Some(Step::Turn)) => return Some(Step::Turn),
            Ok(None) if *self.unread == 0 => return None,
            Ok(None) => Damage("it has fewer rows than it says"),
            Err(damage) => damage,
        };
        *self.broken = Some(damage);
        None
    }
}

#[cfg(test)]
mod tests;
