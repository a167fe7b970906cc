//! Remembers which groups have counted the pages of a folio.
//! Input: moves, in the order in which they were read.

use std::collections::BTreeSet;

use crate::{
    event::Move,
    run::folios::{Folios, Seen},
};

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

/// The folio of a move. None: the move counts its own pages.
pub struct Counted<'f> {
    own: u64,
    folio: Option<Seen<'f, Counters>>,
    pairs: &'f mut usize,
}

impl Shared {
    /// The folio of this move.
    pub fn folio(&mut self, moved: &Move) -> Counted<'_> {
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
        Counted {
            own,
            folio,
            pairs: &mut self.pairs,
        }
    }
}

impl Counted<'_> {
    /// The base pages that this group of this table has not counted yet.
    pub fn pages(&mut self, table: usize, group: Option<usize>) -> u64 {
        let Some(folio) = &mut self.folio else {
            return self.own;
        };
        if !folio.kept.insert((table, group)) {
            return 0;
        }
        *self.pairs += 1;
        folio.pages
    }
}
