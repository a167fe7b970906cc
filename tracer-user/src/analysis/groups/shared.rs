//! Remembers which groups have counted the pages of a folio.
//! Input: moves, in the order in which they were read.

use std::collections::BTreeSet;

use crate::{
    event::Move,
    run::folios::{Folios, Seen},
    units::Nanos,
};

/// A group that has counted a folio. None: all groups for which there was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharer(pub Option<usize>);

/// The groups that have counted a folio: pairs of table and group.
type Counters = BTreeSet<(usize, Option<usize>)>;

/// The most pairs that are remembered: beyond that the oldest folios are forgotten.
const MOST: usize = 1 << 20;

/// The folios of the last moves.
#[derive(Debug, Default)]
pub struct Shared {
    folios: Folios<Counters>,
    /// Pairs in them.
    pairs: usize,
}

/// The folio of a move, which several groups may share. None: the move counts its own pages.
pub struct Sharing<'f> {
    /// When the folio moved: the time of its first event.
    pub at: Nanos,
    own: u64,
    folio: Option<Seen<'f, Counters>>,
    pairs: &'f mut usize,
}

impl Shared {
    /// The folio of this move.
    pub fn folio(&mut self, moved: &Move) -> Sharing<'_> {
        while self.pairs > MOST
            && let Some(counters) = self.folios.forget()
        {
            self.pairs -= counters.len();
        }
        let mut folio = self.folios.folio(moved);
        if let Some(folio) = &mut folio
            && folio.begins
        {
            self.pairs -= folio.kept.len();
            folio.kept.clear();
        }
        let own = moved.pages;
        Sharing {
            at: folio.as_ref().map_or(moved.at, |folio| folio.begun),
            own,
            folio,
            pairs: &mut self.pairs,
        }
    }
}

/// The pages of a move that a group counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Base pages that the group has not counted yet.
    pub pages: u64,
    /// Whether an earlier group of the table has counted them.
    pub again: bool,
    /// The only earlier group of the table that has.
    pub with: Option<Sharer>,
}

impl Sharing<'_> {
    /// Counts the pages for this group of this table.
    pub fn count(&mut self, table: usize, group: Option<usize>) -> Counted {
        let Some(folio) = &mut self.folio else {
            return Counted {
                pages: self.own,
                ..Counted::default()
            };
        };
        let mut before = folio.kept.range((table, None)..(table + 1, None));
        let (first, more) = (before.next().copied(), before.next().is_some());
        if !folio.kept.insert((table, group)) {
            return Counted::default();
        }
        *self.pairs += 1;
        Counted {
            pages: folio.pages,
            again: first.is_some(),
            with: first.filter(|_| !more).map(|(_, group)| Sharer(group)),
        }
    }
}
