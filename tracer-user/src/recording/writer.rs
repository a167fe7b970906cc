//! Writes a recording: events packed into blocks, at least each second.
//! Input: events; output: a [`Store`].

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use crate::{
    event::Event,
    recording::{
        blocks::Blocks,
        header::{Begin, Finished},
        rows::Batch,
    },
    run::{header::Header, intervals::Interval, summary::Summary},
};

/// No event waits longer for its block.
const DUE: Duration = Duration::from_secs(1);
/// A block that is full: by then its columns are as short as they get.
const FULL_ROWS: u32 = 1 << 16;
const FULL_NAMES: usize = 1 << 16;
const FULL_BYTES: usize = 1 << 23;

/// Where blocks go. What is not said otherwise is as in memory: never full, and nothing written by halves.
pub trait Store: Write {
    /// Bytes of content that a block of events may have, so that a file keeps to its limit; None: there is none.
    fn most_content(&self) -> Option<usize> {
        None
    }

    /// Whether a file is full, so that the next one is due.
    fn is_full(&self) -> bool {
        false
    }

    /// Whether there may be another file after one that is full.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`]: there is to be no other, and the run ends.
    fn may_rotate(&self) -> io::Result<()> {
        Ok(())
    }

    /// Ends the file and begins the next one.
    ///
    /// # Errors
    /// As for writing.
    fn next_file(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// After each block.
    ///
    /// # Errors
    /// As for writing.
    fn block_done(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes back what was written of a block that could not be written whole.
    ///
    /// # Errors
    /// Where that cannot be done: nothing can come after it.
    fn cut_back(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// After the last block.
    ///
    /// # Errors
    /// As for writing.
    fn done(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a recording.
pub struct Writer<S> {
    blocks: Blocks<S>,
    batch: Batch,
    /// When what waits is due.
    due: Option<Instant>,
    /// It has been said that the file is full: what still comes ends it.
    is_full: bool,
}

impl<S: Store> Writer<S> {
    /// Into that store.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(store: S) -> io::Result<Self> {
        Ok(Self {
            blocks: Blocks::new(store)?,
            batch: Batch::default(),
            due: None,
            is_full: false,
        })
    }

    fn write_events(&mut self) -> io::Result<()> {
        self.due = None;
        if self.batch.rows() == 0 {
            return Ok(());
        }
        self.blocks.events(&mut self.batch)?;
        self.rotate()
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.is_full || !self.blocks.store.is_full() {
            return Ok(());
        }
        let may = self.blocks.store.may_rotate();
        self.is_full = may.is_err();
        may?;
        self.blocks.next_file()
    }

    /// Begins a file, or the next run in it.
    ///
    /// # Errors
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] where it is full.
    pub fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.blocks.begin(Begin::of(header.clone()))
    }

    /// Adds an event; a full block is written.
    ///
    /// # Errors
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] where it is full.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        self.batch.push(event);
        let batch = &self.batch;
        let full = self.blocks.store.most_content().unwrap_or(FULL_BYTES).min(FULL_BYTES);
        if batch.rows() >= FULL_ROWS || batch.names() >= FULL_NAMES || batch.bytes() >= full {
            self.write_events()?;
        }
        Ok(())
    }

    /// Writes an interval of the books, after the events that wait.
    ///
    /// # Errors
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] where it is full.
    pub fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.write_events()?;
        self.blocks.interval(interval)?;
        self.rotate()
    }

    /// Ends a batch of events, and writes them if they have waited for a second.
    ///
    /// # Errors
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] where it is full.
    pub fn flush(&mut self) -> io::Result<()> {
        self.batch.turn();
        let due = *self.due.get_or_insert_with(|| Instant::now() + DUE);
        if self.batch.rows() == 0 {
            self.due = None;
        } else if due <= Instant::now() {
            self.write_events()?;
        }
        Ok(())
    }

    /// Writes what waits, and the end of the run.
    ///
    /// # Errors
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] where it is full.
    pub fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        if self.blocks.torn {
            return self.blocks.done();
        }
        let rest = match self.write_events() {
            // The file is full, and the run has ended.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(()),
            other => other,
        };
        // There may be room for so little.
        let end = self.blocks.end(Some(Finished::from(summary)));
        rest.and(end).and(self.blocks.done())
    }
}

#[cfg(test)]
impl Store for &mut Vec<u8> {}
