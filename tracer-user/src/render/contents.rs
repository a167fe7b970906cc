//! What is in a recording, for a person and as JSON.
//! Input: its contents.

use std::fmt::{self, Write as _};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use crate::{
    analysis::contents::{Blocks, Contents, EventCounts},
    recording::{VERSION, block::Kind, header::Begin},
    render::{escape::Printable, quantity::Bytes, summary},
    sink::Header,
    source::recording::Missing,
    units::Nanos,
};

/// A page for a person.
#[must_use]
pub fn text(contents: &Contents, name: &str) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = page(&mut out, contents, name);
    out
}

fn page(out: &mut String, contents: &Contents, name: &str) -> fmt::Result {
    let events = contents.events.sum();
    let state = match &contents.end {
        _ if !contents.missing.is_empty() => "something is missing",
        Some(end) if end.finished.is_none() => "whole, the run goes on in another file",
        _ => "whole",
    };
    writeln!(out, "{name}: {state}; {events} events in {}", Bytes(contents.bytes))?;
    for missing in &contents.missing {
        writeln!(out, "MISSING   {}", self::missing(missing))?;
    }
    if let Some(end) = contents.end.as_ref().filter(|end| end.unwritten > 0) {
        writeln!(out, "MISSING   {} events could not be written", end.unwritten)?;
    }
    let finished = contents.end.as_ref().and_then(|end| end.finished.as_ref());
    if let Some(lost) = finished
        .map(|finished| finished.books.lost.events())
        .filter(|lost| *lost > 0)
    {
        writeln!(out, "LOST      {lost} events while recording: tracer cat says where")?;
    }
    if let Some(begin) = &contents.begin {
        run(out, contents, begin)?;
    }
    let EventCounts {
        moves,
        unmapped_moves,
        failures,
        compactions,
    } = contents.events;
    writeln!(
        out,
        "events    {moves} moves of {} pages · {unmapped_moves} moves without a mapping · {failures} failures · \
         {compactions} runs of compaction",
        contents.pages
    )?;
    write!(out, "blocks   ")?;
    for (kind, blocks) in Kind::ALL.iter().zip(&contents.blocks) {
        write!(
            out,
            " {} {} ({})",
            blocks.blocks,
            kind.name(),
            Bytes(blocks.packed_bytes)
        )?;
    }
    writeln!(out)
}

fn run(out: &mut String, contents: &Contents, begin: &Begin) -> fmt::Result {
    let header = &begin.header;
    write!(out, "run       {}", clock(header, header.begun))?;
    if let Some((_, last)) = contents.span {
        write!(out, " to {}", clock(header, last))?;
    }
    if begin.part > 0 {
        write!(out, ", part {}", begin.part + 1)?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "machine   {} · Linux {} · {} · boot {}",
        Printable(&header.host),
        Printable(&header.kernel),
        summary::nodes(header.nodes),
        Printable(&header.boot_id)
    )?;
    let kinds: Vec<_> = header.kinds.names().collect();
    writeln!(
        out,
        "traced    {} · {} · {}",
        Printable(&header.targets),
        summary::backend(header.backend),
        kinds.join(", ")
    )?;
    for refused in &header.refused {
        let (hook, reason, loses) = (&refused.hook, &refused.reason, &refused.loses);
        writeln!(
            out,
            "          {} refused: {}; missing: {}",
            Printable(hook),
            Printable(reason),
            Printable(loses)
        )?;
    }
    let command_line = header.command_line.join(" ");
    writeln!(
        out,
        "tracer    {} · format {VERSION} · {}",
        Printable(&header.version),
        Printable(&command_line)
    )
}

/// One part that is missing, in words.
#[must_use]
pub fn missing(missing: &Missing) -> String {
    let mut text = format!("at byte {}: {}", missing.at, missing.what);
    match (missing.bytes, missing.events) {
        (0, _) => {}
        (bytes, Some(events)) => {
            let _ = write!(text, " ({bytes} bytes, {events} events)");
        }
        (bytes, None) => {
            let _ = write!(text, " ({bytes} bytes)");
        }
    }
    text
}

/// A time of the run as clock time.
fn clock(header: &Header, at: Nanos) -> String {
    match Timestamp::from_nanosecond(i128::from(at.0) + header.clock_offset) {
        Ok(time) => {
            let zoned = time.to_zoned(TimeZone::system());
            zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => format!("+{} ns", at.0),
    }
}

#[derive(Serialize)]
struct MissingObject {
    at: u64,
    bytes: u64,
    events: Option<u64>,
    what: &'static str,
}

#[derive(Serialize)]
struct BlocksObject {
    kind: &'static str,
    #[serde(flatten)]
    blocks: Blocks,
}

#[derive(Serialize)]
struct ContentsObject<'a> {
    format: u16,
    bytes: u64,
    whole: bool,
    missing: Vec<MissingObject>,
    missing_events: u64,
    lost_events: Option<u64>,
    balanced: Option<bool>,
    events: EventCounts,
    pages: u64,
    first_ns: Option<u64>,
    last_ns: Option<u64>,
    blocks: Vec<BlocksObject>,
    run: Option<&'a Begin>,
}

/// One object.
///
/// # Errors
/// None that can occur: every value is a number or a string.
pub fn json(contents: &Contents) -> serde_json::Result<String> {
    let finished = contents.end.as_ref().and_then(|end| end.finished.as_ref());
    let missing = contents.missing.iter().map(|missing| MissingObject {
        at: missing.at,
        bytes: missing.bytes,
        events: missing.events,
        what: missing.what,
    });
    let blocks = Kind::ALL
        .iter()
        .zip(contents.blocks)
        .map(|(kind, blocks)| BlocksObject {
            kind: kind.name(),
            blocks,
        });
    let object = ContentsObject {
        format: VERSION,
        bytes: contents.bytes,
        whole: contents.missing.is_empty() && contents.missing_events() == 0,
        missing: missing.collect(),
        missing_events: contents.missing_events(),
        lost_events: finished.map(|finished| finished.books.lost.events()),
        balanced: finished.map(|finished| finished.books.balanced()),
        events: contents.events,
        pages: contents.pages,
        first_ns: contents.span.map(|(first, _)| first.0),
        last_ns: contents.span.map(|(_, last)| last.0),
        blocks: blocks.collect(),
        run: contents.begin.as_ref(),
    };
    serde_json::to_string(&object).map(|text| text + "\n")
}
