//! The backends: the ways in which moves can be captured.
//! Input: none; in the header of a recording, a backend's name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    kernel::hooks::{HOOKS, Hook, Kinds, Used},
    run::coverage::{Coverage, Owners},
};

/// A way in which events are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Function hooks: every folio and mapping with its owner, from the kernel.
    Exact,
    /// Tracepoints only: mappings by address, owners from the reverse mapping or from pagemap.
    Tracepoint,
}

impl Backend {
    /// All backends, the best one first.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Tracepoint];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// A description for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Exact => "exact (fentry)",
            Self::Tracepoint => "tracepoint (no fentry)",
        }
    }

    /// The loss where this backend does not work, nor a better one.
    #[must_use]
    pub const fn loses(self) -> &'static str {
        match self {
            Self::Exact => "folios that could not be moved, with cause and owner; moves of page cache that nobody maps",
            Self::Tracepoint => "the backend that works where function hooks are refused",
        }
    }

    /// The facts that this backend can know.
    #[must_use]
    pub const fn coverage(self) -> Coverage {
        match self {
            Self::Exact => Coverage {
                kinds: Kinds::ALL,
                unmapped: true,
                reasons: true,
                actors: true,
                owners: Owners::Kernel,
            },
            Self::Tracepoint => Coverage {
                kinds: Kinds::MOVE,
                unmapped: false,
                reasons: true,
                actors: true,
                owners: Owners::Pagemap,
            },
        }
    }

    fn uses(self, hook: &Hook, kinds: Kinds) -> bool {
        let moves = kinds.any_of(Kinds::MOVE);
        match hook.used {
            Used::Always => true,
            Used::Moves => moves,
            Used::Exact => self == Self::Exact && moves,
            Used::Tracepoint => self == Self::Tracepoint && moves,
            Used::Kinds(wanting) | Used::More(wanting) => self == Self::Exact && kinds.any_of(wanting),
        }
    }

    /// The hooks that this backend wants for these kinds of moves, in the order in which they are attached.
    pub fn hooks(self, kinds: Kinds) -> impl Iterator<Item = &'static Hook> {
        HOOKS.iter().filter(move |hook| self.uses(hook, kinds))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The backend of a run, by its name: a recording of a later version of tracer may have another backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum BackendName {
    /// A backend of this version.
    Known(Backend),
    /// The name of a backend that this version does not have.
    Other(String),
}

impl BackendName {
    /// Its name in the recording.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Known(backend) => backend.name(),
            Self::Other(name) => name,
        }
    }

    /// The better ones, best first, as far as this version knows them.
    pub fn better(&self) -> impl Iterator<Item = Backend> {
        let known = matches!(self, Self::Known(_));
        let better = Backend::ALL.into_iter().filter(move |_| known);
        better.take_while(|backend| Self::Known(*backend) != *self)
    }

    /// The facts that it can know; None: this version does not know it.
    #[must_use]
    pub fn coverage(&self) -> Option<Coverage> {
        match self {
            Self::Known(backend) => Some(backend.coverage()),
            Self::Other(_) => None,
        }
    }
}

impl From<Backend> for BackendName {
    fn from(backend: Backend) -> Self {
        Self::Known(backend)
    }
}

impl From<BackendName> for String {
    fn from(name: BackendName) -> Self {
        name.name().to_owned()
    }
}

impl From<String> for BackendName {
    fn from(name: String) -> Self {
        let known = Backend::ALL.into_iter().find(|backend| backend.name() == name);
        known.map_or(Self::Other(name), Self::Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_of_a_later_version_is_kept() {
        for (json, known) in [(r#""tracepoint""#, true), (r#""poll""#, false)] {
            let name: BackendName = serde_json::from_str(json).unwrap();
            assert_eq!(name == BackendName::Known(Backend::Tracepoint), known);
            assert_eq!(serde_json::to_string(&name).unwrap(), json);
        }
    }
}
