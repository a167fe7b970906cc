//! Tests that joined recordings show the same as their parts.
//! Input: made-up runs.

use std::io::Cursor;

use super::*;
use crate::{
    event::Event,
    made_up,
    pipeline::replay::replay,
    recording::{
        block::{self, BlockKind},
        contents::Contents,
        header::Finished,
        writer::Writer,
    },
    sink::json::JsonLines,
    units::Nanos,
};

fn begun(later: u64) -> Header {
    let mut header = made_up::header();
    header.begun.0 += later;
    header
}

fn events(by: u64) -> Vec<Event> {
    let mut moved = made_up::moved();
    moved.vaddr = moved.vaddr.plus_pages(by);
    let mut events = made_up::others();
    events.extend([Event::Move(moved), Event::Move(made_up::unknown())]);
    events
}

/// A run in its own file.
fn recorded(later: u64) -> Vec<u8> {
    let mut file = Vec::new();
    let mut sink = Writer::new(&mut file).unwrap();
    sink.begin(&begun(later)).unwrap();
    for by in 0..2 {
        for event in events(by) {
            sink.event(&event).unwrap();
        }
        sink.flush().unwrap();
        sink.interval(&made_up::interval()).unwrap();
    }
    sink.finish(&made_up::summary()).unwrap();
    file
}

/// A file of a rotation, with `blocks` blocks of events.
fn part(part: u32, blocks: u64, last: bool) -> Vec<u8> {
    part_lacking(part, blocks, last, 0)
}

/// The same, with `unwritten` events that could not be written into it.
fn part_lacking(part: u32, blocks: u64, last: bool, unwritten: u64) -> Vec<u8> {
    let mut file = Vec::new();
    let mut out = Blocks::new(&mut file).unwrap();
    out.begin(Begin {
        part,
        ..Begin::of(begun(0))
    })
    .unwrap();
    let mut batch = Batch::default();
    for number in 0..blocks {
        for event in events(number + 1000 * u64::from(part)) {
            batch.push(&event);
        }
        out.events(&mut batch).unwrap();
    }
    let finished = last.then(|| Finished::from(&made_up::summary()));
    out.end_after(0, unwritten, finished).unwrap();
    file
}

/// The joined recording, its notes, and the number of missing parts.
fn joined(files: &[&[u8]], key: Option<&Key>) -> (Vec<u8>, Vec<Note>, usize) {
    let (mut pieces, mut missing, mut notes) = (Vec::new(), 0, Vec::new());
    for (number, file) in files.iter().enumerate() {
        pieces.extend(survey(*file, number, false, |_| missing += 1).unwrap());
    }
    let runs = arrange(pieces, |note| notes.push(note));
    let mut inputs: Vec<_> = files.iter().map(Cursor::new).collect();
    let mut file = Vec::new();
    let mut out = Blocks::new(&mut file).unwrap();
    for run in &runs {
        assert!(write(run, &mut inputs, key, &mut out).unwrap());
    }
    (file, notes, missing)
}

/// The output of `tracer cat --json` for these files in order, and the number of missing parts.
fn shown(files: &[&[u8]]) -> (String, usize) {
    let (mut shown, mut missing) = (Vec::new(), 0);
    for file in files {
        let mut recording = RecordingFile::new(*file).unwrap();
        replay(&mut recording, &mut JsonLines::new(&mut shown), |_| missing += 1).unwrap();
    }
    (String::from_utf8(shown).unwrap(), missing)
}

/// Missing events, and the places at which their number is not known, according to the summary.
fn damage(file: &[u8]) -> (u64, u64) {
    let (shown, _) = shown(&[file]);
    let summary: serde_json::Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
    let damaged = |key: &str| summary["damaged"][key].as_u64().unwrap();
    (damaged("events"), damaged("unknown"))
}

fn contents(file: &[u8]) -> Contents {
    let mut recording = RecordingFile::new(file).unwrap();
    let mut found = Contents::default();
    while let Some(item) = recording.next_item().unwrap() {
        found.add(&item, &mut recording);
    }
    found
}

