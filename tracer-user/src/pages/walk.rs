//! The pages of one process as a stream: its mappings by address, and the extents of each mapping.
//! Input: /proc/PID/maps and /proc/PID/pagemap, the machine's frames, a filter.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::pages::chunks::{Chunks, Outcome};
use crate::pages::extent::Extent;
use crate::pages::filter::Filter;
use crate::pages::frames::{Columns, Frames, Machine};
use crate::pages::join::{Joiner, Regions};
use crate::proc::maps::{AddressSpace, Vma};
use crate::proc::pagemap::{LookupError, Pagemap};
use crate::proc::scan::{Categories, Region};
use crate::units::{PAGE_SIZE, Tgid};

/// Folios of this order and above may be mapped by one entry.
const PMD_ORDER: u8 = 9;

/// Addresses from here on are the kernel's.
const KERNEL_HALF: u64 = 1 << 63;

/// The pages of a process could not be read.
#[derive(Debug, Error)]
pub enum WalkError {
    /// The process has ended, or never existed.
    #[error("process {0} has ended")]
    Ended(Tgid),
    /// The caller may not read the process, or a read failed.
    #[error("cannot read the pages of process {tgid}: {source}")]
    Read {
        /// The process.
        tgid: Tgid,
        /// The kernel's error.
        source: io::Error,
    },
}

/// A step in the walk of a process.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A mapping with selected pages begins.
    Vma(&'a Arc<Vma>),
    /// An extent of selected pages of this mapping.
    Extent(&'a Extent),
    /// The walk has covered this many more bytes of address space.
    Bytes(u64),
    /// The mapping ends.
    End(Outcome),
}

/// The result of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Bytes of all mappings, selected or not.
    pub mapped: u64,
    /// Mappings of the process when the walk began.
    pub vmas: usize,
    /// Lines of maps that do not have the kernel's form.
    pub skipped: usize,
    /// The process ended or ran another program during the walk: the rest is missing.
    pub ended: bool,
    /// The number of mappings that only the first or only the last reading has: the process changed them during the
    /// walk.
    pub changed: usize,
}

/// Walks the pages of a process and touches none of them.
///
/// # Errors
/// [`WalkError`] if nothing could be read, or a read failed in the middle.
pub fn walk(
    tgid: Tgid,
    machine: &Machine,
    filter: &Filter,
    visit: &mut impl FnMut(Step<'_>) -> io::Result<()>,
) -> Result<Walked, WalkError> {
    let failed = |source: io::Error| WalkError::Read { tgid, source };
    let pagemap = Pagemap::open(tgid).map_err(|error| match error {
        LookupError::ProcessGone => WalkError::Ended(tgid),
        LookupError::Open { source, .. } | LookupError::Read(source) => failed(source),
        error @ LookupError::Silent(_) => failed(io::Error::new(io::ErrorKind::TimedOut, error)),
    })?;
    let space = AddressSpace::read(tgid).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => WalkError::Ended(tgid),
        _ => failed(source),
    })?;
    let mut walked = Walked {
        mapped: space.iter().map(|vma| vma.pages() * PAGE_SIZE).sum(),
        vmas: space.iter().len(),
        skipped: space.skipped(),
        ..Walked::default()
    };
    let mut walker = Walker {
        chunks: Chunks::new(&pagemap),
        frames: Frames::new(machine),
        columns: Columns::default(),
        joiner: Joiner::new(&machine.types, machine.quirks),
        knows_sizes: machine.has_flags(),
    };
    for vma in space.iter() {
        walker.vma(vma, filter, visit).map_err(failed)?;
    }
    walked.ended = !pagemap.is_alive().map_err(failed)?;
    if !walked.ended {
        walked.changed = AddressSpace::read(tgid).map_or(0, |later| differing(&space, &later));
    }
    Ok(walked)
}

/// Mappings that only one of the two has.
fn differing(one: &AddressSpace, other: &AddressSpace) -> usize {
    let mut others = other.iter().peekable();
    let mut common = 0;
    for vma in one.iter() {
        while others.next_if(|other| other.start < vma.start).is_some() {}
        if others.next_if(|other| *other == vma).is_some() {
            common += 1;
        }
    }
    (one.iter().len() - common) + (other.iter().len() - common)
}

struct Walker<'a> {
    chunks: Chunks<'a>,
    frames: Frames<'a>,
    columns: Columns,
    joiner: Joiner<'a>,
    knows_sizes: bool,
}

