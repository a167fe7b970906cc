//! Rows of moves: one per move, or per extent of neighbouring pages that moved together.
//! Input: moves.

use tracer_common::event::outside;

use super::{Layout, mover, nodes, owners, place, reason};
use crate::{
    event::{Move, OwnerSource, Residence, Verdict},
    units::{Nanos, Order, Pfn, VirtAddr},
    words::quantity::{Duration, PageSize},
};

/// A row holds at most this number of mappings of one folio; a folio with more has several rows.
const MOST: usize = 1 << 12;

/// One mapping of neighbouring folios that moved together.
#[derive(Clone, Debug)]
struct MovedMapping {
    first: Move,
    /// The lowest address, and the frames at it.
    start: VirtAddr,
    old_pfn: Option<Pfn>,
    new_pfn: Option<Pfn>,
    end: VirtAddr,
}

/// The side of a mapping on which its neighbour is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Below,
    Above,
}

impl MovedMapping {
    fn new(moved: &Move) -> Self {
        Self {
            start: moved.vaddr,
            end: moved.vaddr.plus_pages(moved.pages),
            old_pfn: moved.old_pfn,
            new_pfn: moved.new_pfn,
            first: moved.clone(),
        }
    }

    /// The side on which `next` continues this mapping: it adjoins these pages and has the same owner, VMA, reason,
    /// actor, nodes, verdict and certainty. None if it does not.
    fn beside(&self, next: &Self) -> Option<Side> {
        let (first, moved) = (&self.first, &next.first);
        let same = first.order == moved.order
            && first.verdict == moved.verdict
            && first.ambiguous == moved.ambiguous
            && first.reason == moved.reason
            && (first.old_node, first.new_node) == (moved.old_node, moved.new_node)
            && first.thread() == moved.thread()
            && first.owner_source == moved.owner_source
            && first.owner.as_ref().map(|owner| owner.tgid) == moved.owner.as_ref().map(|owner| owner.tgid)
            && first.vma.as_ref().map(|vma| vma.start) == moved.vma.as_ref().map(|vma| vma.start);
        match same {
            true if next.start == self.end => Some(Side::Above),
            true if next.end == self.start => Some(Side::Below),
            _ => None,
        }
    }

    fn extend(&mut self, side: Side, next: &Self) {
        match side {
            Side::Above => self.end = next.end,
            Side::Below => (self.start, self.old_pfn, self.new_pfn) = (next.start, next.old_pfn, next.new_pfn),
        }
    }
}

/// Moves shown as one row: neighbouring folios, each with all its mappings.
#[derive(Clone, Debug)]
pub struct Row {
    /// The mapping that was restored first; the row shows it.
    shown: MovedMapping,
    /// The other mappings in the order in which they were restored; the row counts them.
    others: Vec<MovedMapping>,
    /// Moves of the mapping that is shown, and their base pages.
    events: u64,
    pages: u64,
    blackout: Option<Nanos>,
}

impl Row {
    /// A row of one move.
    #[must_use]
    pub fn new(moved: &Move) -> Self {
        Self {
            shown: MovedMapping::new(moved),
            others: Vec::new(),
            events: 1,
            pages: moved.pages,
            blackout: moved.blackout,
        }
    }

    /// The time when the first of its pages was mapped again.
    #[must_use]
    pub fn at(&self) -> Nanos {
        self.shown.first.at
    }

