//! Rows of moves: one per move, or per run of neighbouring pages that moved together.
//! Input: moves.

use tracer_common::event::outside;

use super::{Layout, mover, named, nodes, place, reason};
use crate::{
    event::{Move, OwnerSource, Residence, Verdict},
    render::quantity::{Duration, PageSize},
    units::{Nanos, Order, Pfn, VirtAddr},
};

/// Moves shown as one row.
#[derive(Clone, Debug)]
pub struct Row {
    first: Move,
    /// Lowest address and its frames.
    start: VirtAddr,
    old_pfn: Option<Pfn>,
    new_pfn: Option<Pfn>,
    end: VirtAddr,
    /// Events in the row, and base pages.
    events: u64,
    pages: u64,
    blackout: Option<Nanos>,
}

impl Row {
    /// A row of one move.
    #[must_use]
    pub fn new(moved: &Move) -> Self {
        Self {
            start: moved.vaddr,
            end: moved.vaddr.plus_pages(moved.pages),
            old_pfn: moved.old_pfn,
            new_pfn: moved.new_pfn,
            events: 1,
            pages: moved.pages,
            blackout: moved.blackout,
            first: moved.clone(),
        }
    }

    /// Takes in a neighbour of the same story: same owner, VMA, reason, actor, nodes, verdict and
    /// certainty, next to the row's pages on either side. False: it is another row.
    pub fn extend(&mut self, moved: &Move) -> bool {
        let first = &self.first;
        let same = first.order == moved.order
            && first.verdict == moved.verdict
            && first.ambiguous == moved.ambiguous
            && first.reason == moved.reason
            && (first.old_node, first.new_node) == (moved.old_node, moved.new_node)
            && first.actor.as_ref().map(|actor| actor.tid) == moved.actor.as_ref().map(|actor| actor.tid)
            && first.owner_source == moved.owner_source
            && first.owner.as_ref().map(|owner| owner.tgid) == moved.owner.as_ref().map(|owner| owner.tgid)
            && first.vma.as_ref().map(|vma| vma.start) == moved.vma.as_ref().map(|vma| vma.start);
        if !same {
            return false;
        }
        let end = moved.vaddr.plus_pages(moved.pages);
        if moved.vaddr == self.end {
            self.end = end;
        } else if end == self.start {
            (self.start, self.old_pfn, self.new_pfn) = (moved.vaddr, moved.old_pfn, moved.new_pfn);
        } else {
            return false;
        }
        self.events += 1;
        self.pages = self.pages.saturating_add(moved.pages);
        self.blackout = self.blackout.max(moved.blackout);
        true
    }

    /// The row as text, without the last line's end. `time` is its first move's clock time.
    #[must_use]
    pub fn text(&self, time: &str, layout: &Layout) -> String {
        let moved = &self.first;
        let blackout = self
            .blackout
            .map_or_else(|| "-".to_owned(), |blackout| Duration(blackout).to_string());
        let (old, new) = moved.residences();
        let mover = moved.actor.as_ref().map_or_else(unknown, |actor| {
            mover(actor, moved.owner.as_ref(), moved.reason.as_ref())
        });
        let columns = [
            time,
            &owner(moved),
            &format!("{:012x}", self.start.0),
            &self.size(),
            &format!("{} -> {}", frame(self.old_pfn, old), frame(self.new_pfn, new)),
            &nodes((old, new)),
            &moved.reason.as_ref().map_or_else(unknown, reason),
            &mover,
            &blackout,
        ];
        layout.lines(columns, &notes(moved), &place(moved.vma.as_deref()))
    }

    fn size(&self) -> String {
        if self
            .first
            .reason
            .as_ref()
            .is_some_and(|reason| reason.number == outside::COLLAPSE)
        {
            collapsed(self.first.order, self.start, self.pages)
        } else {
            folios(self.first.order, self.events, self.pages)
        }
    }
}

/// The size of one move.
#[must_use]
pub fn size(moved: &Move) -> String {
    Row::new(moved).size()
}

/// `4K x504 -> 2M`: base pages from `start` on that became one folio of that order, or several.
fn collapsed(order: Order, start: VirtAddr, pages: u64) -> String {
    let (first, end) = (start.page(), start.page().saturating_add(pages));
    let made = end.div_ceil(order.pages()) - first / order.pages();
    format!(
        "{} -> {}",
        folios(Order(0), pages, pages),
        folios(order, made, order.pages().saturating_mul(made))
    )
}

/// `4K x37`, `2M`: the base pages that moved in `events` runs, counted in folios where those are whole ones.
#[must_use]
pub fn folios(order: Order, events: u64, pages: u64) -> String {
    let whole = order.pages().saturating_mul(events) == pages;
    let (unit, count) = if whole { (order, events) } else { (Order(0), pages) };
    match count {
        1 => PageSize(unit).to_string(),
        count => format!("{} x{count}", PageSize(unit)),
    }
}

/// What is to be known of the page, or is not certain; ends with a separator where there is something.
fn notes(moved: &Move) -> String {
    let mut notes = String::new();
    let mut note = |words: &str| {
        notes.push_str(words);
        notes.push_str(" · ");
    };
    if moved.verdict != Verdict::Confirmed {
        note(moved.verdict.words());
    }
    if moved.ambiguous {
        note("old frame uncertain");
    }
    if moved.owner_source == OwnerSource::Chain {
        note("owner from its other moves");
    }
    notes
}

