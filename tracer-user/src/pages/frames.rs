//! The frames of a chunk of entries: their flags, the number of mappings of each, its node, and the size of its folio.
//! Input: /proc/kpageflags and /proc/kpagecount, read by sorted frame number; the topology.

use std::io;
use std::ops::Range;

use crate::kernel::release;
use crate::kernel::topology::Topology;
use crate::proc::entry::SwapTypes;
use crate::proc::kpage::{FrameFile, KpageError, KpfQuirks};
use crate::proc::pagemap::{self, Pagemap};
use crate::units::{NodeId, Order, Pfn, Tgid};

/// `KPF_COMPOUND_HEAD`.
const HEAD: u64 = 1 << 15;
/// `KPF_COMPOUND_TAIL`.
const TAIL: u64 = 1 << 16;
/// The flags that mark a frame's position in its folio; neighbours of one folio differ only by them.
pub const POSITION: u64 = HEAD | TAIL;
/// The largest folio is a page of hugetlb, 1 GiB on x86-64 (order 18); 16 GiB elsewhere.
const MAX_ORDER: u8 = 22;
/// Frame numbers have fewer bits: the place in the chunk is stored above them while keys are sorted by frame.
const PFN_BITS: u32 = 40;

/// The files and facts that are read beside the page tables. They are opened once; each may be missing.
#[derive(Debug)]
pub struct Machine {
    /// The kernel's numbering of its swap types.
    pub types: SwapTypes,
    /// The errors of its kpageflags.
    pub quirks: KpfQuirks,
    /// The machine's nodes; `None` if they are not known.
    pub topology: Option<Topology>,
    flags: Option<FrameFile>,
    counts: Option<FrameFile>,
    /// Why flags or counts are missing.
    pub missing: Option<KpageError>,
}

impl Machine {
    /// Opens the files that the caller may open.
    pub fn open() -> Self {
        let (flags, counts) = (FrameFile::flags(), FrameFile::counts());
        let quirks = match (&flags, Pagemap::open(Tgid(std::process::id()))) {
            (Ok(flags), Ok(own)) => KpfQuirks::probe(&own, flags),
            _ => None,
        };
        let mut missing = None;
        let mut or_missing = |file: Result<FrameFile, KpageError>| file.map_err(|error| missing = Some(error)).ok();
        let (counts, flags) = (or_missing(counts), or_missing(flags));
        Self {
            types: SwapTypes::running(),
            quirks: quirks.unwrap_or_else(|| KpfQuirks::of(&release::release())),
            topology: Topology::read().ok(),
            flags,
            counts,
            missing,
        }
    }

    /// Drops flags and counts, as for a caller who may not read them.
    #[must_use]
    pub fn without_frame_files(mut self) -> Self {
        (self.flags, self.counts) = (None, None);
        self
    }

    /// Whether flags and sizes of folios can be read.
    pub fn has_flags(&self) -> bool {
        self.flags.is_some()
    }

    /// Fills `words` with the flags of neighbouring frames; returns the number of frames that exist.
    ///
    /// # Errors
    /// [`KpageError`]; without the file the number is 0.
    pub fn read_flags(&self, first: Pfn, words: &mut [u64]) -> Result<usize, KpageError> {
        self.flags.as_ref().map_or(Ok(0), |file| file.read_range(first, words))
    }

    /// Fills `words` with the numbers of mappings of neighbouring frames; returns the number of frames that exist.
    ///
    /// # Errors
    /// [`KpageError`]; without the file the number is 0.
    pub fn read_counts(&self, first: Pfn, words: &mut [u64]) -> Result<usize, KpageError> {
        self.counts.as_ref().map_or(Ok(0), |file| file.read_range(first, words))
    }
}

