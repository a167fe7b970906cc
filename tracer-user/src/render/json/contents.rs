//! Reports what a recording contains, as its own blocks say it.
//! Input: the contents of a recording.

use serde::Serialize;

use crate::{
    escape,
    recording::{
        VERSION,
        block::BlockKind,
        contents::{Blocks, Contents, EventCounts, RunContents},
        header::Begin,
    },
};

#[derive(Serialize)]
struct MissingObject<'a> {
    file: Option<&'a str>,
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
    mappings: u64,
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
            mappings: run.mappings,
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
    missing: Vec<MissingObject<'a>>,
    missing_parts: u64,
    missing_events: u64,
    events: EventCounts,
    pages: u64,
    mappings: u64,
    blocks: Vec<BlocksObject>,
    runs: Vec<RunObject<'a>>,
}

/// One object on a line.
#[must_use]
pub fn contents(contents: &Contents) -> String {
    let missing = contents.missing.iter().map(|(file, missing)| MissingObject {
        file: contents.files.get(*file).map(String::as_str),
        at: missing.at,
        bytes: missing.bytes,
        events: missing.events,
        what: missing.what,
    });
    let blocks = BlockKind::ALL
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
        mappings: contents.mappings(),
        blocks: blocks.collect(),
        runs: contents.runs.iter().map(RunObject::from).collect(),
    };
    escape::json_text(&object)
}
