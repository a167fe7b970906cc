//! The row of a pass of compaction.
//! Input: events of compaction.

use std::borrow::Cow;

use super::{Layout, NONE, actor, named, nodes};
use crate::{
    escape::Printable,
    event::{Residence, compaction::Compaction},
    words::quantity::{Count, Counted, Duration, PageSize},
};

/// The row as text, without the last line's end.
#[must_use]
pub fn text(event: &Compaction, time: &str, layout: &Layout) -> String {
    let (process, blackout) = if event.direct {
        (named(&event.actor), Duration(event.duration).to_string())
    } else {
        (NONE.to_owned(), NONE.to_owned())
    };
    let order = event
        .order
        .map_or_else(|| "all".to_owned(), |order| PageSize(order).to_string());
    let node = Residence::of(event.node);
    let columns = [
        time,
        &process,
        NONE,
        &order,
        NONE,
        &nodes((node, node)),
        "compaction",
        &actor(&event.actor, event.direct.then_some(&event.actor)),
        &blackout,
    ];
    let why = if event.direct {
        "an allocation waited · "
    } else if event.proactive {
        "proactive · "
    } else {
        ""
    };
    let story = format!(
        "{why}{} · {} moved, {} failed, in {} · ",
        outcome(event),
        Counted(event.moved, "page"),
        Count(event.failed),
        Duration(event.duration)
    );
    let zone = Printable(&event.zone);
    let zone = match event.node {
        Some(node) => format!("zone {zone} of node {node}"),
        None => format!("zone {zone}"),
    };
    layout.lines_without_page(columns, &story, &zone)
}

/// The outcome of a pass in plain words. The kernel's names (`enum compact_result`, include/linux/compaction.h, 6.1 to
/// 7.3) say how far it got, and `complete` does not mean success. Passes end with one of the first four
/// (mm/compaction.c, `__compact_finished`, `compact_zone`).
fn outcome(event: &Compaction) -> Cow<'_, str> {
    let none_made = match event.order {
        Some(order) => format!(", no free {} page made", PageSize(order)),
        None => String::new(),
    };
    match &*event.result {
        "success" => match event.order {
            Some(order) => format!("a free {} page was made", PageSize(order)).into(),
            None => "fragmentation is low enough now".into(),
        },
        "complete" => format!("scanned to the end{none_made}").into(),
        "partial_skipped" if event.proactive => "scanned in part: it reached the end, or kswapd was running".into(),
        "partial_skipped" => format!("scanned in part, to the end{none_made}").into(),
        "contended" => "stopped early: a contended lock, a signal, or no free page found for copies".into(),
        "skipped" => "not started: too little free memory for copies".into(),
        "deferred" | "inactive" => "not started: put off after passes without success".into(),
        "not_suitable_zone" => "not started: the zone is short of memory, not fragmented".into(),
        "no_suitable_page" => format!("not finished{none_made}").into(),
        "continue" => "not finished".into(),
        other => Printable(other).to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{event::Event, made_up, units::Order};

    #[test]
    fn complete_is_no_success() {
        let made_up = made_up::others().into_iter().find_map(|event| match event {
            Event::Compaction(event) => Some(event),
            Event::Move(_) | Event::Unmapped(_) | Event::Failure(_) => None,
        });
        let made_up = made_up.unwrap();
        let words = |result: &str, order, proactive| {
            let event = Compaction {
                result: Arc::from(result),
                order,
                proactive,
                ..made_up.clone()
            };
            outcome(&event).into_owned()
        };
        let huge = Some(Order(9));
        let all = [
            ("success", huge, false, "a free 2M page was made"),
            ("success", None, true, "fragmentation is low enough now"),
            ("complete", huge, false, "scanned to the end, no free 2M page made"),
            ("complete", None, false, "scanned to the end"),
            (
                "partial_skipped",
                huge,
                false,
                "scanned in part, to the end, no free 2M page made",
            ),
            ("result_42\u{1b}", None, false, "result_42\\x1b"),
        ];
        for (result, order, proactive, expected) in all {
            assert_eq!(words(result, order, proactive), expected);
        }
    }
}
