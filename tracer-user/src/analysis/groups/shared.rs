//! Remembers which groups have counted the pages of a folio.
//! Input: moves, in the order in which they were read.

use crate::{
    event::Move,
    run::folios::{Folios, Seen},
};

/// The groups that have counted a folio: pairs of table and group.
type Counters = Vec<(usize, Option<usize>)>;

/// The folios of the last moves.
#[derive(Debug, Default)]
pub struct Shared(Folios<Counters>);

/// The folio of a move. None: the move counts its own pages.
pub struct Counted<'f> {
    own: u64,
    folio: Option<Seen<'f, Counters>>,
}

impl Shared {
    /// The folio of this move.
    pub fn folio(&mut self, moved: &Move) -> Counted<'_> {
        let mut folio = self.0.folio(moved);
        if let Some(folio) = &mut folio
            && folio.begins
        {
            folio.kept.clear();
        }
        let own = moved.pages;
        Counted { own, folio }
    }
}

impl Counted<'_> {
    /// The base pages that this group of this table has not counted yet.
    pub fn pages(&mut self, table: usize, group: Option<usize>) -> u64 {
        let Some(folio) = &mut self.folio else {
            return self.own;
        };
        let here = (table, group);
        if folio.kept.contains(&here) {
            return 0;
        }
        folio.kept.push(here);
        folio.pages
    }
}
