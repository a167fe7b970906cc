//! Distinguishes a folio that fails to move again from one that fails for the first time.
//! Input: failures, and moves that bring another page to a frame.

use std::{collections::HashMap, hash::Hash};

use crate::{
    event::failure::Failure,
    units::{Pfn, Tgid, VirtAddr},
};

/// The number of folios that are remembered: 1 GiB of base pages. Beyond that each failure counts as a new folio.
const MOST: usize = 1 << 18;

/// The identity of a folio: it stays in its frame, and a page stays in its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Frame(Pfn),
    /// Used if the machine hides frame numbers.
    Page(Tgid, VirtAddr),
}

/// Folios that could not be moved, each with the keys that it is counted under.
#[derive(Clone, Debug)]
pub struct Failed<K> {
    known: HashMap<Identity, Vec<K>>,
    /// The number of pairs of folio and key in it.
    pairs: usize,
}

impl<K> Default for Failed<K> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            pairs: 0,
        }
    }
}

impl<K: Eq + Clone> Failed<K> {
    /// Adds a failure and returns whether that folio has failed under that key before.
    pub fn failed(&mut self, key: &K, failure: &Failure) -> bool {
        let place = failure.places.first().map(|place| (place.owner.tgid, place.vaddr));
        let identity = match (failure.pfn, place) {
            (Some(pfn), _) => Identity::Frame(pfn),
            (None, Some((tgid, vaddr))) => Identity::Page(tgid, vaddr),
            (None, None) => return false,
        };
        if let Some(keys) = self.known.get(&identity)
            && keys.contains(key)
        {
            return true;
        }
        if self.pairs < MOST {
            self.known.entry(identity).or_default().push(key.clone());
            self.pairs += 1;
        }
        false
    }

    /// Forgets the folios in frames from `first` on, to which pages have moved.
    pub fn came(&mut self, first: Option<Pfn>, pages: u64) {
        let Some(first) = first.filter(|_| !self.known.is_empty()) else {
            return;
        };
        if pages <= self.known.len() as u64 {
            for page in 0..pages {
                self.forget(Identity::Frame(first.plus(page)));
            }
        } else {
            let here = |identity: &Identity| matches!(identity, Identity::Frame(pfn) if (first.0..first.0.saturating_add(pages)).contains(&pfn.0));
            let gone: Vec<Identity> = self.known.keys().filter(|identity| here(identity)).copied().collect();
            for identity in gone {
                self.forget(identity);
            }
        }
    }

    fn forget(&mut self, identity: Identity) {
        if let Some(keys) = self.known.remove(&identity) {
            self.pairs -= keys.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Event, made_up};

    fn failure() -> Failure {
        made_up::others()
            .into_iter()
            .find_map(|event| match event {
                Event::Failure(failure) => Some(failure),
                Event::Move(_) | Event::Unmapped(_) | Event::Compaction(_) => None,
            })
            .unwrap()
    }

    #[test]
    fn a_folio_is_known_until_another_page_comes_to_its_frame() {
        let (mut known, failure) = (Failed::default(), failure());
        let pfn = failure.pfn.unwrap();
        let failed = |known: &mut Failed<u8>, key| known.failed(&key, &failure);
        assert_eq!(
            [1, 1, 2, 2, 1].map(|key| failed(&mut known, key)),
            [false, true, false, true, true]
        );
        known.came(Some(pfn.plus(1)), 1);
        known.came(None, 1);
        assert!(failed(&mut known, 1));
        for (first, pages) in [(pfn, 1), (Pfn(0), u64::MAX)] {
            known.came(Some(first), pages);
            assert_eq!([1, 1].map(|key| failed(&mut known, key)), [false, true]);
        }
    }

    #[test]
    fn without_frames_a_page_of_a_process_is_known() {
        let mut known = Failed::default();
        let mut hidden = Failure { pfn: None, ..failure() };
        assert_eq!([(); 2].map(|()| known.failed(&(), &hidden)), [false, true]);
        hidden.places.clear();
        assert_eq!([(); 2].map(|()| known.failed(&(), &hidden)), [false, false]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut known = Failed::default();
        for frame in 0..MOST as u64 + 10 {
            let failure = Failure {
                pfn: Some(Pfn(frame)),
                ..failure()
            };
            assert!(!known.failed(&(), &failure));
        }
        assert_eq!((known.known.len(), known.pairs), (MOST, MOST));
    }
}
