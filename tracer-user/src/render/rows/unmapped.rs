//! The row of a folio that moved without a mapping.
//! Input: moves of such folios.

use super::{Layout, NONE, mover, nodes, reason};
use crate::{
    escape::Printable,
    event::{Residence, unmapped::UnmappedMove},
    render::quantity::PageSize,
    units::Pfn,
};

/// The row as text, without the last line's end.
#[must_use]
pub fn text(event: &UnmappedMove, time: &str, layout: &Layout) -> String {
    let pfn = |pfn: Option<Pfn>| pfn.map_or_else(|| "?".to_owned(), |pfn| pfn.to_string());
    let columns = [
        time,
        "nobody",
        NONE,
        &PageSize(event.order).to_string(),
        &format!("{} -> {}", pfn(event.old_pfn), pfn(event.new_pfn)),
        &nodes((Residence::of(event.old_node), Residence::of(event.new_node))),
        &reason(&event.reason),
        &mover(&event.actor, None, Some(&event.reason)),
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
    layout.lines(columns, &file, "")
}
