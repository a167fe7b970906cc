//! A forked child that maps the same pages as its parent.
//! Input: one byte for each order, through a pipe.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::ops::Range;

use anyhow::{Context, Result};
use rustix::mm::munmap;

use crate::truth::{Moves, Report, Snapshot};

/// A forked child that maps the same pages, and reports the changes in its own page table.
pub struct Sharer {
    pub pid: u32,
    order: fs::File,
    answer: fs::File,
}

impl Sharer {
    /// Forks the child, which runs `act` before its last look.
    pub fn fork(range: Range<u64>, act: impl FnOnce() -> Result<()>) -> Result<Self> {
        let (order_reader, order) = rustix::pipe::pipe().context("make a pipe")?;
        let (answer, answer_writer) = rustix::pipe::pipe().context("make a pipe")?;
        // SAFETY: this process has one thread, so the child may do anything that the parent may.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()).context("fork"),
            0 => {
                drop((order, answer));
                let told = tell(range, act, &mut order_reader.into(), &mut answer_writer.into());
                std::process::exit(i32::from(told.is_err()));
            }
            pid => {
                let mut sharer = Self {
                    pid: pid.cast_unsigned(),
                    order: order.into(),
                    answer: answer.into(),
                };
                // The child reports when its first look is over.
                let mut ready = [0];
                sharer.answer.read_exact(&mut ready).context("the child did not look")?;
                Ok(sharer)
            }
        }
    }

    /// Makes the child act and report.
    pub fn report(&mut self) -> Result<Report> {
        self.order.write_all(b"x").context("ask the child")?;
        let mut line = String::new();
        BufReader::new(&self.answer)
            .read_line(&mut line)
            .context("hear the child")?;
        Report::parse(&line)
    }

    /// Makes the child unmap the pages, after its report.
    pub fn unmap(&mut self) -> Result<()> {
        self.order.write_all(b"u").context("ask the child")?;
        let mut done = [0];
        self.answer.read_exact(&mut done).context("the child did not unmap")
    }
}

fn tell(
    range: Range<u64>,
    act: impl FnOnce() -> Result<()>,
    order: &mut fs::File,
    answer: &mut fs::File,
) -> Result<()> {
    for address in range.clone().step_by(rustix::param::page_size()) {
        // SAFETY: the range is a live mapping inherited from the parent. The read maps a page of a file.
        std::hint::black_box(unsafe { std::ptr::with_exposed_provenance::<u8>(address as usize).read_volatile() });
    }
    let before = Snapshot::take(range.clone())?;
    answer.write_all(b"r")?;
    let mut byte = [0];
    if order.read(&mut byte)? == 0 {
        return Ok(()); // the parent has ended
    }
    act()?;
    let moves = Moves::between(&before, &Snapshot::take(range.clone())?)?;
    answer.write_all((Report::new(range.clone(), moves).to_line()? + "\n").as_bytes())?;
    if order.read(&mut byte)? != 0 {
        let start = std::ptr::with_exposed_provenance_mut(range.start as usize);
        // SAFETY: the child has used the inherited mapping only by its addresses, and does not use it from now on.
        unsafe { munmap(start, (range.end - range.start) as usize) }.context("unmap the pages")?;
        answer.write_all(b"u")?;
    }
    // The child lives as long as its parent, which holds the other end.
    let _ = order.read(&mut byte)?;
    Ok(())
}
