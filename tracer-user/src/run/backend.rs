//! The backends: the ways in which moves can be captured.
//! Input: none.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kernel::hooks::{HOOKS, Hook, Kinds, Used};

/// How events are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Function hooks: every folio and mapping with its owner, from the kernel.
    Exact,
    /// Tracepoints only: mappings by address, owners from pagemap.
    Tracepoint,
}

impl Backend {
    /// Best first.
    pub const ALL: [Self; 2] = [Self::Exact, Self::Tracepoint];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// The kinds of moves that it can see.
    #[must_use]
    pub fn sees(self) -> Kinds {
        match self {
            Self::Exact => Kinds::ALL,
            Self::Tracepoint => Kinds::MOVE,
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