    /// The verdict of pagemap on all its pages.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.shown.first.verdict
    }

    /// Adds another mapping of the row's only folio: a thread restores all mappings of a folio before those of the next
    /// one (mm/migrate.c, `remove_migration_ptes`, 6.1 to 7.3). Returns false if the mapping is of another folio, or
    /// less certain.
    fn share(&mut self, moved: &Move) -> bool {
        let first = &self.shown.first;
        let same = self.others.len() < MOST
            && moved.new_pfn.is_some()
            && (moved.old_pfn, moved.new_pfn) == (first.old_pfn, first.new_pfn)
            && (moved.pages, moved.order) == (first.pages, first.order)
            && (moved.verdict, moved.ambiguous) == (first.verdict, first.ambiguous)
            && moved.reason == first.reason
            && moved.thread() == first.thread()
            // The first mapping of a folio begins a move.
            && moved.nth != Some(1);
        if same {
            self.others.push(MovedMapping::new(moved));
            self.blackout = self.blackout.max(moved.blackout);
        }
        same
    }

    /// Adds a folio if each of its mappings adjoins one of the row's. Returns false if it needs another row.
    fn extend(&mut self, folio: &Self) -> bool {
        let Some(side) = self.shown.beside(&folio.shown) else {
            return false;
        };
        let others = || self.others.iter().zip(&folio.others);
        if self.others.len() != folio.others.len() || others().any(|(here, next)| here.beside(next) != Some(side)) {
            return false;
        }
        self.shown.extend(side, &folio.shown);
        for (here, next) in self.others.iter_mut().zip(&folio.others) {
            here.extend(side, next);
        }
        self.events += folio.events;
        self.pages = self.pages.saturating_add(folio.pages);
        self.blackout = self.blackout.max(folio.blackout);
        true
    }

    /// The row as text, without the last line's end. `time` is the clock time of its first move.
    #[must_use]
    pub fn text(&self, time: &str, layout: &Layout) -> String {
        let MovedMapping {
            first: moved,
            start,
            old_pfn,
            new_pfn,
            ..
        } = &self.shown;
        let blackout = self
            .blackout
            .map_or_else(|| "-".to_owned(), |blackout| Duration(blackout).to_string());
        let (old, new) = moved.residences();
        let mover = moved.actor.as_ref().map_or_else(unknown, |actor| {
            mover(actor, moved.owner.as_ref(), moved.reason.as_ref())
        });
        let columns = [
            time,
            &moved
                .owner
                .as_ref()
                .map_or_else(unknown, |owner| owners(owner, self.others.len())),
            &format!("{:012x}", start.0),
            &self.size(),
            &format!("{} -> {}", frame(*old_pfn, old), frame(*new_pfn, new)),
            &nodes((old, new)),
            &moved.reason.as_ref().map_or_else(unknown, reason),
            &mover,
            &blackout,
        ];
        layout.lines(columns, &notes(moved), &place(moved.vma.as_deref()))
    }

    fn size(&self) -> String {
        let first = &self.shown.first;
        let reason = first.reason.as_ref().map(|reason| reason.number);
        if reason == Some(outside::COLLAPSE) {
            collapsed(first.order, self.shown.start, self.pages)
        } else {
            folios(first.order, self.events, self.pages)
        }
    }
}

/// Moves that are being joined into rows.
#[derive(Clone, Debug)]
pub struct Folding {
    /// The row that may still grow.
    row: Option<Row>,
    /// The folio whose mappings are arriving; it is not in a row yet.
    folio: Row,
}

impl Folding {
    /// Begins with this move.
    #[must_use]
    pub fn new(moved: &Move) -> Self {
        Self {
            row: None,
            folio: Row::new(moved),
        }
    }

    /// Adds the next move. Returns a row when it is complete.
    pub fn add(&mut self, moved: &Move) -> Option<Row> {
        if self.folio.share(moved) {
            return None;
        }
        self.turn(Row::new(moved))
    }

    /// Adds the folio to its row and continues with the next one.
    fn turn(&mut self, next: Row) -> Option<Row> {
        let folio = std::mem::replace(&mut self.folio, next);
        if self.row.as_mut().is_some_and(|row| row.extend(&folio)) {
            return None;
        }
        self.row.replace(folio)
    }

    /// The rows that are left; there are at most two.
    pub fn rows(mut self) -> impl Iterator<Item = Row> {
        let folio = self.folio.clone();
        let done = self.turn(folio);
        done.into_iter().chain(self.row)
    }
}

/// The size of one move.
#[must_use]
pub fn size(moved: &Move) -> String {
    Row::new(moved).size()
}

/// `4K x504 -> 2M`: base pages from `start` that became one or more folios of that order.
fn collapsed(order: Order, start: VirtAddr, pages: u64) -> String {
    let (first, end) = (start.page(), start.page().saturating_add(pages));
    let made = end.div_ceil(order.pages()) - first / order.pages();
    format!(
        "{} -> {}",
        folios(Order(0), pages, pages),
        folios(order, made, order.pages().saturating_mul(made))
    )
}

