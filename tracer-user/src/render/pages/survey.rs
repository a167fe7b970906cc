//! The frames of the machine, grouped or extent by extent, as text, JSON lines or CSV.
//! Input: what `pages::survey` found.

use std::io::{self, Write};

use serde::Serialize;

use crate::escape;
use crate::pages::survey::{Frames, Groups};
use crate::proc::page_flags;
use crate::proc::zones::Zone;
use crate::units::{NodeId, Order, PAGE_SHIFT};
use crate::words::quantity::{Bytes, Count, PageSize};

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people.
    Text,
    /// One object per line.
    Json,
    /// With a heading.
    Csv,
}

const COLUMNS: [&str; 7] = ["pfn", "pages", "node", "zone", "order", "map_count", "flags"];
const GROUP_COLUMNS: [&str; 6] = ["pages", "mapped_pages", "node", "zone", "order", "flags"];

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Frames {
        pfn: String,
        pages: u64,
        node: Option<u32>,
        zone: Option<&'a str>,
        order: Option<u8>,
        map_count: Option<u64>,
        flags: Vec<String>,
    },
    FrameGroup {
        pages: u64,
        mapped_pages: u64,
        node: Option<u32>,
        zone: Option<&'a str>,
        order: Option<u8>,
        flags: Vec<String>,
    },
}

fn json(out: &mut impl Write, line: &Line<'_>) -> io::Result<()> {
    escape::json(&mut *out, line)?;
    out.write_all(b"\n")
}

fn names(flags: u64) -> Vec<String> {
    page_flags::names_of(flags).collect()
}

fn or(value: Option<impl ToString>, nothing: &str) -> String {
    value.map_or_else(|| nothing.to_owned(), |value| value.to_string())
}

/// Writes a row of CSV. None of the values contains a comma, a quote or a line break.
fn csv(out: &mut impl Write, cells: &[String]) -> io::Result<()> {
    writeln!(out, "{}", cells.join(","))
}

/// Writes the heading above the rows of extents.
///
/// # Errors
/// The errors of the writer.
pub fn heading(out: &mut impl Write, style: Style) -> io::Result<()> {
    match style {
        Style::Text => writeln!(
            out,
            "{:12} {:>9}  {:>4}  {:8} {:>5}  {:>6}  FLAGS",
            "FRAME", "PAGES", "NODE", "ZONE", "SIZE", "MAPPED"
        ),
        Style::Json => Ok(()),
        Style::Csv => csv(out, &COLUMNS.map(str::to_owned)),
    }
}

/// Writes an extent of frames.
///
/// # Errors
/// The errors of the writer.
pub fn extent(
    out: &mut impl Write,
    style: Style,
    frames: &Frames,
    node: Option<NodeId>,
    zone: Option<&Zone>,
) -> io::Result<()> {
    let flags = names(frames.flags.bits());
    let zone = zone.map(|zone| zone.name.as_str());
    match style {
        Style::Text => {
            let line = format!(
                "{:12} {:>9}  {:>4}  {:8} {:>5}  {:>6}  {}",
                frames.pfn.to_string(),
                Count(frames.pages),
                or(node, "-"),
                or(zone, "-"),
                or(frames.order.map(PageSize), "?"),
                or(frames.mapped.map(Count), "-"),
                flags.join(" ")
            );
            writeln!(out, "{}", line.trim_end())
        }
        Style::Json => json(
            out,
            &Line::Frames {
                pfn: frames.pfn.to_string(),
                pages: frames.pages,
                node: node.map(|node| node.0),
                zone,
                order: frames.order.map(|order| order.0),
                map_count: frames.mapped,
                flags,
            },
        ),
        Style::Csv => csv(
            out,
            &[
                frames.pfn.to_string(),
                frames.pages.to_string(),
                or(node, ""),
                or(zone, ""),
                or(frames.order, ""),
                or(frames.mapped, ""),
                flags.join(" "),
            ],
        ),
    }
}

/// Writes the groups; text has at most `most` lines of them.
///
/// # Errors
/// The errors of the writer.
pub fn groups(out: &mut impl Write, style: Style, groups: &Groups, most: usize) -> io::Result<()> {
    let rows = groups.by_size();
    match style {
        Style::Text => writeln!(
            out,
            "{:>12} {:>11}  {:>4}  {:8} {:>5}  {:>11}  FLAGS",
            "PAGES", "SIZE", "NODE", "ZONE", "UNIT", "MAPPED"
        )?,
        Style::Json => {}
        Style::Csv => csv(out, &GROUP_COLUMNS.map(str::to_owned))?,
    }
    let shown = if style == Style::Text {
        most.min(rows.len())
    } else {
        rows.len()
    };
    for (group, pages) in &rows[..shown] {
        let flags = names(group.flags);
        let order: Option<Order> = group.order;
        match style {
            Style::Text => {
                let words = if flags.is_empty() {
                    "(none)".to_owned()
                } else {
                    flags.join(" ")
                };
                writeln!(
                    out,
                    "{:>12} {:>11}  {:>4}  {:8} {:>5}  {:>11}  {words}",
                    Count(pages.pages),
                    Bytes(pages.pages << PAGE_SHIFT),
                    or(group.node, "-"),
                    or(group.zone.as_deref(), "-"),
                    or(order.map(PageSize), "?"),
                    Count(pages.mapped),
                )?;
            }
            Style::Json => json(
                out,
                &Line::FrameGroup {
                    pages: pages.pages,
                    mapped_pages: pages.mapped,
                    node: group.node.map(|node| node.0),
                    zone: group.zone.as_deref(),
                    order: order.map(|order| order.0),
                    flags,
                },
            )?,
            Style::Csv => csv(
                out,
                &[
                    pages.pages.to_string(),
                    pages.mapped.to_string(),
                    or(group.node, ""),
                    or(group.zone.as_deref(), ""),
                    or(order, ""),
                    flags.join(" "),
                ],
            )?,
        }
    }
    if style == Style::Text && shown < rows.len() {
        let pages: u64 = rows[shown..].iter().map(|(_, pages)| pages.pages).sum();
        writeln!(
            out,
            "{:>12} {:>11}  in {} more kinds (-n shows more)",
            Count(pages),
            Bytes(pages << PAGE_SHIFT),
            Count((rows.len() - shown) as u64)
        )?;
    }
    Ok(())
}
