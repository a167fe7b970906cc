//! Where the bytes of a recording go: what the writer of blocks requires of a file, a pipe or memory.
//! Input: whole blocks.

use std::io::{self, Write};

/// A destination of blocks. The defaults are those of memory: it is never full, and no block is written in part.
pub trait Store: Write {
    /// Bytes of content that a block of events may have, so that a file keeps to its limit; None: there is none.
    fn most_content(&self) -> Option<usize> {
        None
    }

    /// Whether a file is full, so that the next one is due.
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

#[cfg(test)]
impl Store for &mut Vec<u8> {}
