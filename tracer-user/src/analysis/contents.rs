//! The contents of a recording, and whether it is complete.
//! Input: the contents of a recording.

use crate::{
    analysis::{missing::numbers, not_here, runs::nodes, runs::refused, unreadable},
    cells,
    recording::{
        VERSION,
        block::BlockKind,
        contents::{Contents, EventCounts, RunContents},
        header::Begin,
    },
    section::{Cell, Note, Section, joined},
};

/// The page that `tracer info` prints for people.
#[must_use]
pub fn sections(contents: &Contents, name: &str) -> Vec<Section> {
    let runs = contents.by_run();
    let mut notes = vec![Note::plain(head(contents, name, runs.len()))];
    notes.extend(contents.missing.iter().map(|(file, missing)| {
        let file = contents.files.get(*file).filter(|_| contents.files.len() > 1);
        let file = file.map_or_else(Vec::new, |file| cells![file.clone(), ": "]);
        Note::alarm("MISSING", file.into_iter().chain(unreadable(missing)).collect())
    }));
    let more = contents.missing_parts - contents.missing.len() as u64;
    if more > 0 {
        notes.push(Note::alarm(
            "MISSING",
            cells![Cell::Counted(more, "more part", "more parts")],
        ));
    }
    let files = contents.parts.runs().iter().filter_map(not_here);
    notes.extend(files.map(|words| Note::alarm("NOT HERE", words)));
    notes.extend(runs.iter().flat_map(|files| run(files)));
    let EventCounts {
        moves,
        unmapped_moves,
        failures,
        compactions,
    } = contents.events();
    notes.push(Note::about(
        "events",
        cells![
            Cell::Counted(moves, "move", "moves"),
            " · ",
            Cell::Counted(unmapped_moves, "move", "moves"),
            " without a mapping · ",
            Cell::Counted(failures, "failure", "failures"),
            " · ",
            Cell::Counted(compactions, "pass", "passes"),
            " of compaction"
        ],
    ));
    notes.push(Note::more(cells![
        Cell::Counted(contents.pages(), "page", "pages"),
        " moved · ",
        Cell::Counted(contents.mappings(), "mapping", "mappings")
    ]));
    let blocks = BlockKind::ALL.iter().zip(&contents.blocks).map(|(kind, blocks)| {
        let (count, bytes) = (Cell::Number(blocks.blocks), Cell::Bytes(blocks.packed_bytes));
        cells![count, " ", kind.name(), " (", bytes, ")"]
    });
    notes.push(Note::about("blocks", joined(blocks, " ")));
    vec![Section::notes(notes)]
}

fn head(contents: &Contents, name: &str, runs: usize) -> Vec<Cell> {
    let state = match contents.parts.runs().last() {
        _ if !contents.is_whole() => "something is missing",
        Some(files) if files.goes_on() => "whole, the run goes on in another file",
        _ => "whole",
    };
    let events = Cell::Counted(contents.events().sum(), "event", "events");
    let mut words = cells![name.to_owned(), ": ", state, "; ", events];
    if runs > 1 {
        words.extend(cells![" of ", Cell::Number(runs as u64), " runs"]);
    }
    words.extend(cells![" in ", Cell::Bytes(contents.bytes)]);
    words
}

/// A run with its files.
fn run(files: &[&RunContents]) -> Vec<Note> {
    let begin = files.iter().find_map(|file| file.begin.as_ref());
    let mut notes = match begin {
        Some(begin) => made(files, begin),
        None => vec![Note::about("run", cells!["its header is missing"])],
    };
    for file in files {
        let mut words = Vec::new();
        if let Some(begin) = file.begin.as_ref().filter(|_| files.len() > 1) {
            words.extend(numbers(&begin.spans()));
            words.push(": ".into());
        }
        words.push(Cell::Counted(file.events.sum(), "event", "events"));
        notes.push(Note::more(words));
        let lost = file.lost();
        if lost > 0 {
            let words = cells![
                Cell::Counted(lost, "event", "events"),
                " while recording: tracer report says when"
            ];
            notes.push(Note::alarm("LOST", words));
        }
    }
    notes
}

fn made(files: &[&RunContents], begin: &Begin) -> Vec<Note> {
    let header = &begin.header;
    let date = |at| Cell::Date(at, header.clock_offset);
    let mut when = cells![date(header.begun)];
    let latest = files.iter().filter_map(|file| file.span).map(|(_, last)| last).max();
    if let Some(last) = latest {
        when.extend(cells![" to ", date(last)]);
    }
    let spans = begin.spans();
    if files.len() == 1 && spans != [(0, 0)] {
        when.push(", ".into());
        when.extend(numbers(&spans));
    }
    if begin.redacted {
        when.push(", redacted".into());
    }
    let kinds = Cell::List(header.kinds.names().map(|name| Cell::from(name.to_owned())).collect());
    let machine = cells![
        header.host.clone(),
        " · Linux ",
        header.kernel.clone(),
        " · ",
        nodes(header),
        " · boot ",
        header.boot_id.clone()
    ];
    let traced = cells![
        header.targets.clone(),
        " · ",
        Cell::Backend(header.backend.clone()),
        " · ",
        kinds
    ];
    let mut notes = vec![
        Note::about("run", when),
        Note::about("machine", machine),
        Note::about("traced", traced),
    ];
    notes.extend(header.refused.iter().map(|hook| Note::more(refused(hook))));
    let command_line = header.command_line.join(" ");
    let version = cells![
        header.version.clone(),
        " · format ",
        Cell::Number(VERSION.into()),
        " · ",
        command_line
    ];
    notes.push(Note::about("tracer", version));
    notes
}
