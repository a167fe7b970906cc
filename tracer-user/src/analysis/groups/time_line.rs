//! Joins seconds into as few stretches as a table may have.
//! Input: groups by second.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{Group, GroupRow, Value};

/// The possible lengths of a stretch, in seconds.
const STEPS: [u64; 17] = [
    1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21_600, 43_200, 86_400,
];

/// Joins groups whose only key is the second into at most `most` stretches of one length. The longest possible stretch
/// is a day.
#[must_use]
pub fn stretches(seconds: &[GroupRow<'_>], most: usize) -> Vec<(Value, Group)> {
    let begins = |step: u64| {
        seconds.iter().filter_map(move |row| match row.values().next() {
            Some(Value::Seconds(second, _)) => Some((second - second % step, row.group())),
            _ => None,
        })
    };
    let fits = |step: &&u64| begins(**step).map(|(begin, _)| begin).collect::<BTreeSet<_>>().len() <= most;
    let step = STEPS.iter().find(fits).copied().unwrap_or(86_400);
    let mut stretches: BTreeMap<u64, Group> = BTreeMap::new();
    for (begin, group) in begins(step) {
        match stretches.entry(begin) {
            Entry::Vacant(free) => {
                free.insert(group.clone());
            }
            Entry::Occupied(mut there) => there.get_mut().merge(group),
        }
    }
    stretches
        .into_iter()
        .map(|(begin, group)| (Value::Seconds(begin, begin.saturating_add(step - 1)), group))
        .collect()
}