/// Columns beside the entries of a chunk, with one value for each entry; a value has no meaning if no frame is known.
#[derive(Debug, Default)]
pub struct Columns {
    /// Words of kpageflags, [`Columns::UNKNOWN`] if they are not known.
    pub flags: Vec<u64>,
    /// Words of kpagecount, [`Columns::UNKNOWN`] if they are not known.
    pub counts: Vec<u64>,
    /// Orders of the folios, [`Columns::NO_ORDER`] if they are not known.
    pub orders: Vec<u8>,
    /// Nodes, [`Columns::NO_NODE`] if they are not known.
    pub nodes: Vec<u32>,
}

impl Columns {
    /// A value that no word of kpageflags or kpagecount has.
    pub const UNKNOWN: u64 = u64::MAX;
    /// A value that no folio has as order.
    pub const NO_ORDER: u8 = u8::MAX;
    /// A value that no node has as number.
    pub const NO_NODE: u32 = u32::MAX;

    fn reset(&mut self, len: usize) {
        for column in [&mut self.flags, &mut self.counts] {
            column.clear();
            column.resize(len, Self::UNKNOWN);
        }
        self.orders.clear();
        self.orders.resize(len, Self::NO_ORDER);
        self.nodes.clear();
        self.nodes.resize(len, Self::NO_NODE);
    }
}

/// Looks up frames, chunk by chunk.
#[derive(Debug)]
pub struct Frames<'a> {
    machine: &'a Machine,
    spans: Vec<(Range<Pfn>, NodeId)>,
    /// Frames with their places in the chunk, sorted by frame.
    keys: Vec<u64>,
    pfns: Vec<Pfn>,
    words: Vec<u64>,
    shared: Vec<u64>,
    sizer: Sizer,
}

impl<'a> Frames<'a> {
    /// Makes a reader of this machine's frames.
    pub fn new(machine: &'a Machine) -> Self {
        let spans = machine.topology.iter().flat_map(Topology::frames).collect();
        Self {
            machine,
            spans,
            keys: Vec::new(),
            pfns: Vec::new(),
            words: Vec::new(),
            shared: Vec::new(),
            sizer: Sizer::default(),
        }
    }

    /// Fills the columns for a chunk of entries.
    ///
    /// # Errors
    /// [`KpageError`] when a file that could be opened cannot be read.
    pub fn look_up(&mut self, entries: &[u64], columns: &mut Columns) -> Result<(), KpageError> {
        columns.reset(entries.len());
        self.keys.clear();
        let mut sorted = true;
        let mut last = 0;
        for (place, &entry) in (0u64..).zip(entries) {
            let pfn = entry & pagemap::PFN_MASK;
            if entry >> 63 == 0 || pfn == 0 || pfn >> PFN_BITS != 0 {
                continue;
            }
            let key = pfn << (u64::BITS - PFN_BITS) | place;
            sorted &= last < key;
            last = key;
            self.keys.push(key);
        }
        if self.keys.is_empty() {
            return Ok(());
        }
        if !sorted {
            self.sort();
        }
        self.fill_nodes(columns);
        self.fill_flags(columns)?;
        self.fill_counts(entries, columns)
    }

