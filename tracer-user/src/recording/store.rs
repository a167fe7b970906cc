//! The destination of a recording's bytes: what the writer of blocks requires of a file, a pipe or memory.
//! Input: whole blocks.

use std::io::{self, Write};

/// A destination of blocks. The defaults suit memory: it is never full, and no block is written in part.
pub trait Store: Write {
    /// The most bytes of content of a block of events, so that a file keeps to its limit; None: no limit.
    fn most_content(&self) -> Option<usize> {
        None
    }

    /// Whether a file is full, so that the next one must begin.
    fn is_full(&self) -> bool {
        false
    }

    /// Whether another file may follow one that is full.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`]: no other file may follow, and the run ends.
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

    /// Called after each block.
    ///
    /// # Errors
    /// As for writing.
    fn block_done(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Removes the written part of an incomplete block.
    ///
    /// # Errors
    /// If that is not possible: nothing can follow it.
    fn cut_back(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Called after the last block.
    ///
    /// # Errors
    /// As for writing.
    fn done(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl Store for &mut Vec<u8> {}
