//! Coverage: the facts about moves that a source can know.
//! Input: none; each backend states its own.

use crate::kernel::hooks::Kinds;

/// The facts that a source can know. Code that needs one checks it here, and not the backend of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Coverage {
    /// The kinds of moves that it sees.
    pub kinds: Kinds,
    /// It sees moves of folios that no process maps.
    pub unmapped: bool,
    /// It sees folios that could not be moved.
    pub failures: bool,
    /// It knows why a page moved.
    pub reasons: bool,
    /// It knows which task moved a page.
    pub actors: bool,
    /// It knows how long a page was inaccessible.
    pub blackouts: bool,
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
