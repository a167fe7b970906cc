//! Coverage: what a source can know about the moves on its machine, and what it cannot.
//! Input: none; each backend states its own.

use crate::kernel::hooks::Kinds;

/// What a source can know. Whoever needs that asks it here, and not which backend a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Coverage {
    /// The kinds of moves that it sees.
    pub kinds: Kinds,
    /// It sees moves of folios that nobody maps.
    pub unmapped: bool,
    /// It sees folios that could not be moved.
    pub failures: bool,
    /// It knows why a page moved.
    pub reasons: bool,
    /// It knows which task moved a page.
    pub actors: bool,
    /// It knows how long a page was inaccessible.
    pub blackouts: bool,
    /// Where the owner of a page comes from.
    pub owners: Owners,
}

/// Where the owner of a page comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The kernel names it when the page moves.
    Kernel,
    /// User space searches the page tables afterwards (/proc/PID/pagemap).
    Pagemap,
}
