//! Remembers which groups have counted the pages of the folio that a thread is moving.
//! Input: moves, in the order in which they were read.

use std::collections::HashMap;

use crate::{event::Move, run::folios::Folios, units::Tid};

/// Threads whose folio is remembered. Fewer threads move pages at the same time.
const MOST: usize = 1 << 12;

/// The folio that each thread is moving. A thread restores all mappings of a folio before those of the next one
/// (mm/migrate.c, `remove_migration_ptes`), and its events keep their order.
#[derive(Debug, Default)]
pub struct Shared {
    folios: Folios,
    /// The thread of the last move: events come in batches of one thread.
    current: (Option<Tid>, Counted),
    /// The other threads.
    others: HashMap<Option<Tid>, Counted>,
}

/// The groups that have counted the pages of a folio.
#[derive(Debug, Default)]
pub struct Counted {
    /// Base pages of the folio.
    pages: u64,
    /// Pairs of table and group; None if each event counts its own pages.
    groups: Option<Vec<(usize, Option<usize>)>>,
}

impl Shared {
    /// The folio of this move.
    pub fn folio(&mut self, moved: &Move) -> &mut Counted {
        let pages = self.folios.pages(moved);
        let thread = moved.thread();
        if self.current.0 != thread {
            self.turn_to(thread);
        }
        let counted = &mut self.current.1;
        if moved.nth.is_none() {
            (counted.pages, counted.groups) = (pages, None);
        } else if pages > 0 || counted.groups.is_none() {
            // If the first event was not seen, another one begins the folio.
            counted.pages = moved.order.pages().max(moved.pages);
            counted.groups.get_or_insert_default().clear();
        }
        counted
    }

    fn turn_to(&mut self, thread: Option<Tid>) {
        if self.others.len() >= MOST && !self.others.contains_key(&thread) {
            self.others.clear();
        }
        let next = (thread, self.others.remove(&thread).unwrap_or_default());
        let (before, counted) = std::mem::replace(&mut self.current, next);
        self.others.insert(before, counted);
    }
}

impl Counted {
    /// The base pages that this group of this table has not counted yet.
    pub fn pages(&mut self, table: usize, group: Option<usize>) -> u64 {
        let Some(groups) = &mut self.groups else {
            return self.pages;
        };
        let here = (table, group);
        if groups.contains(&here) {
            return 0;
        }
        groups.push(here);
        self.pages
    }
}
