//! Lists by key, all of them in memory that is kept when they are cleared.
//! Input: keys and values.

use std::{collections::HashMap, hash::Hash};

/// A map of keys to lists. The room of removed values is used again only after all lists are cleared.
pub(super) struct Lists<K, V> {
    ends: HashMap<K, Ends>,
    links: Vec<Link<V>>,
}

/// The first and the last link of a list that is not empty.
#[derive(Clone, Copy)]
struct Ends {
    first: usize,
    last: usize,
}

struct Link<V> {
    value: V,
    next: Option<usize>,
}

impl<K, V> Default for Lists<K, V> {
    fn default() -> Self {
        Self {
            ends: HashMap::new(),
            links: Vec::new(),
        }
    }
}

impl<K: Eq + Hash, V: Copy> Lists<K, V> {
    /// Adds a value at the end of a key's list.
    pub fn push(&mut self, key: K, value: V) {
        let added = self.links.len();
        self.links.push(Link { value, next: None });
        let ends = self.ends.entry(key).or_insert(Ends {
            first: added,
            last: added,
        });
        if ends.last != added {
            self.links[ends.last].next = Some(added);
            ends.last = added;
        }
    }

    /// A key's list.
    pub fn get<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a V> + use<'a, K, V> {
        let mut next = self.ends.get(key).map(|ends| ends.first);
        std::iter::from_fn(move || {
            let link = &self.links[next?];
            next = link.next;
            Some(&link.value)
        })
    }

    /// Takes the first value of a key's list.
    pub fn pop_front(&mut self, key: &K) -> Option<V> {
        let ends = self.ends.get_mut(key)?;
        let link = &self.links[ends.first];
        match link.next {
            Some(next) => ends.first = next,
            None => drop(self.ends.remove(key)),
        }
        Some(link.value)
    }

    /// Removes the values of a key's list for which `keep` is false.
    pub fn retain(&mut self, key: &K, keep: impl Fn(&V) -> bool) {
        let Some(ends) = self.ends.get_mut(key) else { return };
        let mut next = Some(ends.first);
        let mut kept: Option<Ends> = None;
        while let Some(at) = next {
            next = self.links[at].next;
            if keep(&self.links[at].value) {
                if let Some(kept) = kept {
                    self.links[kept.last].next = Some(at);
                }
                kept = Some(Ends {
                    first: kept.map_or(at, |kept| kept.first),
                    last: at,
                });
            }
        }
        match kept {
            Some(kept) => {
                self.links[kept.last].next = None;
                *ends = kept;
            }
            None => drop(self.ends.remove(key)),
        }
    }

    /// Removes every list.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.links.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lists_are_as_those_that_stand_alone(steps in prop::collection::vec((0u8..8, 0u8..3, 0u8..9), 0..60)) {
            let mut lists = Lists::default();
            let mut alone: HashMap<u8, VecDeque<u8>> = HashMap::new();
            for (step, key, value) in steps {
                let list = alone.entry(key).or_default();
                match step {
                    0..4 => {
                        lists.push(key, value);
                        list.push_back(value);
                    }
                    4 | 5 => prop_assert_eq!(lists.pop_front(&key), list.pop_front()),
                    6 => {
                        lists.retain(&key, |other| *other % 3 != value % 3);
                        list.retain(|other| *other % 3 != value % 3);
                    }
                    _ => {
                        lists.clear();
                        alone.clear();
                    }
                }
                for key in 0..3 {
                    let list = alone.get(&key).into_iter().flatten();
                    prop_assert!(lists.get(&key).eq(list));
                }
            }
        }
    }
}
