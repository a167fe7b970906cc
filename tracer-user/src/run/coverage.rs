//! Coverage: the facts about moves that a source can know.
//! Input: none; each backend states its own.

use crate::kernel::hooks::Kinds;

/// The facts that a source can know. Code that needs one checks it here, and not the backend of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The kinds of moves that it sees.
    pub kinds: Kinds,
    /// It sees moves of folios that no process maps.
    pub unmapped: bool,
    /// It knows why a page moved.
    pub reasons: bool,
    /// It knows which task moved a page.
    pub actors: bool,
    /// The way in which it finds the owner of a page.
    pub owners: Owners,
}

/// The way in which a source finds the owner of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The kernel names it when the page moves.
    Kernel,
    /// The programs find it in the kernel's reverse mapping when the page moves. User space searches the page tables for
    /// the few that they do not find.
    ReverseMapping,
    /// User space searches the page tables afterwards (/proc/PID/pagemap).
    Pagemap,
}

impl Owners {
    /// The way that is left to programs, by whether it is known where the kernel has its `struct page`s: without that
    /// they cannot follow the reverse mapping.
    #[must_use]
    pub const fn with_memory_map(self, is_known: bool) -> Self {
        match self {
            Self::Pagemap if is_known => Self::ReverseMapping,
            Self::Kernel | Self::ReverseMapping | Self::Pagemap => self,
        }
    }
}
