//! Counts pages that moved once each, however many mappings a folio has.
//! Input: moves, in the order in which they were read; all of them, or selected ones.

use std::collections::VecDeque;

use crate::{
    event::Move,
    units::{Nanos, Pfn, Tid, VirtAddr},
};

/// Recognizes the events of one folio, and keeps a `T` for it.
///
/// A folio that several mappings share moves once and is an event for each of them, which [`Move::nth`] numbers. Its
/// first event may be lost or not be selected: then another one begins it. If pagemap answers differently for parts of
/// an event, the event is split. The parts follow each other, with the same time, CPU and thread and neighbouring
/// addresses, and count as one event.
#[derive(Clone, Debug, Default)]
pub struct Folios<T = ()> {
    /// The last folios, the latest at the end.
    recent: VecDeque<Folio<T>>,
}

/// The folios that are remembered. A thread restores all mappings of a folio before those of the next one (mm/migrate.c,
/// `remove_migration_ptes`). But the tracepoint backend sees each page of a large folio as a folio, and the second
/// mapping of the first one after the first mapping of the last one: 512 pages later, if its order is that of a PMD.
const MOST: usize = 1 << 11;

#[derive(Clone, Copy, Debug)]
struct Folio<T> {
    thread: Option<Tid>,
    /// Its first frames, before and after.
    old: Option<Pfn>,
    new: Option<Pfn>,
    /// When and where its first event happened.
    begun: (Nanos, u16),
    /// The first address after the pages of its first event.
    end: VirtAddr,
    /// Pages that no part of its first event covers yet.
    left: u64,
    kept: T,
}

/// The meaning of an event for the folio that it is of.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen<'f, T> {
    /// Base pages of the folio.
    pub pages: u64,
    /// Whether no event of this folio came before.
    pub begins: bool,
    /// The time of its first event.
    pub begun: Nanos,
    /// The value that is kept for the folio; if it begins, that of an earlier folio.
    pub kept: &'f mut T,
}

impl<T: Default> Folios<T> {
    /// The folio of this move. None: moves outside `migrate_pages`, and those in old recordings of the tracepoint
    /// backend, have no number, and each counts its own pages.
    pub fn folio(&mut self, moved: &Move) -> Option<Seen<'_, T>> {
        let first = moved.nth? == 1;
        let pages = moved.order.pages().max(moved.pages);
        let known = if first {
            self.continued(moved)
        } else {
            self.known(moved)
        };
        let begins = known.is_none();
        let number = known.unwrap_or_else(|| self.begin(moved, if first { pages - moved.pages } else { 0 }));
        let folio = &mut self.recent[number];
        Some(Seen {
            pages,
            begins,
            begun: folio.begun.0,
            kept: &mut folio.kept,
        })
    }

    /// Forgets the folio that began before all others, and returns what was kept for it.
    pub fn forget(&mut self) -> Option<T> {
        self.recent.pop_front().map(|folio| folio.kept)
    }

    /// The last folio, if this is another part of its first event.
    fn continued(&mut self, moved: &Move) -> Option<usize> {
        let last = self.recent.back_mut()?;
        let is_part = (last.thread, last.begun, last.end) == (moved.thread(), (moved.at, moved.cpu), moved.vaddr)
            && moved.pages <= last.left;
        if !is_part {
            return None;
        }
        last.end = moved.vaddr.plus_pages(moved.pages);
        last.left -= moved.pages;
        Some(self.recent.len() - 1)
    }

    /// The folio of an event that is not its first. If the frame is not known, it is the thread's last one.
    fn known(&self, moved: &Move) -> Option<usize> {
        let (thread, new) = (moved.thread(), head(moved.new_pfn, moved));
        for (number, folio) in self.recent.iter().enumerate().rev() {
            if folio.thread == thread && (new.is_none() || folio.new == new) {
                return Some(number);
            }
            if new.is_some() && folio.old == new {
                // Another folio has left this frame since: what came to it before is no longer there.
                return None;
            }
        }
        None
    }

    fn begin(&mut self, moved: &Move, left: u64) -> usize {
        let before = if self.recent.len() < MOST {
            None
        } else {
            self.recent.pop_front()
        };
        self.recent.push_back(Folio {
            thread: moved.thread(),
            old: head(moved.old_pfn, moved),
            new: head(moved.new_pfn, moved),
            begun: (moved.at, moved.cpu),
            end: moved.vaddr.plus_pages(moved.pages),
            left,
            kept: before.map(|folio| folio.kept).unwrap_or_default(),
        });
        self.recent.len() - 1
    }
}

impl Folios {
    /// Base pages that moved and that no earlier event counted: all pages of the folio for its first event, 0 for the
    /// others.
    pub fn pages(&mut self, moved: &Move) -> u64 {
        match self.folio(moved) {
            None => moved.pages,
            Some(folio) => {
                if folio.begins {
                    folio.pages
                } else {
                    0
                }
            }
        }
    }
}

/// The first frame of the folio that this frame belongs to: folios are aligned to their size.
fn head(pfn: Option<Pfn>, moved: &Move) -> Option<Pfn> {
    pfn.map(|pfn| Pfn(pfn.0 & !(moved.order.pages() - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Task, made_up, units::Order};

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

    /// Pages that each event counts: events are number, old frame, new frame and thread, each of a base page.
    fn counted(events: &[(u8, u64, u64, u32)]) -> Vec<u64> {
        let mut folios = Folios::default();
        let pages = events.iter().zip(1..).map(|(&(nth, old, new, thread), at)| {
            let moved = made_up::moved();
            folios.pages(&Move {
                at: Nanos(at),
                pages: 1,
                nth: Some(nth),
                old_pfn: Some(Pfn(old)),
                new_pfn: Some(Pfn(new)),
                actor: moved.actor.map(|actor| Task {
                    tid: Tid(thread),
                    ..actor
                }),
                ..moved
            })
        });
        pages.collect()
    }

    #[test]
    fn a_folio_without_its_first_event_counts_as_well() {
        // Three folios move, and their second and third mappings are selected.
        let events = [
            (2, 1, 11, 7),
            (3, 1, 11, 7),
            (2, 2, 12, 7),
            (3, 2, 12, 7),
            (2, 3, 13, 7),
            (3, 3, 13, 7),
        ];
        assert_eq!(counted(&events), [1, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn threads_move_folios_at_the_same_time() {
        let events = [
            (1, 1, 11, 7),
            (1, 2, 12, 8),
            (2, 1, 11, 7),
            (2, 2, 12, 8),
            (2, 3, 11, 8),
        ];
        assert_eq!(counted(&events), [1, 1, 0, 0, 1]);
    }

    #[test]
    fn pages_of_a_large_folio_take_turns() {
        // The tracepoint backend sees the first mapping of both pages, then the second one of both.
        let events = [(1, 1, 11, 7), (1, 2, 12, 7), (2, 1, 11, 7), (2, 2, 12, 7)];
        assert_eq!(counted(&events), [1, 1, 0, 0]);
    }

    #[test]
    fn a_page_goes_to_and_fro() {
        let events = [(2, 1, 11, 7), (2, 11, 1, 7), (2, 1, 11, 7), (3, 1, 11, 7)];
        assert_eq!(counted(&events), [1, 1, 1, 0]);
    }
}
