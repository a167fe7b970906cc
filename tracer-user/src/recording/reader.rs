//! Reads recordings again, block by block, whatever damage a file has.
//! Input: a recording, from a file or a pipe.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Read},
};

use crate::{
    recording::{
        Damage, VERSION,
        block::{BlockHeader, BlockKind, HEADER, MAGIC, MAX_JSON, MAX_PAYLOAD, Unpacker},
        header::{Begin, End},
        rows::{self, Step},
    },
    run::{intervals::Interval, kept::Damaged},
};

/// Bytes of one read.
const CHUNK: usize = 1 << 18;
/// All JSON of a file may be as long as this, and [`JSON_EACH`] bytes longer for each byte of the file before its end:
/// what callers keep of it is bounded by the file's length, however well it is packed.
const JSON_FIRST: u64 = 2 * MAX_JSON as u64;
const JSON_EACH: u64 = 8;
/// Bytes of damaged blocks that may be read again in search of other blocks inside them, and for each byte before them
/// this many more: nested blocks cannot make the time grow with the square of the length.
const AGAIN_FIRST: u64 = 4 * MAX_PAYLOAD as u64;
const AGAIN_EACH: u64 = 4;
/// The kind of damage when the end reports events that could not be written.
pub const UNWRITTEN: &str = "they could not be written";

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