/// What stands where the source does not see it.
fn unknown() -> String {
    "unknown".to_owned()
}

fn owner(moved: &Move) -> String {
    moved.owner.as_ref().map_or_else(unknown, named)
}

/// A page without a frame is on swap, or its frame was not seen.
fn frame(pfn: Option<Pfn>, residence: Residence) -> String {
    match (pfn, residence) {
        (Some(pfn), _) => pfn.to_string(),
        (None, Residence::Swap) => "swap".to_owned(),
        (None, Residence::Node(_) | Residence::Unknown) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::width_of, *};
    use crate::{
        event::Reason,
        made_up::{moved, unknown},
    };

    const TIME: &str = "12:01:03.417";

    #[test]
    fn neighbours_become_one_row() {
        let first = moved();
        let mut row = Row::new(&first);
        let after = Move {
            vaddr: first.vaddr.plus_pages(first.pages),
            blackout: Some(Nanos(900_000)),
            ..first.clone()
        };
        assert!(row.extend(&after));
        let before = Move {
            vaddr: VirtAddr(first.vaddr.0 - 4096),
            pages: 1,
            old_pfn: Some(Pfn(0x100)),
            new_pfn: Some(Pfn(0x200)),
            ..first.clone()
        };
        assert!(row.extend(&before));
        assert!(!row.extend(&first), "it is in there");
        insta::assert_snapshot!("folded", row.text(TIME, &Layout::new(None, 2)));
    }

    #[test]
    fn another_story_is_another_row() {
        let first = moved();
        let next = Move {
            vaddr: first.vaddr.plus_pages(first.pages),
            ..first.clone()
        };
        assert!(Row::new(&first).extend(&next));
        let others = [
            Move {
                ambiguous: true,
                ..next.clone()
            },
            Move {
                verdict: Verdict::Unmapped,
                ..next.clone()
            },
            Move {
                owner_source: OwnerSource::Chain,
                ..next.clone()
            },
            Move {
                new_node: None,
                ..next.clone()
            },
            Move {
                vma: None,
                ..next.clone()
            },
            Move {
                order: Order(9),
                ..next.clone()
            },
        ];
        for other in &others {
            assert!(!Row::new(&first).extend(other), "{other:?}");
        }
    }

    /// Every verdict, and what may be uncertain.
    fn table(layout: &Layout) -> String {
        let mut moves: Vec<Move> = Verdict::ALL
            .into_iter()
            .map(|verdict| Move { verdict, ..moved() })
            .collect();
        moves.push(Move {
            ambiguous: true,
            owner_source: OwnerSource::Chain,
            verdict: Verdict::MovedAgain,
            ..moved()
        });
        moves.push(unknown());
        let mut text = layout.heading();
        for moved in &moves {
            text.push('\n');
            text.push_str(&Row::new(moved).text(TIME, layout));
        }
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn every_verdict() {
        insta::assert_snapshot!("unlimited", table(&Layout::new(None, 1)));
    }

    #[test]
    fn terminals_of_any_width() {
        insta::assert_snapshot!("columns_80", table(&Layout::new(Some(80), 2)));
        insta::assert_snapshot!("columns_120_one_node", table(&Layout::new(Some(120), 1)));
        insta::assert_snapshot!("columns_200_one_node", table(&Layout::new(Some(200), 1)));
        for width in [80, 100, 120, 160, 200] {
            let layout = Layout::new(Some(width), 2);
            assert_eq!(layout.heading().lines().count(), layout.height());
            let row = Row::new(&moved()).text(TIME, &layout);
            assert!(row.lines().all(|line| width_of(line) <= width), "{width}: {row}");
        }
    }

    #[test]
    fn a_collapse_says_what_became_of_its_pages() {
        let collapse = |vaddr, pages| Move {
            vaddr: VirtAddr(vaddr),
            pages,
            order: Order(9),
            reason: Some(Reason {
                number: outside::COLLAPSE,
                name: Some(Arc::from("collapse")),
            }),
            ..moved()
        };
        assert_eq!(size(&collapse(0x20_0000, 504)), "4K x504 -> 2M");
        assert_eq!(size(&collapse(0x20_0000, 512)), "4K x512 -> 2M");
        assert_eq!(size(&collapse(0x3f_f000, 1)), "4K -> 2M");
        let mut row = Row::new(&collapse(0x20_0000, 512));
        assert!(row.extend(&collapse(0x40_0000, 512)));
        let text = row.text(TIME, &Layout::new(None, 2));
        assert!(text.contains(" 4K x1024 -> 2M x2 "), "{text}");
    }

    #[test]
    fn a_page_on_swap_has_no_frame_and_no_node() {
        let out = Move {
            new_pfn: None,
            new_node: None,
            reason: Some(Reason {
                number: outside::SWAP_OUT,
                name: Some(Arc::from("swap_out")),
            }),
            ..moved()
        };
        let text = |moved: &Move| Row::new(moved).text(TIME, &Layout::new(None, 2));
        let row = text(&out);
        assert!(row.contains("0x1f03a0 -> swap         0     swap_out"), "{row}");
        let unseen = Move {
            new_pfn: None,
            new_node: None,
            ..moved()
        };
        let row = text(&unseen);
        assert!(
            row.contains("0x1f03a0 -> ?            0->?  syscall_or_cpuset"),
            "{row}"
        );
    }
}
