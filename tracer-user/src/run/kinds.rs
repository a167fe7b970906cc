//! The kinds of moves that a run traces, by name.
//! Input: the arguments of a live run, or the header of a recording.

use serde::{Deserialize, Serialize};

use crate::kernel::hooks::Kinds;

/// Kinds of moves. Kinds of a later version of tracer, which this one does not know, keep their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<String>", from = "Vec<String>")]
pub struct KindNames {
    known: Kinds,
    others: Vec<String>,
}

impl KindNames {
    /// The kinds that this version knows.
    #[must_use]
    pub fn known(&self) -> Kinds {
        self.known
    }

    /// All names: the known ones first, in the order of the command line.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let known: Vec<&str> = self.known.names().collect();
        known.into_iter().chain(self.others.iter().map(String::as_str))
    }
}

impl From<Kinds> for KindNames {
    fn from(known: Kinds) -> Self {
        Self {
            known,
            others: Vec::new(),
        }
    }
}

impl From<KindNames> for Vec<String> {
    fn from(kinds: KindNames) -> Self {
        kinds.names().map(str::to_owned).collect()
    }
}

impl From<Vec<String>> for KindNames {
    fn from(names: Vec<String>) -> Self {
        let mut kinds = Self::from(Kinds::NONE);
        for name in names {
            match Kinds::named(&name) {
                Some(kind) => kinds.known = kinds.known.and(kind),
                None => kinds.others.push(name),
            }
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_a_later_version_are_kept() {
        let json = r#"["move","cow","balloon"]"#;
        let kinds: KindNames = serde_json::from_str(json).unwrap();
        assert_eq!(kinds.known(), Kinds::MOVE.and(Kinds::COW));
        assert_eq!(serde_json::to_string(&kinds).unwrap(), json);
    }
}
