//! The blocks of a recording, numbered, with the headers among them that a file cannot do without.
//! Input: what blocks hold, or blocks of other recordings as they are; output: a [`Store`].

use std::io;

use serde::Serialize;

use crate::{
    recording::{
        block::{self, BlockKind, MAX_JSON, Packer, Span},
        header::{Begin, End, Finished},
        rows::Batch,
        store::Store,
    },
    run::intervals::Interval,
};

/// The header comes twice at first, then after every 256 blocks: nothing else can be read without it.
const HEADER_EVERY: u32 = 256;

/// Writes blocks.
pub struct Blocks<S> {
    pub(super) store: S,
    packer: Packer,
    begin: Option<Begin>,
    /// Numbers used in this file.
    count: u32,
    /// Blocks since the last header.
    since_header: u32,
    /// Events in this file.
    events: u64,
    content: Vec<u8>,
    block: Vec<u8>,
    /// Events that could not be written into this file.
    unwritten: u64,
    /// Whether part of a block could not be taken back. Nothing can follow it.
    pub(super) torn: bool,
}

impl<S: Store> Blocks<S> {
    /// A writer of blocks into `store`.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(store: S) -> io::Result<Self> {
        Ok(Self {
            store,
            packer: Packer::new()?,
            begin: None,
            count: 0,
            since_header: 0,
            events: 0,
            content: Vec::new(),
            block: Vec::new(),
            unwritten: 0,
            torn: false,
        })
    }

    /// Begins a file, or the next recording in it.
    ///
    /// # Errors
    /// As for writing.
    pub fn begin(&mut self, begin: Begin) -> io::Result<()> {
        self.begin = Some(begin);
        (self.count, self.events, self.unwritten) = (0, 0, 0);
        self.header()?;
        self.header()
    }

    /// Ends the file and begins the next one of the run.
    ///
    /// # Errors
    /// As for writing.
    pub(super) fn next_file(&mut self) -> io::Result<()> {
        self.end(None)?;
        self.store.next_file()?;
        let Some(mut begin) = self.begin.take() else {
            return Ok(());
        };
        begin.part += 1;
        self.begin(begin)
    }

    /// Writes a batch and empties it.
    ///
    /// # Errors
    /// As for writing.
    pub fn events(&mut self, batch: &mut Batch) -> io::Result<()> {
        self.content.clear();
        let span = batch.finish(&mut self.content);
        self.pack(BlockKind::Events, span)?;
        self.repeat_header()
    }

    /// Writes an interval of the books.
    ///
    /// # Errors
    /// As for writing.
    pub fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        let span = Span {
            rows: 0,
            first: interval.account.begin,
            last: interval.account.end,
        };
        self.json(BlockKind::Interval, span, interval)?;
        self.repeat_header()
    }

    fn json(&mut self, kind: BlockKind, span: Span, value: &impl Serialize) -> io::Result<()> {
        self.content.clear();
        serde_json::to_writer(&mut self.content, value)?;
        if self.content.len() > MAX_JSON {
            let message = format!(
                "its {} block became too long: {} bytes",
                kind.name(),
                self.content.len()
            );
            return Err(io::Error::other(message));
        }
        self.pack(kind, span)
    }

    /// Writes a block of another recording, whole and with `rows` events, under its new number.
    ///
    /// # Errors
    /// As for writing.
    pub fn copy(&mut self, whole: &[u8], rows: u32) -> io::Result<()> {
        self.block.clear();
        self.block.extend(whole);
        block::renumber(&mut self.block, self.count);
        self.write(rows)?;
        self.repeat_header()
    }

    /// Skips a number, so that a reader sees that something is missing there.
    pub fn gap(&mut self) {
        self.count = self.count.wrapping_add(1);
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As for writing.
    pub(super) fn end(&mut self, finished: Option<Finished>) -> io::Result<()> {
        self.end_after(0, self.unwritten, finished)
    }

    /// Ends the file. `missing` events are known to belong to it and were not there to be copied, and `unwritten` events
    /// could not be written into it.
    ///
    /// # Errors
    /// As for writing.
    pub fn end_after(&mut self, missing: u64, unwritten: u64, finished: Option<Finished>) -> io::Result<()> {
        let end = End {
            events: self.events.saturating_add(missing),
            unwritten,
            finished,
        };
        self.json(BlockKind::End, Span::default(), &end)
    }

    /// Called after the last block.
    ///
    /// # Errors
    /// As for writing.
    pub fn done(&mut self) -> io::Result<()> {
        self.store.done()
    }

    fn header(&mut self) -> io::Result<()> {
        let Some(begin) = self.begin.take() else { return Ok(()) };
        let at = begin.header.begun;
        let span = Span {
            rows: 0,
            first: at,
            last: at,
        };
        let written = self.json(BlockKind::Header, span, &begin);
        self.begin = Some(begin);
        self.since_header = 0;
        written
    }

    fn repeat_header(&mut self) -> io::Result<()> {
        if self.since_header < HEADER_EVERY {
            return Ok(());
        }
        self.header()
    }

    fn pack(&mut self, kind: BlockKind, span: Span) -> io::Result<()> {
        self.block.clear();
        self.packer
            .pack(kind, self.count, span, &self.content, &mut self.block)?;
        self.write(span.rows)
    }

    fn write(&mut self, rows: u32) -> io::Result<()> {
        let written = self.store.write_all(&self.block).and_then(|()| self.store.block_done());
        if written.is_ok() {
            self.count = self.count.wrapping_add(1);
            self.since_header += 1;
            self.events += u64::from(rows);
        } else {
            self.unwritten += u64::from(rows);
            self.torn = self.store.cut_back().is_err();
        }
        written
    }
}