    #[expect(
        clippy::stable_sort_primitive,
        reason = "frames come in runs, which only the stable sort makes use of"
    )]
    fn sort(&mut self) {
        self.keys.sort();
    }

    fn fill_nodes(&self, columns: &mut Columns) {
        let mut spans = self.spans.iter();
        let Some(mut span) = spans.next() else { return };
        for &key in &self.keys {
            let pfn = pfn_of(key);
            while span.0.end <= pfn {
                match spans.next() {
                    Some(next) => span = next,
                    None => return,
                }
            }
            if span.0.start <= pfn {
                columns.nodes[place_of(key)] = span.1.0;
            }
        }
    }

    fn fill_flags(&mut self, columns: &mut Columns) -> Result<(), KpageError> {
        let Some(file) = &self.machine.flags else {
            return Ok(());
        };
        self.pfns.clear();
        self.pfns.extend(self.keys.iter().map(|&key| pfn_of(key)));
        file.lookup(&self.pfns, &mut self.words)?;
        for (at, (&key, &word)) in self.keys.iter().zip(&self.words).enumerate() {
            let place = place_of(key);
            columns.flags[place] = word;
            columns.orders[place] = if word & POSITION == 0 {
                0
            } else {
                let known = Known {
                    pfns: &self.pfns,
                    words: &self.words,
                    at,
                };
                self.sizer
                    .order(pfn_of(key), &known, file)?
                    .map_or(Columns::NO_ORDER, |order| order.0)
            };
        }
        Ok(())
    }

    /// Fills the counts. Only pages that other page tables map as well have to be read.
    fn fill_counts(&mut self, entries: &[u64], columns: &mut Columns) -> Result<(), KpageError> {
        let Some(file) = &self.machine.counts else {
            return Ok(());
        };
        self.shared.clear();
        for &key in &self.keys {
            let place = place_of(key);
            if entries[place] >> pagemap::EXCLUSIVE & 1 != 0 {
                columns.counts[place] = 1;
            } else {
                self.shared.push(key);
            }
        }
        if self.shared.is_empty() {
            return Ok(());
        }
        self.pfns.clear();
        self.pfns.extend(self.shared.iter().map(|&key| pfn_of(key)));
        file.lookup(&self.pfns, &mut self.words)?;
        for (&key, &word) in self.shared.iter().zip(&self.words) {
            columns.counts[place_of(key)] = word;
        }
        Ok(())
    }
}

fn pfn_of(key: u64) -> Pfn {
    Pfn(key >> (u64::BITS - PFN_BITS))
}

fn place_of(key: u64) -> usize {
    (key & ((1 << (u64::BITS - PFN_BITS)) - 1)) as usize
}

/// Flags that have already been read.
struct Known<'a> {
    /// Frames in ascending order; a frame may occur several times.
    pfns: &'a [Pfn],
    words: &'a [u64],
    /// The index of the current frame.
    at: usize,
}

impl Known<'_> {
    /// The flags of a frame that is near the current one in the chunk and in memory.
    fn get(&self, pfn: Pfn) -> Option<u64> {
        let here = self.pfns[self.at];
        let at = match usize::try_from(pfn.0.abs_diff(here.0)).ok()? {
            distance if pfn >= here => self.at.checked_add(distance)?,
            distance => self.at.checked_sub(distance)?,
        };
        (*self.pfns.get(at)? == pfn).then(|| self.words[at])
    }
}

/// Finds the folio that a frame belongs to.
///
/// Folios are aligned to their size; the first frame is a head, and all others are tails. The head is therefore found
/// by rounding the frame number down to ever larger powers of two until a frame is not a tail. From the head on, the
/// frame at the distance of a power of two is a tail exactly if the folio is larger than that.
#[derive(Debug, Default)]
struct Sizer {
    folio: Range<u64>,
    order: Order,
    word: Vec<u64>,
}

impl Sizer {
    /// The order of the folio of this frame, which is a head or a tail; `None` if it changes while it is read.
    fn order(&mut self, pfn: Pfn, known: &Known<'_>, file: &FrameFile) -> Result<Option<Order>, KpageError> {
        if self.folio.contains(&pfn.0) {
            return Ok(Some(self.order));
        }
        let mut flags = |pfn: u64| match known.get(Pfn(pfn)) {
            Some(word) => Ok(word),
            None => file.lookup(&[Pfn(pfn)], &mut self.word).map(|()| self.word[0]),
        };
        let Some((head, order)) = folio_of(pfn.0, &mut flags)? else {
            return Ok(None);
        };
        self.order = order;
        self.folio = head..head + order.pages();
        Ok(Some(order))
    }
}