impl From<&Missing> for Damaged {
    fn from(missing: &Missing) -> Self {
        Self {
            events: missing.events.unwrap_or(0),
            bytes: missing.bytes,
            unknown: u64::from(missing.events.is_none()),
        }
    }
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

/// Facts about a file, which its other blocks are checked against.
#[derive(Clone, Copy, Debug, Default)]
struct FileSoFar {
    /// The checksum of its header. All its headers are the same.
    header: Option<u32>,
    /// Events that were found.
    events: u64,
    /// Events that are known to be missing.
    missing: u64,
    /// Whether an unknown number of events is missing.
    unknown: bool,
    /// Whether something is missing.
    damaged: bool,
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
    /// Items that the end block held, of which the end is the last.
    held: VecDeque<Item>,
    /// Events of the last item that were not read.
    unread: u32,
    /// The damage that was found while reading them. The next item reports it.
    broken: Option<Damage>,
    /// Facts about the file so far. Files may follow each other.
    file: FileSoFar,
    /// Bytes of JSON so far.
    json: u64,
    /// Bytes of damaged blocks that are read again.
    again: u64,
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
            held: VecDeque::new(),
            unread: 0,
            broken: None,
            file: FileSoFar::default(),
            json: 0,
            again: 0,
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
            self.file.events = self.file.events.saturating_sub(unread.into());
            // All declared events were read: how many more there are is not known.
            let events = (unread > 0).then_some(unread.into());
            return Ok(Some(self.missing(self.at - bytes, bytes, events, what)));
        }
        if let Some(item) = self.held.pop_front() {
            return Ok(Some(item));
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
            self.file = FileSoFar::default();
        }
        let damaged = self.state == State::Damaged;
        self.state = State::Whole;
        self.place = Some(BlockPlace { at: self.at, header });
        let rows = match (header.kind, header.rows) {
            (Some(BlockKind::Events), 0) => None,
            (Some(BlockKind::Events), rows) => Some(rows.into()),
            _ => Some(0),
        };
        let expected = std::mem::replace(&mut self.sequence, header.sequence.wrapping_add(1));
        if header.sequence != expected && !damaged {
            self.sequence = header.sequence;
            return Ok(Some(self.missing(self.at, 0, None, "blocks are missing before it")));
        }
        let headless = self.file.header.is_none() && header.kind.is_some_and(|kind| kind != BlockKind::Header);
        if headless && !self.file.damaged {
            self.sequence = header.sequence;
            return Ok(Some(self.missing(self.at, 0, None, "its header is missing")));
        }
        let whole = HEADER + header.packed;
        if self.fill(whole)? < whole {
            let at = self.at;
            let left = self.skip(self.next_header(self.buffer.len() - self.start));
            return Ok(Some(self.missing(at, left, rows, "the file was cut off in this block")));
        }
        let at = self.at;
        let item = self.read_block(&header, damaged);
        let read = if item.is_err() {
            self.next_in_damage(whole)
        } else {
            whole
        };
        self.skip(read);
        match item {
            Ok(item) => Ok(Some(item)),
            Err(Damage(what)) => Ok(Some(self.missing(at, read as u64, rows, what))),
        }
    }

    /// Reads a block that is there. `damaged`: something is missing directly before it.
    fn read_block(&mut self, header: &BlockHeader, damaged: bool) -> Result<Item, Damage> {
        header.check_rows()?;
        let block = &self.buffer[self.start..self.start + HEADER + header.packed];
        let packed = &block[HEADER..];
        let kind = match header.kind {
            Some(BlockKind::Events) if self.undecoded => {
                header.check(packed)?;
                self.file.events += u64::from(header.rows);
                return Ok(Item::Events);
            }
            None => return header.check(packed).map(|()| Item::Unknown),
            Some(kind) => kind,
        };
        if kind != BlockKind::Events {
            self.json += header.unpacked as u64;
            let allowed = JSON_FIRST + JSON_EACH * (self.at + block.len() as u64);
            if header.unpacked > MAX_JSON {
                return Err(Damage("its content is too long"));
            }
            if self.json > allowed {
                return Err(Damage(
                    "it and the blocks before it have more content than the file may have",
                ));
            }
        }
        self.unpacker.unpack(header, packed, &mut self.content)?;
        Ok(match kind {
            BlockKind::Header => {
                let begin = json(&self.content)?;
                let sum = crc32fast::hash(&self.content);
                let known = self.file.header.replace(sum);
                // After damage, another file may have begun whose first blocks are missing.
                if !damaged && known.is_some_and(|known| known != sum) {
                    self.file.header = known;
                    return Err(Damage("it differs from the header before it"));
                }
                Item::Begin(begin)
            }
            BlockKind::Events => {
                self.unread = header.rows;
                self.file.events += u64::from(header.rows);
                Item::Events
            }
            BlockKind::Interval => Item::Interval(json(&self.content)?),
            BlockKind::End => self.end(json(&self.content)?),
        })
    }

    /// The first item of an end block: what is missing according to it, or else the end.
    fn end(&mut self, end: Box<End>) -> Item {
        self.state = State::Ended;
        // Blocks after it belong to no file before a header begins one.
        let file = std::mem::take(&mut self.file);
        let known = file.events.saturating_add(file.missing);
        let differs = if file.events > end.events {
            Some((None, "its end counts fewer events than there are"))
        } else if known < end.events && !file.unknown {
            Some((Some(end.events - known), "its end counts more events than there are"))
        } else {
            // If an unknown number is missing, the end explains the difference.
            None
        };
        let unwritten = (end.unwritten > 0).then_some((Some(end.unwritten), UNWRITTEN));
        let at = self.at;
        let missing = [differs, unwritten].into_iter().flatten().map(|(events, what)| {
            Item::Missing(Missing {
                at,
                bytes: 0,
                events,
                what,
            })
        });
        self.held.extend(missing);
        match self.held.pop_front() {
            Some(first) => {
                self.held.push_back(Item::End(end));
                first
            }
            None => Item::End(end),
        }
    }

    fn missing(&mut self, at: u64, bytes: u64, events: Option<u64>, what: &'static str) -> Item {
        self.file.damaged = true;
        match events {
            Some(events) => self.file.missing = self.file.missing.saturating_add(events),
            None => self.file.unknown = true,
        }
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

    /// The distance from a damaged block's begin to the place where reading goes on: the next header in its `whole`
    /// bytes, unless too many bytes have been read again for that.
    fn next_in_damage(&mut self, whole: usize) -> usize {
        let next = self.next_header(whole);
        let again = self.again + (whole - next) as u64;
        if again > AGAIN_FIRST + AGAIN_EACH * self.at {
            return whole;
        }
        self.again = again;
        next
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