#[test]
fn runs_come_in_the_order_of_their_time() {
    let files = [recorded(0), recorded(1), recorded(2)];
    let [a, b, c] = files.each_ref().map(|file| &file[..]);
    let (merged, notes, missing) = joined(&[c, a, b], None);
    assert!(notes.is_empty() && missing == 0);
    assert_eq!(shown(&[&merged]), shown(&[a, b, c]));
    let found = contents(&merged);
    assert_eq!(found.runs.len(), 3);
    assert!(found.missing.is_empty());
    let begun = |run: &crate::recording::contents::RunContents| run.begin.as_ref().map(|begin| begin.header.begun);
    let first = made_up::header().begun;
    assert_eq!(begun(&found.runs[2]), Some(Nanos(first.0 + 2)));
    // A joined recording can be joined again, with another one.
    let (again, notes, _) = joined(&[&merged, b], None);
    assert!(again == merged && matches!(notes[..], [Note::Twice(..)]));
}

#[test]
fn what_is_given_twice_is_taken_once() {
    let (a, b) = (recorded(0), recorded(1));
    let (merged, notes, _) = joined(&[&a, &b, &a], None);
    assert!(matches!(&notes[..], [Note::Twice(piece, _)] if piece.recording == 2));
    assert_eq!(shown(&[&merged]), shown(&[&a, &b]));
    // A complete recording is preferred to one that was cut off, whatever their order.
    let (merged, notes, missing) = joined(&[&a[..a.len() - 1], &a], None);
    assert!(missing > 0 && matches!(&notes[..], [Note::Twice(piece, _)] if piece.recording == 0));
    assert_eq!(shown(&[&merged]), shown(&[&a]));
}

#[test]
fn files_of_a_rotation_are_one_run() {
    let files = [part(1, 3, false), part(2, 600, false), part(3, 2, true)];
    let [a, b, c] = files.each_ref().map(|file| &file[..]);
    let (merged, notes, missing) = joined(&[c, b, a], None);
    assert!(notes.is_empty() && missing == 0);
    let found = contents(&merged);
    assert!(found.missing.is_empty());
    let [run] = &found.runs[..] else {
        panic!("{:?}", found.runs)
    };
    let (begin, end) = (run.begin.as_ref().unwrap(), run.end.as_ref().unwrap());
    assert_eq!((begin.part, begin.last_part()), (1, 3));
    assert_eq!((end.events, end.unwritten), (605 * 8, 0));
    assert_eq!(run.events.sum(), 605 * 8);
    // Every 256th block is followed by the header, and no other.
    assert_eq!(found.blocks[BlockKind::Header as usize].blocks, 2 + 2);
    let concatenated = files.concat();
    assert_eq!(shown(&[&merged]), shown(&[&concatenated]));
    // One of the files is in it already.
    let (again, notes, _) = joined(&[&merged, b], None);
    assert!(again == merged && matches!(notes[..], [Note::Twice(..)]));
}

#[test]
fn what_is_missing_is_said_of_the_joined_one_too() {
    let files = [part(0, 3, false), part(1, 2, false), part(2, 2, true)];
    let (merged, notes, _) = joined(&[&files[0], &files[2]], None);
    assert!(matches!(notes[..], [Note::Between(..)]));
    let found = contents(&merged);
    assert_eq!(found.missing.len(), 1);
    assert_eq!(found.runs[0].begin.as_ref().unwrap().spans(), [(0, 0), (2, 2)]);
    assert_eq!(found.parts.runs()[0].gaps(), [(1, 1)]);
    assert_eq!(damage(&merged), (0, 1));
    // A block in the middle is damaged.
    let mut damaged = files[1].clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let (merged, _, missing) = joined(&[&files[0], &damaged, &files[2]], None);
    assert_eq!((missing, contents(&merged).missing.len()), (1, 1));
    assert_eq!(contents(&merged).runs.len(), 1);
    // How many events the block had is known in the joined recording, too, unless a file is missing besides.
    assert_eq!(damage(&merged), (8, 0));
    assert_eq!(damage(&joined(&[&merged], None).0), (8, 0));
    assert_eq!(damage(&joined(&[&damaged], None).0), (8, 0));
    let later = part(4, 1, true);
    assert_eq!(damage(&joined(&[&files[0], &damaged, &later], None).0), (0, 2));
    // Some events could not be written.
    let lacking = [part_lacking(0, 1, false, 2), part_lacking(1, 1, true, 5)];
    let (merged, ..) = joined(&[&lacking[0], &lacking[1]], None);
    let found = contents(&merged);
    assert_eq!((found.missing.len(), found.missing_events), (1, 7));
    // The end is missing.
    let mut cut = recorded(1);
    cut.truncate(cut.len() - 1);
    let whole = recorded(2);
    let (merged, ..) = joined(&[&cut, &whole], None);
    let found = contents(&merged);
    assert!(found.runs[0].end.is_none() && found.runs[1].end.is_some() && found.missing.len() == 1);
    let (shown_merged, missing) = shown(&[&merged]);
    // The readable rows of a damaged block are not copied: only the original knows its length.
    let rows = |shown: &str| -> Vec<String> {
        let rows = shown.lines().filter(|line| !line.contains("\"kind\":\"summary\""));
        rows.map(str::to_owned).collect()
    };
    assert_eq!((rows(&shown_merged), missing), (rows(&shown(&[&cut, &whole]).0), 1));
}

