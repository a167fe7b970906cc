//! One row per move, or per run of neighbouring pages that moved together.
//! Input: events; output: text for a terminal or a pipe.

use std::fmt::Write as _;

use crate::{
    event::{Move, OwnerSource, Task, Verdict},
    render::{
        escape::Printable,
        quantity::{Duration, PageSize},
    },
    units::{Nanos, NodeId, Order, Pfn, VirtAddr},
};

/// The heading of the rows. Several nodes or one, the columns stay.
#[must_use]
pub fn heading() -> String {
    format!(
        "{:<13} {:<20} {:<14} {:<8} {:<24} {:<5} {:<17} {:<16} {:>8}  {}",
        "TIME", "PROCESS", "ADDRESS", "SIZE", "FRAME", "NODE", "REASON", "BY", "BLACKOUT", "WHERE"
    )
}

/// Moves shown as one row.
#[derive(Clone, Debug)]
pub struct Row {
    first: Move,
    /// Lowest address and its frames.
    start: VirtAddr,
    old_pfn: Pfn,
    new_pfn: Pfn,
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

    /// Takes in a neighbour of the same story: same owner, VMA, reason, actor, nodes and verdict, next to
    /// the row's pages on either side. False: it is another row.
    pub fn extend(&mut self, moved: &Move) -> bool {
        let first = &self.first;
        let same = first.order == moved.order
            && first.verdict == moved.verdict
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
        self.pages += moved.pages;
        self.blackout = self.blackout.max(moved.blackout);
        true
    }

    /// The row as text. `time` is its first move's clock time.
    #[must_use]
    pub fn text(&self, time: &str) -> String {
        let moved = &self.first;
        let mut text = format!(
            "{time:<13} {:<20} {:<14} {:<8} {:<24} {:<5} {:<17} {:<16} {:>8}  {}",
            owner(moved),
            format!("{:012x}", self.start.0),
            self.size(),
            format!("{} -> {}", self.old_pfn, self.new_pfn),
            nodes(moved.old_node, moved.new_node),
            moved.reason,
            actor(moved),
            self.blackout
                .map_or_else(|| "-".to_owned(), |blackout| Duration(blackout).to_string()),
            place(moved),
        );
        if moved.verdict != Verdict::Confirmed {
            let _ = write!(text, "  {}", moved.verdict.words());
        }
        if moved.ambiguous {
            text.push_str("  old frame uncertain");
        }
        if moved.owner_source == OwnerSource::Chain {
            text.push_str("  owner from its other moves");
        }
        text
    }

    fn size(&self) -> String {
        let order = self.first.order;
        let whole = order.pages().saturating_mul(self.events) == self.pages;
        let (unit, count) = if whole {
            (order, self.events)
        } else {
            (Order(0), self.pages)
        };
        match count {
            1 => PageSize(unit).to_string(),
            count => format!("{} x{count}", PageSize(unit)),
        }
    }
}

fn named(task: &Task) -> String {
    match &task.comm {
        Some(comm) => format!("{}[{}]", Printable(comm), task.tid),
        None => format!("?[{}]", task.tid),
    }
}

fn owner(moved: &Move) -> String {
    moved.owner.as_ref().map_or_else(|| "unknown".to_owned(), named)
}

fn actor(moved: &Move) -> String {
    match &moved.owner {
        Some(owner) if owner.tgid == moved.actor.tgid => "itself".to_owned(),
        _ => match &moved.actor.comm {
            // A kernel thread's name says all; a process is one of many.
            Some(comm)
                if comm.starts_with("kcompactd") || comm.starts_with("khugepaged") || comm.starts_with("kswapd") =>
            {
                Printable(comm).to_string()
            }
            _ => named(&moved.actor),
        },
    }
}

fn nodes(old: Option<NodeId>, new: Option<NodeId>) -> String {
    let name = |node: Option<NodeId>| node.map_or_else(|| "?".to_owned(), |node| node.to_string());
    if old == new && old.is_some() {
        name(old)
    } else {
        format!("{}->{}", name(old), name(new))
    }
}

fn place(moved: &Move) -> String {
    let Some(vma) = &moved.vma else { return "?".to_owned() };
    if vma.name.is_empty() {
        return format!("anon {}", vma.perms);
    }
    // A shared mapping is many processes' business: worth its permissions.
    if vma.perms.shared() {
        return format!("{} {}", Printable(&vma.name), vma.perms);
    }
    Printable(&vma.name).to_string()
}