impl Walker<'_> {
    fn vma(
        &mut self,
        vma: &Arc<Vma>,
        filter: &Filter,
        visit: &mut impl FnMut(Step<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut parts = filter.parts(vma);
        if parts.is_empty() {
            return Ok(());
        }
        visit(Step::Vma(vma))?;
        let mut outcome = Outcome::default();
        if vma.start.0 >= KERNEL_HALF {
            // [vsyscall] is in no page table of a process.
            parts.clear();
        }
        let Self {
            chunks,
            frames,
            columns,
            joiner,
            knows_sizes,
        } = self;
        for (start, end) in parts {
            let mut done = start;
            let mut given = Ok(());
            let part = chunks.visit(start..end, is_pfnmap(vma), &mut |chunk, huge| {
                frames.look_up(chunk.entries, columns)?;
                let any = wanted_regions(*knows_sizes, columns, chunk.pfnmap);
                let regions: Option<Vec<Region>> = match any {
                    Categories::NONE => None,
                    any => huge.regions(chunk, any)?,
                };
                let regions = Regions {
                    regions: regions.as_deref(),
                    pfnmap: chunk.pfnmap,
                };
                joiner.chunk(chunk.first, chunk.entries, columns, regions, &mut |extent| {
                    if given.is_ok() && filter.wants(extent) {
                        given = visit(Step::Extent(extent));
                    }
                });
                let now = chunk.first.plus_pages(chunk.entries.len() as u64);
                visit(Step::Bytes(now.0 - done.0))?;
                done = now;
                Ok(())
            })?;
            joiner.end(&mut |extent| {
                if given.is_ok() && filter.wants(extent) {
                    given = visit(Step::Extent(extent));
                }
            });
            given?;
            visit(Step::Bytes(end.0 - done.0))?;
            outcome.unread += part.unread;
        }
        visit(Step::End(outcome))
    }
}

/// Properties that pagemap does not show and that need a walk: the large folios that one entry maps, and with hidden
/// frames the pages of zeros.
fn wanted_regions(knows_sizes: bool, columns: &Columns, pfnmap: bool) -> Categories {
    let may_be_huge = |order: &u8| *order >= PMD_ORDER && *order != Columns::NO_ORDER;
    if pfnmap {
        Categories::NONE
    } else if !knows_sizes {
        Categories::HUGE | Categories::PFNZERO
    } else if columns.orders.iter().any(may_be_huge) {
        Categories::HUGE
    } else {
        Categories::NONE
    }
}

/// Whether a mapping is `VM_PFNMAP` on the kernels that have no walk to find such mappings (before 6.7). Since 7.2 `[vvar]`
/// has pages that count as the process's (lib/vdso/datastore.c).
fn is_pfnmap(vma: &Vma) -> bool {
    vma.name.starts_with("[vvar")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::extent::State;
    use crate::pages::sums::Sums;
    use crate::units::VirtAddr;

    #[test]
    fn own_pages_are_found() {
        let machine = Machine::open();
        let fresh = std::hint::black_box(vec![1u8; 64 << 12]);
        let first = VirtAddr((fresh.as_ptr().addr() as u64).next_multiple_of(PAGE_SIZE));
        let filter = Filter {
            addresses: vec![(first, first.plus_pages(60))],
            ..Filter::default()
        };
        let (mut sums, mut vmas, mut bytes) = (Sums::default(), 0, 0);
        let walked = walk(Tgid(std::process::id()), &machine, &filter, &mut |step| {
            match step {
                Step::Vma(_) => vmas += 1,
                Step::Extent(extent) => sums.add(extent),
                Step::Bytes(further) => bytes += further,
                Step::End(outcome) => assert_eq!(outcome.unread, 0),
            }
            Ok(())
        });
        drop(fresh);
        let walked = walked.unwrap();
        assert_eq!((vmas, bytes), (1, 60 * PAGE_SIZE));
        assert_eq!(sums.in_state(State::Present), 60);
        assert!(walked.vmas > 5 && walked.mapped > 64 * PAGE_SIZE && !walked.ended);
        let known = sums.nodes().map(|(_, pages)| pages).sum::<u64>();
        assert_eq!(known + sums.hidden + sums.elsewhere, 60);
    }

    #[test]
    fn mappings_that_come_and_go_are_counted() {
        let space = |text: &str| AddressSpace::from_reader(text.as_bytes()).unwrap();
        let one = space("1000-2000 r--p 0 0:0 0 \n3000-4000 r--p 0 0:0 0 \n5000-6000 r--p 0 0:0 0 \n");
        assert_eq!(differing(&one, &one.clone()), 0);
        let other = space(
            "1000-2000 r--p 0 0:0 0 \n2000-3000 r--p 0 0:0 0 \n3000-4000 rw-p 0 0:0 0 \n5000-6000 r--p 0 0:0 0 \n",
        );
        assert_eq!(differing(&one, &other), 3);
        assert_eq!(differing(&space(""), &one), 3);
    }

    #[test]
    fn a_process_that_is_not_there_has_ended() {
        let machine = Machine::open();
        let walked = walk(Tgid(u32::MAX >> 1), &machine, &Filter::default(), &mut |_| Ok(()));
        assert!(matches!(walked, Err(WalkError::Ended(_))));
    }
}
