//! One row per move, or per run of neighbouring pages that moved together.
//! Input: events; output: text for a terminal or a pipe.

use std::borrow::Cow;

use crate::{
    escape::Printable,
    event::{Move, OwnerSource, Reason, Task, Verdict},
    proc::maps::Vma,
    render::quantity::{Duration, PageSize},
    units::{Nanos, NodeId, Order, Pfn, VirtAddr},
};

/// WHERE gets so many columns even where they are not there.
const LEAST_WHERE: usize = 12;

/// How rows are laid out: everything in one line, or, on a terminal that is too narrow for it, who and why in one line
/// and the page in the next. Nothing but the head of WHERE is left out for want of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    width: Option<usize>,
    node: bool,
    two_lines: bool,
}

impl Layout {
    /// For a terminal of `width` columns, on a machine with so many NUMA nodes; None: as wide as it takes.
    #[must_use]
    pub fn new(width: Option<usize>, nodes: usize) -> Self {
        let layout = Self {
            width,
            node: width.is_none() || nodes > 1,
            two_lines: false,
        };
        let needed = width_of(&layout.one_line([""; 9])) + LEAST_WHERE;
        Self {
            two_lines: width.is_some_and(|width| width < needed),
            ..layout
        }
    }

    /// The heading, without the last line's end.
    #[must_use]
    pub fn heading(&self) -> String {
        let names = [
            "TIME", "PROCESS", "ADDRESS", "SIZE", "FRAME", "NODE", "REASON", "BY", "BLACKOUT",
        ];
        self.lines(names, "", "WHERE")
    }

    /// Lines of a row, and of the heading.
    #[must_use]
    pub fn height(&self) -> usize {
        1 + usize::from(self.two_lines)
    }

    /// A row of these columns; `notes` and what room is left for `place` come last.
    pub(super) fn lines(&self, columns: [&str; 9], notes: &str, place: &str) -> String {
        let (first, mut last) = if self.two_lines {
            let [first, second] = self.both_lines(columns);
            (format!("{first}\n"), second)
        } else {
            (String::new(), self.one_line(columns))
        };
        last.push_str(notes);
        let room = self.width.map_or(usize::MAX, |width| {
            width.saturating_sub(width_of(&last)).max(LEAST_WHERE)
        });
        last.push_str(&end_of(place, room));
        first + &last
    }

    fn one_line(&self, columns: [&str; 9]) -> String {
        let [time, process, address, size, frame, node, reason, by, blackout] = columns;
        let node = self.node_column(node);
        format!(
            "{time:<12} {process:<24} {address:<12} {size:<8} {frame:<24} {node}{reason:<17} {by:<24} {blackout:>8}  "
        )
    }

    fn both_lines(&self, columns: [&str; 9]) -> [String; 2] {
        let [time, process, address, size, frame, node, reason, by, blackout] = columns;
        let node = self.node_column(node);
        [
            format!("{time:<12} {process:<24} {by:<24} {reason}"),
            format!("  {address:<12} {size:<8} {frame:<24} {node}{blackout:>8}  "),
        ]
    }

    fn node_column(&self, node: &str) -> String {
        if self.node {
            format!("{node:<5} ")
        } else {
            String::new()
        }
    }
}

/// Columns that a text takes.
fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// The last `room` characters; an ellipsis stands for what was before them.
fn end_of(text: &str, room: usize) -> Cow<'_, str> {
    let excess = width_of(text).saturating_sub(room);
    if excess == 0 {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().skip(excess + 1).collect();
    Cow::Owned(format!("…{kept}"))
}

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
            && first.actor.tid == moved.actor.tid
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
        let columns = [
            time,
            &owner(moved),
            &format!("{:012x}", self.start.0),
            &self.size(),
            &format!("{} -> {}", frame(self.old_pfn), frame(self.new_pfn)),
            &nodes(moved.old_node, moved.new_node),
            &reason(&moved.reason),
            &actor(&moved.actor, moved.owner.as_ref()),
            &blackout,
        ];
        layout.lines(columns, &notes(moved), &place(moved.vma.as_deref()))
    }

    fn size(&self) -> String {
        size(self.first.order, self.events, self.pages)
    }
}

/// `4K x37`, `2M`: so many base pages that moved in `events` runs, in folios where those are whole ones.
#[must_use]
pub fn size(order: Order, events: u64, pages: u64) -> String {
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

/// `postgres[4711]`.
#[must_use]
pub fn named(task: &Task) -> String {
    match &task.comm {
        Some(comm) => format!("{}[{}]", Printable(comm), task.tid),
        None => format!("?[{}]", task.tid),
    }
}

fn owner(moved: &Move) -> String {
    moved.owner.as_ref().map_or_else(|| "unknown".to_owned(), named)
}

/// Why. In a recording the name may be anything.
pub(super) fn reason(reason: &Reason) -> String {
    Printable(&reason.to_string()).to_string()
}

/// Who did it, beside whose page it is.
pub(super) fn actor(actor: &Task, owner: Option<&Task>) -> String {
    match owner {
        Some(owner) if owner.tgid == actor.tgid => "itself".to_owned(),
        _ => match &actor.comm {
            // A kernel thread's name says all; a process is one of many.
            Some(comm)
                if ["kcompactd", "khugepaged", "kswapd", "ksmd"]
                    .iter()
                    .any(|thread| comm.starts_with(thread)) =>
            {
                Printable(comm).to_string()
            }
            _ => named(actor),
        },
    }
}

/// A page without a frame is on swap.
fn frame(pfn: Option<Pfn>) -> String {
    pfn.map_or_else(|| "swap".to_owned(), |pfn| pfn.to_string())
}

pub(super) fn nodes(old: Option<NodeId>, new: Option<NodeId>) -> String {
    let name = |node: Option<NodeId>| node.map_or_else(|| "?".to_owned(), |node| node.to_string());
    if old == new && old.is_some() {
        name(old)
    } else {
        format!("{}->{}", name(old), name(new))
    }
}

/// What is mapped there.
pub(super) fn place(vma: Option<&Vma>) -> String {
    let Some(vma) = vma else { return "?".to_owned() };
    if vma.name.is_empty() {
        return format!("anon {}", vma.perms);
    }
    // A shared mapping is many processes' business: worth its permissions.
    if vma.perms.shared() {
        return format!("{} {}", Printable(&vma.name), vma.perms);
    }
    Printable(&vma.name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::{moved, unknown};

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
    fn the_end_of_a_place_says_most() {
        assert_eq!(end_of("/usr/lib/libc.so.6", 9), "…ibc.so.6");
        assert_eq!(end_of("[heap]", 6), "[heap]");
    }
}
