//! Recordings: events packed into blocks, at least each second.
//! Input: events; output: a [`Store`].

pub mod files;

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    analysis::intervals::Interval,
    event::Event,
    recording::{
        block::{Kind, Packer, Span},
        header::{Begin, End, Finished},
        rows::Batch,
    },
    sink::{Header, Sink, Summary},
};

/// No event waits longer for its block.
const DUE: Duration = Duration::from_secs(1);
/// A block that is full: by then its columns are as short as they get.
const FULL_ROWS: u32 = 1 << 16;
const FULL_BYTES: usize = 1 << 23;
/// The header is what the rest cannot do without: it comes twice at first, then with every so many blocks.
const HEADER_EVERY: u32 = 256;

/// Where blocks go.
pub trait Store: Write {
    /// Whether a file is full, so that the next one is due.
    fn is_full(&self) -> bool;

    /// Whether there may be another file after one that is full.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`]: there is to be no other, and the run ends.
    fn may_rotate(&self) -> io::Result<()>;

    /// Ends the file and begins the next one.
    ///
    /// # Errors
    /// As for writing.
    fn next_file(&mut self) -> io::Result<()>;

    /// After each block.
    ///
    /// # Errors
    /// As for writing.
    fn block_done(&mut self) -> io::Result<()>;

    /// Takes back what was written of a block that could not be written whole.
    ///
    /// # Errors
    /// Where that cannot be done: nothing can come after it.
    fn cut_back(&mut self) -> io::Result<()>;

    /// After the last block.
    ///
    /// # Errors
    /// As for writing.
    fn done(&mut self) -> io::Result<()>;
}

/// Writes a recording.
pub struct Recording<S> {
    store: S,
    packer: Packer,
    batch: Batch,
    begin: Option<Begin>,
    /// Blocks in this file.
    blocks: u32,
    /// Events in this file.
    events: u64,
    /// When what waits is due.
    due: Option<Instant>,
    content: Vec<u8>,
    block: Vec<u8>,
    /// Events that could not be written.
    unwritten: u64,
    /// A part of a block could not be taken back: nothing comes after it.
    torn: bool,
}

impl<S: Store> Recording<S> {
    /// Into that store.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(store: S) -> io::Result<Self> {
        Ok(Self {
            store,
            packer: Packer::new()?,
            batch: Batch::default(),
            begin: None,
            blocks: 0,
            events: 0,
            due: None,
            content: Vec::new(),
            block: Vec::new(),
            unwritten: 0,
            torn: false,
        })
    }

    fn write(&mut self, kind: Kind, span: Span) -> io::Result<()> {
        self.block.clear();
        self.packer
            .pack(kind, self.blocks, span, &self.content, &mut self.block)?;
        let written = self.store.write_all(&self.block).and_then(|()| self.store.block_done());
        if written.is_ok() {
            self.blocks += 1;
        } else {
            self.unwritten += u64::from(span.rows);
            self.torn = self.store.cut_back().is_err();
        }
        written
    }

    fn write_json(&mut self, kind: Kind, span: Span, value: &impl Serialize) -> io::Result<()> {
        self.content.clear();
        serde_json::to_writer(&mut self.content, value)?;
        self.write(kind, span)
    }

    fn write_header(&mut self) -> io::Result<()> {
        let Some(begin) = self.begin.take() else { return Ok(()) };
        let at = begin.header.begun;
        let span = Span {
            rows: 0,
            first: at,
            last: at,
        };
        let written = self.write_json(Kind::Header, span, &begin);
        self.begin = Some(begin);
        written
    }

    fn write_events(&mut self) -> io::Result<()> {
        self.due = None;
        if self.batch.rows() == 0 {
            return Ok(());
        }
        self.content.clear();
        let span = self.batch.finish(&mut self.content);
        self.write(Kind::Events, span)?;
        self.events += u64::from(span.rows);
        if self.blocks.is_multiple_of(HEADER_EVERY) {
            self.write_header()?;
        }
        if self.store.is_full() {
            self.store.may_rotate()?;
            self.write_end(None)?;
            self.store.next_file()?;
            (self.blocks, self.events) = (0, 0);
            if let Some(begin) = &mut self.begin {
                begin.part += 1;
            }
            self.write_header()?;
            self.write_header()?;
        }
        Ok(())
    }

    fn write_end(&mut self, finished: Option<Finished>) -> io::Result<()> {
        let end = End {
            events: self.events,
            unwritten: self.unwritten,
            finished,
        };
        self.write_json(Kind::End, Span::default(), &end)
    }
}

impl<S: Store> Sink for Recording<S> {
    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.begin = Some(Begin {
            header: header.clone(),
            part: 0,
        });
        self.write_header()?;
        self.write_header()
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.batch.push(event);
        if self.batch.rows() >= FULL_ROWS || self.batch.bytes() >= FULL_BYTES {
            self.write_events()?;
        }
        Ok(())
    }

    fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.write_events()?;
        let span = Span {
            rows: 0,
            first: interval.account.begin,
            last: interval.account.end,
        };
        self.write_json(Kind::Interval, span, interval)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.batch.turn();
        let due = *self.due.get_or_insert_with(|| Instant::now() + DUE);
        if self.batch.rows() == 0 {
            self.due = None;
        } else if due <= Instant::now() {
            self.write_events()?;
        }
        Ok(())
    }

    fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        if self.torn {
            return self.store.done();
        }
        let rest = match self.write_events() {
            // The file is full, and the run has ended.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(()),
            other => other,
        };
        // There may be room for so little.
        let end = self.write_end(Some(Finished::from(summary)));
        rest.and(end).and(self.store.done())
    }
}

#[cfg(test)]
impl Store for &mut Vec<u8> {
    fn is_full(&self) -> bool {
        false
    }

    fn may_rotate(&self) -> io::Result<()> {
        Ok(())
    }

    fn next_file(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn block_done(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn cut_back(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn done(&mut self) -> io::Result<()> {
        Ok(())
    }
}