#[test]
fn unknown_kinds_are_copied_and_not_redacted() {
    let mut later = part(0, 1, true);
    // The last block is the end; a copy of it with a future kind is inserted before it.
    let end = later.windows(4).rposition(|mark| mark == b"\xd7TR\x1a").unwrap();
    let mut block = later[end..].to_vec();
    block[4] = 99;
    block::renumber(&mut block, 3);
    let mut last = later.split_off(end);
    block::renumber(&mut last, 4);
    later.extend(block);
    later.extend(last);
    assert_eq!(shown(&[&later]).1, 0);
    let (merged, ..) = joined(&[&later], None);
    assert!(merged == later);
    let key = Key::new().unwrap();
    let pieces = survey(&later[..], 0, false, |_| {}).unwrap();
    let mut file = Vec::new();
    let mut out = Blocks::new(&mut file).unwrap();
    let run = &arrange(pieces, |_| {})[0];
    assert!(!write(run, &mut [Cursor::new(&later)], Some(&key), &mut out).unwrap());
    assert_eq!(contents(&file).missing.len(), 1);
}

/// The content of each block, unpacked.
fn unpacked(file: &[u8]) -> Vec<u8> {
    let mut recording = RecordingFile::undecoded(file).unwrap();
    let mut unpacker = block::Unpacker::new().unwrap();
    let (mut all, mut content) = (Vec::new(), Vec::new());
    while recording.next_item().unwrap().is_some() {
        if let Some(place) = recording.place {
            let packed = &recording.block()[block::HEADER..];
            unpacker.unpack(&place.header, packed, &mut content).unwrap();
            all.extend(&content);
        }
    }
    all
}

#[test]
fn nothing_secret_is_in_any_block_of_a_redacted_one() {
    let key = Key::new().unwrap();
    let file = recorded(0);
    let (redacted, notes, missing) = joined(&[&file], Some(&key));
    assert!(notes.is_empty() && missing == 0);
    let contains = |file: &[u8], what: &[u8]| unpacked(file).windows(what.len()).any(|there| there == what);
    for secret in ["libLLVM", "/usr/lib", "base.db", "tracer\",\"-p", "postgres"] {
        assert!(contains(&file, secret.as_bytes()), "{secret} should be in the original");
        assert!(!contains(&redacted, secret.as_bytes()), "{secret}");
    }
    // Frames are compared as the decoder reads them from the tables, and in JSON.
    let (of_original, of_redacted) = (shown(&[&file]).0, shown(&[&redacted]).0);
    for pfn in [0x1f_03a0_u64, 0x9_c11e, 0x9_c11c] {
        let text = format!("{pfn:#x}\"");
        assert!(of_original.contains(&text), "{text} should be in the original");
        assert!(!of_redacted.contains(&text), "{text}");
    }
    assert!(
        of_original.contains(":1234,") && !of_redacted.contains(":1234,"),
        "the inode"
    );
    // Everything else is unchanged.
    assert_eq!(of_redacted.lines().count(), of_original.lines().count());
    let (mut before, mut after) = (contents(&file), contents(&redacted));
    let run = |contents: &mut Contents| contents.runs.remove(0);
    let (before, after) = (run(&mut before), run(&mut after));
    assert_eq!(
        (before.events, before.pages, before.span),
        (after.events, after.pages, after.span)
    );
    assert_eq!(before.end, after.end);
    assert!(after.begin.unwrap().redacted);
}