/// `4K x37`, `2M`: the base pages that moved in `events` runs, counted in folios if those are whole.
#[must_use]
pub fn folios(order: Order, events: u64, pages: u64) -> String {
    let whole = order.pages().saturating_mul(events) == pages;
    let (unit, count) = if whole { (order, events) } else { (Order(0), pages) };
    match count {
        1 => PageSize(unit).to_string(),
        count => format!("{} x{count}", PageSize(unit)),
    }
}

/// Everything noteworthy or uncertain about the page, with a separator at the end unless it is empty.
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

/// The text for a value that the source does not see.
fn unknown() -> String {
    "unknown".to_owned()
}

/// The frame of a page. A page without a frame is on swap, or its frame was not seen.
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
        event::{Reason, Task},
        made_up::{moved, unknown},
        units::Tgid,
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
        assert!(row.extend(&Row::new(&after)));
        let before = Move {
            vaddr: VirtAddr(first.vaddr.0 - 4096),
            pages: 1,
            old_pfn: Some(Pfn(0x100)),
            new_pfn: Some(Pfn(0x200)),
            ..first.clone()
        };
        assert!(row.extend(&Row::new(&before)));
        assert!(!row.extend(&Row::new(&first)), "it is in there");
        insta::assert_snapshot!("folded", row.text(TIME, &Layout::new(None, 2)));
    }

    #[test]
    fn another_story_is_another_row() {
        let first = moved();
        let next = Move {
            vaddr: first.vaddr.plus_pages(first.pages),
            ..first.clone()
        };
        assert!(Row::new(&first).extend(&Row::new(&next)));
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
            assert!(!Row::new(&first).extend(&Row::new(other)), "{other:?}");
        }
    }

    /// The page of that number, mapped by `owners` processes, each at another address.
    fn shared(page: u64, owners: u8) -> Vec<Move> {
        let of = |owner: u8| Move {
            owner: moved().owner.map(|task| Task {
                tgid: Tgid(task.tgid.0 - u32::from(owner)),
                ..task
            }),
            vaddr: VirtAddr(0x7f00_0000_0000 + (u64::from(owner) << 30)).plus_pages(page),
            pages: 1,
            old_pfn: Some(Pfn(0x1000 + page)),
            new_pfn: Some(Pfn(0x2000 + page)),
            nth: Some(owner + 1),
            vma: None,
            ..moved()
        };
        (0..owners).map(of).collect()
    }

    fn folded(moves: impl IntoIterator<Item = Move>) -> Vec<Row> {
        let mut moves = moves.into_iter();
        let mut folding = Folding::new(&moves.next().unwrap());
        let mut rows: Vec<Row> = moves.filter_map(|moved| folding.add(&moved)).collect();
        rows.extend(folding.rows());
        rows
    }

    #[test]
    fn all_mappings_of_a_folio_are_one_row() {
        let up = folded((0..40).flat_map(|page| shared(page, 51)));
        let down = folded((0..40).rev().flat_map(|page| shared(page, 51)));
        for rows in [&up, &down] {
            let [row] = &rows[..] else { panic!("{rows:?}") };
            let text = row.text(TIME, &Layout::new(None, 2));
            assert!(text.contains("fifteen-le…[4194303] +50 7f0000000000 4K x40 "), "{text}");
        }
    }

    #[test]
    fn a_row_is_of_folios_with_the_same_mappings() {
        let lengths = |moves: Vec<Move>| -> Vec<(u64, usize)> {
            let rows = folded(moves);
            rows.iter().map(|row| (row.events, 1 + row.others.len())).collect()
        };
        let fewer = [shared(0, 3), shared(1, 3), shared(2, 2), shared(3, 2)].concat();
        assert_eq!(lengths(fewer), [(2, 3), (2, 2)]);
        let again = [shared(0, 3), shared(0, 3)].concat();
        assert_eq!(lengths(again), [(1, 3), (1, 3)], "it moved twice");
        let mut uncertain = shared(0, 3);
        uncertain[1].verdict = Verdict::MovedAgain;
        assert_eq!(lengths(uncertain), [(1, 1), (1, 1), (1, 1)]);
        let mut filtered = [shared(0, 3), shared(1, 3)].concat();
        filtered.retain(|moved| moved.nth != Some(1));
        assert_eq!(lengths(filtered), [(2, 2)], "the first mapping was not requested");
    }

    /// Every verdict, and each kind of uncertainty.
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
        assert!(row.extend(&Row::new(&collapse(0x40_0000, 512))));
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
