//! Rows of what is not a page's move: folios nobody maps, folios that could not be moved, runs of compaction.
//! Input: events; output: text, laid out as the rows of moves.

use crate::{
    escape::Printable,
    event::{compaction::Compaction, failure::Failure, unmapped::UnmappedMove},
    render::{
        failure::story,
        quantity::{Count, Duration, PageSize},
        rows::{Layout, actor, named, nodes, place, reason},
    },
};

/// What has no place in a column.
const NONE: &str = "-";

/// A folio that moved without a mapping.
#[must_use]
pub fn unmapped(event: &UnmappedMove, time: &str, layout: &Layout) -> String {
    let pfn = |pfn: Option<crate::units::Pfn>| pfn.map_or_else(|| "?".to_owned(), |pfn| pfn.to_string());
    let columns = [
        time,
        "nobody",
        NONE,
        &PageSize(event.order).to_string(),
        &format!("{} -> {}", pfn(event.old_pfn), pfn(event.new_pfn)),
        &nodes(event.old_node, event.new_node),
        &reason(&event.reason),
        &actor(&event.actor, None),
        NONE,
    ];
    let file = match &event.file {
        None => "unmapped meanwhile, or a driver's".to_owned(),
        Some(file) => {
            let name = file.name.as_deref().unwrap_or("?");
            format!(
                "{} +{:#x} (dev {}, inode {})",
                Printable(name),
                file.offset,
                file.dev,
                file.inode
            )
        }
    };
    layout.lines(columns, "", &file)
}

/// Folios that could not be moved for the same reason, shown as one row.
#[derive(Clone, Debug)]
pub struct FailureRow {
    first: Failure,
    folios: u64,
}

impl FailureRow {
    /// A row of one.
    #[must_use]
    pub fn new(failure: &Failure) -> Self {
        Self {
            first: failure.clone(),
            folios: 1,
        }
    }

    /// When the first of them failed.
    #[must_use]
    pub fn at(&self) -> crate::units::Nanos {
        self.first.at
    }

    /// Takes in another one of the same story: same owner, VMA, order, node, reason, actor and cause, whatever the
    /// address. False: it is another row.
    pub fn extend(&mut self, failure: &Failure) -> bool {
        let first = &self.first;
        let who = |failure: &Failure| {
            let place = failure.places.first();
            place.map(|place| (place.owner.tgid, place.vma.as_ref().map(|vma| vma.start)))
        };
        let same = first.cause == failure.cause
            && first.inferred == failure.inferred
            && first.refs == failure.refs
            && first.errno == failure.errno
            && first.attempts == failure.attempts
            && first.reason == failure.reason
            && first.order == failure.order
            && first.node == failure.node
            && first.actor.tid == failure.actor.tid
            && first.places.len() == failure.places.len()
            && who(first) == who(failure);
        self.folios += u64::from(same);
        same
    }

    /// The row as text, without the last line's end.
    #[must_use]
    pub fn text(&self, time: &str, layout: &Layout) -> String {
        let failure = &self.first;
        let owner = failure.places.first();
        let process = owner.map_or_else(
            || "unknown".to_owned(),
            |place| match failure.places.len() {
                1 => named(&place.owner),
                n => format!("{} +{}", named(&place.owner), n - 1),
            },
        );
        let size = match self.folios {
            1 => PageSize(failure.order).to_string(),
            n => format!("{} x{n}", PageSize(failure.order)),
        };
        let columns = [
            time,
            &process,
            &owner.map_or_else(|| NONE.to_owned(), |place| format!("{:012x}", place.vaddr.0)),
            &size,
            &failure
                .pfn
                .map_or_else(|| "stays".to_owned(), |pfn| format!("{pfn} stays")),
            &nodes(failure.node, failure.node),
            &reason(&failure.reason),
            &actor(&failure.actor, owner.map(|place| &place.owner)),
            NONE,
        ];
        let notes = format!("NOT MOVED: {} · ", story(failure));
        layout.lines(columns, &notes, &place(owner.and_then(|place| place.vma.as_deref())))
    }
}

/// A run of compaction over one zone.
#[must_use]
pub fn compaction(event: &Compaction, time: &str, layout: &Layout) -> String {
    let process = if event.direct {
        named(&event.actor)
    } else {
        NONE.to_owned()
    };
    let blackout = if event.direct {
        Duration(event.duration).to_string()
    } else {
        NONE.to_owned()
    };
    let order = event
        .order
        .map_or_else(|| "all".to_owned(), |order| PageSize(order).to_string());
    let columns = [
        time,
        &process,
        NONE,
        &order,
        NONE,
        &nodes(event.node, event.node),
        "compaction",
        &actor(&event.actor, event.direct.then_some(&event.actor)),
        &blackout,
    ];
    let what = if event.direct {
        "allocation waited"
    } else if event.proactive {
        "proactive"
    } else {
        "run"
    };
    let story = format!(
        "{what} · zone {} · {}: {} pages moved, {} not, in {}",
        Printable(&event.zone),
        Printable(&event.result),
        Count(event.moved),
        Count(event.failed),
        Duration(event.duration)
    );
    layout.lines(columns, "", &story)
}
