//! What is in a recording, for a person and as JSON.
//! Input: its contents.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::{
    escape::{self, Printable},
    recording::{
        VERSION,
        block::Kind,
        contents::{Blocks, Contents, EventCounts, RunContents},
        header::Begin,
        reader::Missing,
    },
    render::{clock, parts, quantity::Bytes, summary},
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
    let EventCounts {
        moves,
        unmapped_moves,
        failures,
        compactions,
    } = contents.events();
    let events = contents.events().sum();
    let state = match contents.parts.runs().last() {
        _ if !contents.is_whole() => "something is missing",
        Some(files) if files.goes_on() => "whole, the run goes on in another file",
        _ => "whole",
    };
    write!(out, "{name}: {state}; {events} events")?;
    if contents.runs.len() > 1 {
        write!(out, " of {} runs", contents.runs.len())?;
    }
    writeln!(out, " in {}", Bytes(contents.bytes))?;
    for missing in &contents.missing {
        writeln!(out, "MISSING   {}", self::missing(missing))?;
    }
    let more = contents.missing_parts - contents.missing.len() as u64;
    if more > 0 {
        writeln!(out, "MISSING   {more} more parts")?;
    }
    for missing in contents.parts.runs().iter().filter_map(parts::missing) {
        writeln!(out, "NOT HERE  {missing}")?;
    }
    for run in &contents.runs {
        self::run(out, run)?;
    }
    writeln!(
        out,
        "events    {moves} moves of {} pages · {unmapped_moves} moves without a mapping · {failures} failures · \
         {compactions} runs of compaction",
        contents.pages()
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

fn run(out: &mut String, run: &RunContents) -> fmt::Result {
    match &run.begin {
        Some(begin) => made(out, run, begin)?,
        None => writeln!(out, "run       its header is missing")?,
    }
    writeln!(out, "          {} events", run.events.sum())?;
    match run.finished().map(|finished| finished.books.lost.events()) {
        Some(lost) if lost > 0 => writeln!(out, "LOST      {lost} events while recording: tracer report says when"),
        _ => Ok(()),
    }
}

fn made(out: &mut String, run: &RunContents, begin: &Begin) -> fmt::Result {
    let header = &begin.header;
    write!(out, "run       {}", clock::date(header, header.begun))?;
    if let Some((_, last)) = run.span {
        write!(out, " to {}", clock::date(header, last))?;
    }
    match (begin.part, begin.joined) {
        (0, 0) => {}
        (part, 0) => write!(out, ", part {}", u64::from(part) + 1)?,
        (part, _) => write!(
            out,
            ", parts {} to {}",
            u64::from(part) + 1,
            u64::from(begin.last_part()) + 1
        )?,
    }
    if begin.redacted {
        write!(out, ", redacted")?;
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
    let kinds: Vec<_> = header.kinds.names().map(|name| Printable(name).to_string()).collect();
    writeln!(
        out,
        "traced    {} · {} · {}",
        Printable(&header.targets),
        summary::backend(&header.backend),
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
struct RunObject<'a> {
    #[serde(flatten)]
    begin: Option<&'a Begin>,
    events: EventCounts,
    pages: u64,
    first_ns: Option<u64>,
    last_ns: Option<u64>,
    ended: bool,
    duration_ns: Option<u64>,
    unwritten_events: u64,
    lost_events: Option<u64>,
    balanced: Option<bool>,
}

impl<'a> From<&'a RunContents> for RunObject<'a> {
    fn from(run: &'a RunContents) -> Self {
        let finished = run.finished();
        Self {
            begin: run.begin.as_ref(),
            events: run.events,
            pages: run.pages,
            first_ns: run.span.map(|(first, _)| first.0),
            last_ns: run.span.map(|(_, last)| last.0),
            ended: run.end.is_some(),
            duration_ns: finished.map(|finished| finished.duration.0),
            unwritten_events: run.unwritten(),
            lost_events: finished.map(|finished| finished.books.lost.events()),
            balanced: finished.map(|finished| finished.books.balanced()),
        }
    }
}

#[derive(Serialize)]
struct ContentsObject<'a> {
    format: u16,
    bytes: u64,
    whole: bool,
    missing: Vec<MissingObject>,
    missing_parts: u64,
    missing_events: u64,
    events: EventCounts,
    pages: u64,
    blocks: Vec<BlocksObject>,
    runs: Vec<RunObject<'a>>,
}

/// One object.
#[must_use]
pub fn json(contents: &Contents) -> String {
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
        whole: contents.is_whole(),
        missing: missing.collect(),
        missing_parts: contents.missing_parts,
        missing_events: contents.missing_events,
        events: contents.events(),
        pages: contents.pages(),
        blocks: blocks.collect(),
        runs: contents.runs.iter().map(RunObject::from).collect(),
    };
    escape::json_text(&object)
}