fn folio_of<E>(pfn: u64, flags: &mut impl FnMut(u64) -> Result<u64, E>) -> Result<Option<(u64, Order)>, E> {
    let mut head = pfn;
    let mut order = 0;
    while flags(head)? & HEAD == 0 {
        let below = loop {
            order += 1;
            if order > MAX_ORDER {
                return Ok(None);
            }
            let below = pfn & !((1 << order) - 1);
            if below != head {
                break below;
            }
        };
        head = below;
    }
    while flags(head + (1 << order))? & TAIL != 0 {
        order += 1;
        if order > MAX_ORDER {
            return Ok(None);
        }
    }
    Ok(Some((head, Order(order))))
}

impl From<KpageError> for io::Error {
    fn from(error: KpageError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Frames of folios of these orders, one after the other, each at a multiple of its size.
    fn memory(orders: &[u8]) -> Vec<u64> {
        let mut frames = Vec::new();
        for &order in orders {
            let size = 1usize << order;
            frames.resize(frames.len().next_multiple_of(size), 0);
            match order {
                0 => frames.push(0),
                _ => frames.extend(std::iter::once(HEAD).chain(std::iter::repeat_n(TAIL, size - 1))),
            }
        }
        frames
    }

    fn folio(frames: &[u64], pfn: u64) -> Option<Range<u64>> {
        let mut looks = 0;
        let found = folio_of(pfn, &mut |pfn| {
            looks += 1;
            Ok::<_, Infallible>(usize::try_from(pfn).map_or(0, |pfn| frames.get(pfn).copied().unwrap_or(0)))
        });
        assert!(looks <= 2 * u32::from(MAX_ORDER) + 2);
        found.unwrap().map(|(head, order)| head..head + order.pages())
    }

    #[test]
    fn folios_are_found_from_any_of_their_frames() {
        let frames = memory(&[2, 2, 3, 0, 4, 9]);
        assert_eq!(folio(&frames, 0), Some(0..4));
        assert_eq!(folio(&frames, 5), Some(4..8));
        assert_eq!(folio(&frames, 15), Some(8..16));
        assert_eq!(folio(&frames, 47), Some(32..48));
        assert_eq!(folio(&frames, 1023), Some(512..1024));
    }

    #[test]
    fn a_folio_that_is_taken_apart_meanwhile_has_no_size() {
        assert_eq!(folio(&[TAIL; 8], 3), None);
        assert_eq!(folio(&vec![TAIL; 1 << 23], 1 << 22), None);
    }

    #[test]
    fn flags_that_were_read_are_found_by_their_distance() {
        let pfns = [4, 5, 6, 6, 7, 20].map(Pfn);
        let words = [40, 50, 60, 60, 70, 200];
        let known = |at| Known {
            pfns: &pfns,
            words: &words,
            at,
        };
        assert_eq!(known(0).get(Pfn(6)), Some(60));
        assert_eq!(known(2).get(Pfn(4)), Some(40));
        assert_eq!(known(0).get(Pfn(7)), None);
        assert_eq!(known(1).get(Pfn(20)), None);
        assert_eq!(known(5).get(Pfn(0)), None);
    }

    #[test]
    fn keys_hold_frame_and_place() {
        let key = 0xff_ffff_ffffu64 << 24 | 0xabcd;
        assert_eq!((pfn_of(key), place_of(key)), (Pfn(0xff_ffff_ffff), 0xabcd));
        const { assert!(crate::pages::chunks::MOST <= 1 << (u64::BITS - PFN_BITS)) };
    }

    proptest! {
        #[test]
        fn every_frame_of_every_folio_leads_to_it(orders in prop::collection::vec(0u8..7, 1..20)) {
            let frames = memory(&orders);
            let heads = (0u64..).zip(&frames).filter(|&(_, &flags)| flags == HEAD);
            for (head, _) in heads {
                let expected = folio(&frames, head).unwrap();
                prop_assert_eq!(expected.start, head);
                for pfn in expected.clone() {
                    prop_assert_eq!(folio(&frames, pfn), Some(expected.clone()));
                }
            }
        }
    }
}
