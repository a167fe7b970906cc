//! Pages by the outcome of the search for their owners, counted once each (tracepoint backend).
//! Input: moves in the order of the ring, with the outcomes of single mappings.

use std::{collections::HashMap, ops::Range};

use tracer_common::event::MappingMoved;

/// The limit of threads whose last pages may get further mappings. When it is reached, all pages count as complete.
const MAX_THREADS: usize = 1024;

/// The outcomes of a mapping, the best first. A page has the best outcome of its mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The owner is known and requested.
    Owned,
    /// The owner is known and not requested.
    Filtered,
    /// No owner was found.
    NotFound,
    /// The owner was not searched for.
    NotSearched,
}

/// Base pages by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pages {
    pub owned: u64,
    pub filtered: u64,
    pub not_found: u64,
    pub not_searched: u64,
}

impl Pages {
    fn add(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            *match outcome {
                Outcome::Owned => &mut self.owned,
                Outcome::Filtered => &mut self.filtered,
                Outcome::NotFound => &mut self.not_found,
                Outcome::NotSearched => &mut self.not_searched,
            } += 1;
        }
    }
}

/// Pages with neighbouring new frames that a thread moved one after the other. The kernel side does not begin to number
/// anew with each of them.
#[derive(Debug, Default)]
struct Extent {
    first: u64,
    outcomes: Vec<Outcome>,
}

impl Extent {
    fn known(&self, raw: &MappingMoved) -> Option<Range<usize>> {
        let begin = usize::try_from(raw.new_pfn.checked_sub(self.first)?).ok()?;
        let end = begin.checked_add(raw.pages as usize)?;
        (raw.nth != 1 && end <= self.outcomes.len()).then_some(begin..end)
    }
}

/// Counts pages by outcome. A page is complete when its thread has gone on to frames elsewhere: it gets no more
/// mappings.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    by_thread: HashMap<u32, Extent>,
    complete: Pages,
}

impl Outcomes {
    /// Adds one mapping. Returns the best outcome of the pages' earlier mappings; None if it is the first.
    pub fn add(&mut self, raw: &MappingMoved, outcome: Outcome) -> Option<Outcome> {
        if self.by_thread.len() >= MAX_THREADS && !self.by_thread.contains_key(&raw.actor_tid) {
            self.end();
        }
        let extent = self.by_thread.entry(raw.actor_tid).or_default();
        if let Some(known) = extent.known(raw) {
            let known = &mut extent.outcomes[known];
            let before = known.iter().copied().min();
            for best in known {
                *best = outcome.min(*best);
            }
            return before;
        }
        // This is the first mapping, or the one before it was lost.
        if raw.new_pfn != extent.first + extent.outcomes.len() as u64 {
            self.complete.add(&extent.outcomes);
            extent.outcomes.clear();
            extent.first = raw.new_pfn;
        }
        let pages = extent.outcomes.len() + raw.pages as usize;
        extent.outcomes.resize(pages, outcome);
        None
    }

    /// Ends the input: all pages are complete.
    pub fn end(&mut self) {
        for (_, extent) in self.by_thread.drain() {
            self.complete.add(&extent.outcomes);
        }
    }

    /// The pages that are complete.
    pub fn complete(&self) -> Pages {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(nth: u8, actor_tid: u32, new_pfn: u64, pages: u32) -> MappingMoved {
        MappingMoved {
            nth,
            actor_tid,
            new_pfn,
            pages,
            ..MappingMoved::default()
        }
    }

    fn sums(moves: &[(MappingMoved, Outcome)]) -> [u64; 4] {
        let mut outcomes = Outcomes::default();
        for (raw, outcome) in moves {
            outcomes.add(raw, *outcome);
        }
        outcomes.end();
        let Pages {
            owned,
            filtered,
            not_found,
            not_searched,
        } = outcomes.complete();
        [owned, filtered, not_found, not_searched]
    }

    #[test]
    fn a_page_of_many_mappings_has_the_best_of_their_outcomes() {
        let shared = |pfn| {
            [
                (mapping(1, 7, pfn, 1), Outcome::NotFound),
                (mapping(2, 7, pfn, 1), Outcome::Owned),
                (mapping(2, 7, pfn, 1), Outcome::NotSearched),
            ]
        };
        assert_eq!(sums(&shared(100)), [1, 0, 0, 0]);
        // Neighbours, and a page elsewhere.
        assert_eq!(sums(&[shared(100), shared(101), shared(90)].concat()), [3, 0, 0, 0]);
        // A large folio that is mapped page by page: all of one process, then all of the next.
        let by_page = |nth, outcome| (0..4).map(move |page| (mapping(nth, 7, 512 + page, 1), outcome));
        let folio: Vec<_> = by_page(1, Outcome::NotSearched)
            .chain(by_page(2, Outcome::Filtered))
            .collect();
        assert_eq!(sums(&folio), [0, 4, 0, 0]);
    }

    #[test]
    fn threads_do_not_mix() {
        let moves = [
            (mapping(1, 7, 100, 1), Outcome::NotFound),
            (mapping(1, 8, 200, 512), Outcome::Owned),
            (mapping(2, 7, 100, 1), Outcome::Owned),
            (mapping(2, 8, 200, 512), Outcome::NotFound),
        ];
        assert_eq!(sums(&moves), [513, 0, 0, 0]);
    }

    #[test]
    fn a_frame_that_is_filled_again_is_another_page() {
        let again = (mapping(1, 7, 100, 1), Outcome::Owned);
        assert_eq!(sums(&[again, again]), [2, 0, 0, 0]);
        // The first mapping was lost.
        assert_eq!(sums(&[(mapping(2, 7, 300, 1), Outcome::NotFound)]), [0, 0, 1, 0]);
    }

    #[test]
    fn a_page_counts_when_its_thread_has_gone_on() {
        let mut outcomes = Outcomes::default();
        assert_eq!(outcomes.add(&mapping(1, 7, 100, 1), Outcome::NotFound), None);
        let before = outcomes.add(&mapping(2, 7, 100, 1), Outcome::NotSearched);
        assert_eq!(before, Some(Outcome::NotFound));
        assert_eq!(outcomes.complete(), Pages::default());
        outcomes.add(&mapping(1, 7, 50, 1), Outcome::Owned);
        assert_eq!(outcomes.complete().not_found, 1);
        for thread in (100..).take(MAX_THREADS) {
            outcomes.add(&mapping(1, thread, 100, 1), Outcome::Owned);
        }
        assert!(outcomes.by_thread.len() <= MAX_THREADS && outcomes.complete().owned > 0);
    }
}
