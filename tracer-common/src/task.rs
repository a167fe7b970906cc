//! The state of a task while it migrates: its calls, the folio in hand, the extent of mappings.
//! Written by the BPF side's `state`; when a run ends, user space looks in it for calls that are still open.
#![expect(
    clippy::inline_always,
    reason = "a separate function would be one more for the verifier to check, with its own stack frame"
)]

/// Deepest nesting of calls that is kept. Calls of migrate_pages nest when the target's allocation reclaims and
/// demotes.
pub const MAX_DEPTH: u32 = 4;

/// The folio that moved last in a call; its mappings are restored next, by the same task.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Folio {
    /// `struct folio *` of the source; 0: none in hand.
    pub src: u64,
    /// `struct folio *` of the copy.
    pub dst: u64,
    /// Base pages.
    pub pages: u64,
    /// Its file, read while the folio was locked.
    pub file: File,
    /// Its order.
    pub order: u8,
    /// A mapping of it was restored.
    pub mapped: u8,
    /// Extents of its mappings that were reported; 255: 255 or more.
    pub reported: u8,
    /// A mapping of it has no known owner.
    pub unowned: u8,
    /// Padding.
    pub pad: [u8; 4],
}

impl Folio {
    /// No folio is in hand.
    pub const NONE: Self = Self {
        src: 0,
        dst: 0,
        pages: 0,
        file: File::NONE,
        order: 0,
        mapped: 0,
        reported: 0,
        unowned: 0,
        pad: [0; 4],
    };
}

/// The place of a folio of the page cache.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// `struct inode *`; 0: it has no file.
    pub inode: u64,
    /// Its place in the file, `folio.index`.
    pub index: u64,
}

impl File {
    /// No file.
    pub const NONE: Self = Self { inode: 0, index: 0 };
}

/// One call of migrate_pages. Sums are base pages, added to the counters when the call ends, so
/// that they cover the same calls as the kernel's own sum.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub begun: u64,
    /// Pages of folios that were seen to move.
    pub moved: u64,
    /// Part of `moved`: at least one mapping was sent, or lost.
    pub reported: u64,
    /// Part of `moved`: mapped, and filtered out.
    pub filtered: u64,
    /// Part of `moved`: mapped by a process that had no number.
    pub unowned: u64,
    /// Part of `moved`: without a mapping.
    pub unmapped: u64,
    /// Part of `unmapped`: filtered out.
    pub unmapped_filtered: u64,
    /// Pages of folios that were freed before they moved.
    pub released: u64,
    /// Transparent huge pages that moved or were released; folios, not pages.
    pub thps: u64,
    /// The folio in hand.
    pub folio: Folio,
    /// `struct list_head *` of the folios to move; folios that could not be moved are on it again when the call ends.
    /// 0: not known.
    pub from: u64,
    /// The place on the task's stack at which it began.
    pub stack: u64,
    /// Tracepoint backend: the extent of new frames seen last, `[first, end)`.
    pub frames: [u64; 2],
    /// `enum migrate_reason`.
    pub reason: u8,
    /// `enum migrate_mode`.
    pub mode: u8,
    /// A folio found no page for its copy, which ends a call early.
    pub no_memory: u8,
    /// 0: its reason or its actor is filtered out, and nothing in it is examined.
    pub wanted: u8,
    /// A folio of it could not be moved at once.
    pub troubled: u8,
    /// Tracepoint backend: the mappings of the last pages of the extent are filtered out so far.
    pub last_filtered: u8,
    /// Padding.
    pub pad: [u8; 2],
}

impl Call {
    /// A call in which nothing has happened.
    pub const NONE: Self = Self {
        begun: 0,
        moved: 0,
        reported: 0,
        filtered: 0,
        unowned: 0,
        unmapped: 0,
        unmapped_filtered: 0,
        released: 0,
        thps: 0,
        folio: Folio::NONE,
        from: 0,
        stack: 0,
        frames: [0; 2],
        reason: 0,
        mode: 0,
        no_memory: 0,
        wanted: 0,
        troubled: 0,
        last_filtered: 0,
        pad: [0; 2],
    };

    /// Counts the folio in hand, which is finished, by what happened to its mappings. Returns it if it had none.
    #[must_use]
    #[inline(always)]
    pub fn finish_folio(&mut self) -> Option<Folio> {
        let folio = self.folio;
        if folio.src == 0 {
            return None;
        }
        self.folio.src = 0;
        self.moved += folio.pages;
        if folio.reported != 0 {
            self.reported += folio.pages;
        } else if folio.unowned != 0 {
            self.unowned += folio.pages;
        } else if folio.mapped != 0 {
            self.filtered += folio.pages;
        } else {
            self.unmapped += folio.pages;
            return Some(folio);
        }
        None
    }

    /// Base pages in the events that the call has sent or lost, each counted once.
    #[must_use]
    #[inline(always)]
    pub fn shown(&self) -> u64 {
        let in_hand = if self.folio.src != 0 && self.folio.reported != 0 {
            self.folio.pages
        } else {
            0
        };
        self.reported + in_hand + self.unmapped.wrapping_sub(self.unmapped_filtered)
    }
}

