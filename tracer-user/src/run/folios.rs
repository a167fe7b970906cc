//! Counts pages that moved once each, however many mappings a folio has.
//! Input: moves, in the order in which they were read.

use crate::{
    event::Move,
    units::{Nanos, Tid, VirtAddr},
};

/// Recognizes the first event of each folio.
///
/// A folio that several mappings share moves once and is an event for each of them, which [`Move::nth`] numbers. If
/// pagemap answers differently for parts of an event, the event is split. The parts follow each other, with the same
/// time, CPU and thread and neighbouring addresses, and count as one event.
#[derive(Clone, Debug, Default)]
pub struct Folios {
    /// The last event that counted.
    last: Option<Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    by: (Nanos, u16, Option<Tid>),
    /// The first address after its pages.
    end: VirtAddr,
    /// Pages of its folio that none of its parts covers yet.
    left: u64,
}

impl Folios {
    /// Base pages that moved and that no earlier event counted: all pages of the folio for its first event, 0 for the
    /// others. Moves outside `migrate_pages`, and those in old recordings of the tracepoint backend, have no number:
    /// each counts its own pages.
    pub fn pages(&mut self, moved: &Move) -> u64 {
        let Some(nth) = moved.nth else {
            return moved.pages;
        };
        if nth > 1 {
            return 0;
        }
        let by = (moved.at, moved.cpu, moved.thread());
        let end = moved.vaddr.plus_pages(moved.pages);
        if let Some(last) = &mut self.last
            && (last.by, last.end) == (by, moved.vaddr)
            && moved.pages <= last.left
        {
            last.end = end;
            last.left -= moved.pages;
            return 0;
        }
        let pages = moved.order.pages().max(moved.pages);
        let left = pages - moved.pages;
        self.last = Some(Last { by, end, left });
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{made_up, units::Order};

    #[test]
    fn a_shared_folio_counts_once() {
        let mut folios = Folios::default();
        let mut pages = |nth, at, page| {
            let moved = made_up::moved();
            folios.pages(&Move {
                at: Nanos(at),
                vaddr: moved.vaddr.plus_pages(page),
                order: Order(9),
                pages: 100,
                nth,
                ..moved
            })
        };
        // The first mapping comes in two parts, then two more mappings, then the next folio at the same time.
        let first = [
            (Some(1), 5, 0),
            (Some(1), 5, 100),
            (Some(2), 6, 0),
            (Some(3), 7, 0),
            (Some(1), 5, 0),
        ];
        assert_eq!(first.map(|(nth, at, page)| pages(nth, at, page)), [512, 0, 0, 0, 512]);
        // There are no more parts than the folio has pages.
        assert_eq!(
            [100, 200, 300, 400, 500].map(|page| pages(Some(1), 5, page)),
            [0, 0, 0, 0, 512]
        );
        assert_eq!([None, None].map(|nth| pages(nth, 9, 0)), [100, 100]);
    }
}
