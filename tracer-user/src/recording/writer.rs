//! Writes a recording: events packed into blocks, at least each second.
//! Input: events; output: a [`Store`].

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    event::Event,
    recording::{
        blocks::Blocks,
        header::{Begin, Finished},
        rows::Batch,
        store::Store,
    },
    run::{header::Header, intervals::Interval, summary::Summary},
};

/// The longest time that an event waits for its block.
const DUE: Duration = Duration::from_secs(1);
/// A block is full at one of these limits: larger ones would not pack better.
const FULL_ROWS: u32 = 1 << 16;
const FULL_NAMES: usize = 1 << 16;
const FULL_BYTES: usize = 1 << 23;

/// Writes a recording.
pub struct Writer<S> {
    blocks: Blocks<S>,
    batch: Batch,
    /// When the waiting events are due.
    due: Option<Instant>,
    /// Whether the store has reported that the file is full: the events that still wait are its last ones.
    is_full: bool,
}

impl<S: Store> Writer<S> {
    /// A writer into `store`.
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
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] if it is full.
    pub fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.blocks.begin(Begin::of(header.clone()))
    }

    /// Adds an event; a full block is written.
    ///
    /// # Errors
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] if it is full.
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
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] if it is full.
    pub fn interval(&mut self, interval: &Interval) -> io::Result<()> {
        self.write_events()?;
        self.blocks.interval(interval)?;
        self.rotate()
    }

    /// Ends a batch of events, and writes the events if they have waited for a second.
    ///
    /// # Errors
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] if it is full.
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

    /// Writes the waiting events, and the end of the run.
    ///
    /// # Errors
    /// When the store cannot be written; [`io::ErrorKind::FileTooLarge`] if it is full.
    pub fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        if self.blocks.torn {
            return self.blocks.done();
        }
        let rest = match self.write_events() {
            // A full file ends the run without an error.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(()),
            other => other,
        };
        // The small end block may still fit.
        let end = self.blocks.end(Some(Finished::from(summary)));
        rest.and(end).and(self.blocks.done())
    }
}