/// The mappings that `remove_migration_pte` restores in one VMA, gathered into extents.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Kind of the mappings between entry and exit: [`Window::MOVED`], [`Window::PUT_BACK`], or 0 for none.
    pub open: u32,
    /// The process that owns them.
    pub owner_tgid: u32,
    /// The source folio; the same as the copy where it is put back.
    pub folio: u64,
    /// New frame minus old frame, the same for every page of the folio.
    pub frame_delta: u64,
    /// When unmapping began; 0: not seen.
    pub unmapped_at: u64,
    /// For a folio that is put back: the address after the last one at which the VMA may map it.
    pub end: u64,
    /// First address of the extent.
    pub vaddr: u64,
    /// First new frame of the extent.
    pub new_pfn: u64,
    /// When the last mapping of the extent was restored.
    pub at: u64,
    /// Base pages in the extent so far.
    pub pages: u32,
    /// 1: the mappings are wanted.
    pub wanted: u8,
    /// Bits of [`mapping_flags`](crate::event::mapping_flags).
    pub flags: u8,
    /// 1: the mappings would be wanted, if their owner were known.
    pub unowned: u8,
    /// Padding.
    pub pad: u8,
}

impl Window {
    /// Mappings of a folio that moved.
    pub const MOVED: u32 = 1;
    /// Mappings of a folio that could not be moved, or was split.
    pub const PUT_BACK: u32 = 2;

    /// No window is open.
    pub const CLOSED: Self = Self {
        open: 0,
        owner_tgid: 0,
        folio: 0,
        frame_delta: 0,
        unmapped_at: 0,
        end: 0,
        vaddr: 0,
        new_pfn: 0,
        at: 0,
        pages: 0,
        wanted: 0,
        flags: 0,
        unowned: 0,
        pad: 0,
    };
}

/// The kernel's walk through the reverse mapping of a folio, followed from one restored mapping to the next (tracepoint
/// backend).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// `struct folio *`; 0: none.
    pub folio: u64,
    /// When its first mapping was restored.
    pub since: u64,
    /// The node of the VMA whose mapping was restored last, `struct rb_node *`; 0: it was not found, and the walk is
    /// lost.
    pub node: u64,
    /// The address of that mapping.
    pub vaddr: u64,
    /// Its frame.
    pub pfn: u64,
    /// The index of its page in the reverse mapping.
    pub index: u64,
    /// The node that the search is at; 0: it is over.
    pub at: u64,
    /// The node that the search comes from, or one of [`Walk::ABOVE`], [`Walk::BESIDE`], [`Walk::BEHIND`].
    pub from: u64,
    /// 1: the reverse mapping is that of anonymous memory.
    pub anon: u64,
}

impl Walk {
    /// The search comes from the node's parent: the node and both its subtrees lie ahead.
    pub const ABOVE: u64 = 1;
    /// The left subtree lies behind.
    pub const BESIDE: u64 = 2;
    /// The node lies behind, too.
    pub const BEHIND: u64 = 3;

    /// No walk.
    pub const NONE: Self = Self {
        folio: 0,
        since: 0,
        node: 0,
        vaddr: 0,
        pfn: 0,
        index: 0,
        at: 0,
        from: 0,
        anon: 0,
    };
}

/// The state of a task.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Calls that it is in; those beyond [`MAX_DEPTH`] are not kept.
    pub depth: u32,
    /// 0: this actor's moves are filtered out.
    pub wanted: u32,
    /// The list that the next call was entered with.
    pub from: u64,
    /// The folio whose failure was reported last.
    pub told: u64,
    /// The mappings that are being restored.
    pub window: Window,
    /// The reverse mapping whose mappings are being restored.
    pub walk: Walk,
    /// The calls that it is in, the outermost first; old ones follow them.
    pub calls: [Call; MAX_DEPTH as usize],
}

impl Task {
    /// A task that is in no call.
    pub const NONE: Self = Self {
        depth: 0,
        wanted: 0,
        from: 0,
        told: 0,
        window: Window::CLOSED,
        walk: Walk::NONE,
        calls: [Call::NONE; MAX_DEPTH as usize],
    };

    /// When the outermost call began, nanoseconds; anything that the task left before is stale.
    #[must_use]
    #[inline(always)]
    pub fn began(&self) -> u64 {
        self.calls[0].begun
    }

    /// Base pages in the events of the calls from level `outer` on. No counter includes them before the calls end.
    #[must_use]
    #[inline(always)]
    pub fn unbooked(&self, outer: u32) -> u64 {
        let mut pages = 0;
        for (level, call) in (0..).zip(&self.calls) {
            if level >= outer && level < self.depth {
                pages += call.shown();
            }
        }
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_hand(pages: u64, reported: u8, mapped: u8) -> Folio {
        Folio {
            src: 1,
            pages,
            reported,
            mapped,
            ..Folio::NONE
        }
    }

    #[test]
    fn a_folio_is_booked_once_by_what_became_of_its_mappings() {
        let mut call = Call::NONE;
        for (folio, is_unmapped) in [
            (in_hand(512, 3, 1), false),
            (in_hand(1, 0, 1), false),
            (in_hand(4, 0, 0), true),
        ] {
            call.folio = folio;
            assert_eq!(call.finish_folio().is_some(), is_unmapped);
            assert!(call.finish_folio().is_none(), "none is in hand");
        }
        let Call {
            moved,
            reported,
            filtered,
            unmapped,
            ..
        } = call;
        assert_eq!([moved, reported, filtered, unmapped], [517, 512, 1, 4]);
    }

    #[test]
    fn pages_of_events_are_unbooked_until_their_call_ends() {
        let mut task = Task::NONE;
        task.calls[0].reported = 7;
        task.calls[0].unmapped = 4;
        task.calls[0].unmapped_filtered = 3;
        task.calls[1].folio = in_hand(512, 1, 1);
        task.calls[2].folio = in_hand(1, 0, 1);
        assert_eq!(task.unbooked(0), 0, "in no call: what is there is of old ones");
        for (depth, pages) in [(1, 8), (2, 520), (3, 520), (9, 520)] {
            task.depth = depth;
            assert_eq!(task.unbooked(0), pages, "in {depth} calls");
        }
        task.depth = 2;
        assert_eq!(task.unbooked(1), 512);
    }
}
