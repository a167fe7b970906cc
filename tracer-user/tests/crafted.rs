//! Recordings that a stranger crafted: small files do not exhaust a reader, and no gap is called whole.
//! Input: files made from docs/recording-format.md alone; the program, and its readers.

#[path = "crafted/encode.rs"]
mod encode;

use std::{
    fs,
    io::{self, Cursor},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use encode::{
    BOOKS, Column, Content, END, EVENTS, HEADER, Head, KNOWN, MAPPING, NTH, OLD_NODE, OWNER, REASON, Recording, TIME,
    differences, end, header, packed, zstd,
};
use serde_json::Value;
use tracer_user::{
    pipeline::replay::replay,
    recording::{blocks::Blocks, contents::Contents, merge, reader::RecordingFile, redact::Key, store::Store},
    sink::json::JsonLines,
};

const DAY: i64 = 86_400_000_000_000;

/// Makes a file with that name.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crafted");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.data", name.replace(' ', "-")));
    fs::write(&path, bytes).unwrap();
    path
}

/// Runs tracer with at most 512 MiB of address space and a minute of CPU time. A reader takes up to three seconds; one
/// whose time grows with the square of the file's length takes minutes.
fn tracer(arguments: &[&str], path: &Path) -> Output {
    Command::new("sh")
        .args([
            "-c",
            "ulimit -v 524288 && ulimit -t 60 && exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_tracer"),
        ])
        .args(arguments)
        .arg(path)
        .output()
        .unwrap()
}

/// The exit code of such a run, with its words.
fn outcome(arguments: &[&str], path: &Path) -> (Option<i32>, String, String) {
    let output = tracer(arguments, path);
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), words(&output.stdout), words(&output.stderr))
}

// ---- Small files that exhaust readers ----

/// 40 KB: runs whose headers have a mebibyte of JSON, which takes eight times as much memory.
#[test]
fn headers_are_bounded() {
    let long = format!("[{}\"\"]", "\"\",".repeat(1 << 18));
    let mut bytes = Vec::new();
    for run in 0..120 {
        let header = header(run, &long);
        bytes.extend(packed(HEADER, 0, 0, &zstd(header.as_bytes()), header.len()));
    }
    let (code, shown, errors) = outcome(&["info"], &file("headers", &bytes));
    assert_eq!(code, Some(1), "{errors}");
    assert!(shown.contains("more content than the file may have"), "{shown}");
}

/// 100 KB: 460 MB of names, each of another mapping.
#[test]
fn names_are_bounded() {
    let mut recording = Recording::begun(0);
    for block in 0..7u64 {
        let mut content = Content::moves(1000).counting(MAPPING);
        content.strings.extend((0..1000u64).map(|name| {
            let mut text = format!("/{block}/{name}/").into_bytes();
            text.resize(1 << 16, b'a');
            text
        }));
        content.mappings = (2..=1001).collect();
        recording.events(&content);
    }
    let path = file("names", &recording.end(0).bytes);
    let (code, shown, errors) = outcome(&["report", "--by", "vma", "-n", "1", "--json"], &path);
    assert_eq!(code, Some(0), "{errors}");
    let report: Value = serde_json::from_str(&shown).unwrap();
    let others = &report["tables"][0]["others"];
    assert_eq!((&others["groups"], &others["events"]), (&Value::Null, &6999.into()));
}

/// 1 KB: more seconds than a report has rows.
#[test]
fn rows_are_bounded() {
    let (count, most) = (70_000, 1 << 16);
    let mut recording = Recording::begun(0);
    recording.events(&Content::moves(count).with(TIME, differences(count, 1_000_000_000)));
    let path = file("rows", &recording.end(0).bytes);
    let (code, shown, errors) = outcome(&["report", "--by", "second", "--json"], &path);
    assert_eq!(code, Some(0), "{errors}");
    let report: Value = serde_json::from_str(&shown).unwrap();
    let table = &report["tables"][0];
    assert_eq!(table["rows"].as_array().unwrap().len() as u64, most);
    assert_eq!(table["others"]["groups"], count - most);
}

/// 20 KB: reasons with thousands of names, and moves from thousands of nodes.
#[test]
fn reasons_and_nodes_are_bounded() {
    let mut recording = Recording::begun(0);
    let nodes = Content::moves(5000).counting(OLD_NODE);
    recording.events(&nodes.with(KNOWN, Column::Runs(vec![(4, 5000)])));
    for block in 0..8 {
        let mut content = Content::moves(256).counting(REASON);
        let names = (0..256).map(|name| format!("r{block}.{name}").into_bytes());
        content.strings.extend(names);
        content.reasons = (0..256).map(|name| [name, name + 2]).collect();
        recording.events(&content);
    }
    let path = file("reasons", &recording.end(0).bytes);
    let (code, shown, errors) = outcome(&["report", "--json"], &path);
    assert_eq!(code, Some(0), "{errors}");
    let report: Value = serde_json::from_str(&shown).unwrap();
    let reasons = report["recordings"][0]["totals"]["reasons"].as_array().unwrap();
    // 256 have their name, or none; the others are known by their numbers.
    assert_eq!(reasons.len(), 512);
    let pairs = reasons
        .iter()
        .map(|reason| reason["nodes"].as_array().unwrap().len())
        .max();
    // The last pair is unknown.
    assert_eq!(pairs, Some(4097));
}

/// 300 KB: one folio that 65,536 processes map.
#[test]
fn shared_folios_take_linear_time() {
    let most = 1 << 16;
    let mut content = Content::moves(most)
        .counting(OWNER)
        .with(KNOWN, Column::Runs(vec![(128, most)]))
        .with(NTH, Column::Runs(vec![(1, 1), (2, most - 1)]));
    content.tasks = (1..=most).map(|task| [task, task, 1]).collect();
    let path = file("shared", &Recording::begun(0).events(&content).end(0).bytes);
    let (code, _, errors) = outcome(&["report"], &path);
    assert_eq!(code, Some(0), "{errors}");
}

/// 16 MiB: blocks that each claim the rest of the file, with a wrong checksum.
#[test]
fn nested_blocks_take_linear_time() {
    let size = 16 << 20;
    let mut bytes = Recording::begun(0).bytes;
    while bytes.len() < size {
        let left = u32::try_from(size - bytes.len()).unwrap();
        let head = Head {
            kind: EVENTS,
            sequence: 2,
            rows: 1,
            packed: left.saturating_sub(56),
            unpacked: 100,
            crc: 1,
        };
        bytes.extend(head.bytes());
        bytes.resize(bytes.len() + 128 - 56, 0);
    }
    let (code, shown, errors) = outcome(&["info"], &file("nested", &bytes));
    assert_eq!(code, Some(1), "{errors}");
    assert!(shown.contains("the checksum of its content is wrong"), "{shown}");
}

/// 1 KB: an event each day.
#[test]
fn a_data_set_has_no_more_files_than_it_may() {
    let mut recording = Recording::begun(0);
    recording.events(&Content::moves(12).with(TIME, differences(12, DAY)));
    let path = file("days", &recording.end(0).bytes);
    let root = path.with_extension("set");
    let files = |most: &str| {
        let _ = fs::remove_dir_all(&root);
        let set = ["export", "--format", "csv", "--partition", "--max-files", most, "-o"];
        let (code, _, errors) = outcome(&[&set[..], &[root.to_str().unwrap()]].concat(), &path);
        let days = fs::read_dir(&root).unwrap();
        let files = days.flat_map(|day| fs::read_dir(day.unwrap().path().join("host=db-1")).unwrap());
        (code, files.count(), errors.contains("--max-files"))
    };
    let (code, count, says_why) = files("11");
    // Complete files remain.
    assert!((code, says_why) == (Some(2), true) && count <= 11, "{code:?} {count}");
    assert_eq!(files("12"), (Some(0), 12, false));
}

// ---- Damage ----

/// Two blocks of events and an end that says that the run ended.
fn whole() -> Recording {
    let mut recording = Recording::begun(0);
    recording.events(&Content::moves(3)).events(&Content::moves(4));
    recording
}

/// A file whose second-last block is replaced by one with that content in the file.
fn with_block(rows: u32, content: &[u8], unpacked: usize) -> Vec<u8> {
    let mut recording = Recording::begun(0);
    recording.events(&Content::moves(3));
    let block = packed(EVENTS, recording.sequence, rows, content, unpacked);
    recording.bytes.extend(block);
    recording.sequence += 1;
    recording.events += 4;
    recording.end(0).bytes.clone()
}

fn with_content(rows: u32, content: &Content) -> Vec<u8> {
    let content = content.bytes();
    with_block(rows, &zstd(&content), content.len())
}

/// Files in which each block is well-formed on its own, or a block without events is damaged.
fn damaged_files() -> Vec<(&'static str, Vec<u8>)> {
    let headless = {
        let mut recording = Recording::default();
        recording.events(&Content::moves(3)).end(0);
        recording.bytes
    };
    let other_header = {
        let mut recording = whole();
        let sequence = recording.sequence;
        let other = header(7, "[]");
        recording
            .bytes
            .extend(packed(HEADER, sequence, 0, &zstd(other.as_bytes()), other.len()));
        recording.sequence += 1;
        recording.end(0).bytes.clone()
    };
    let behind_the_end = {
        let mut recording = whole();
        recording.end(0).events(&Content::moves(2));
        recording.bytes
    };
    let books = "{}".repeat(2);
    let two_values = {
        let mut recording = whole();
        recording.block(BOOKS, 0, books.as_bytes()).end(0);
        recording.bytes
    };
    let rows_of_an_end = {
        let mut recording = whole();
        recording.block(END, 1, end(7, "").as_bytes());
        recording.bytes
    };
    vec![
        // A block was left out, and the others numbered again.
        ("a block less", whole().end(2).bytes.clone()),
        ("a block more", whole().end(-2).bytes.clone()),
        ("no header", headless),
        ("another header", other_header),
        ("events behind the end", behind_the_end),
        ("two values", two_values),
        ("rows of an end", rows_of_an_end),
    ]
}

/// Files with one damaged block of events.
fn damaged_blocks() -> Vec<(&'static str, Vec<u8>)> {
    let four = Content::moves(4);
    let content = four.bytes();
    let one = zstd(&content);
    let more_rows = Content {
        declared_moves: Some(5),
        ..four.clone().with(TIME, Column::Numbers(vec![2; 5]))
    };
    let beyond = |strings, moves| Content {
        declared_strings: strings,
        declared_moves: moves,
        ..four.clone()
    };
    let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
    skippable.splice(0..0, one.clone());
    let two_frames = [zstd(&content[..5]), zstd(&content[5..])].concat();
    vec![
        ("no rows", with_content(0, &four)),
        ("too few rows", with_content(5, &four)),
        ("too many rows", with_content(3, &four)),
        ("more rows than the content can hold", with_content(1 << 18, &four)),
        ("two frames", with_block(4, &two_frames, content.len())),
        ("a skippable frame", with_block(4, &skippable, content.len())),
        (
            "bytes behind the frame",
            with_block(4, &[&one[..], b"more"].concat(), content.len()),
        ),
        ("no frame", with_block(4, b"", 0)),
        ("another size", with_block(4, &one, content.len() + 1)),
        (
            "bytes behind the tables",
            with_content(
                4,
                &Content {
                    after: vec![0],
                    ..four.clone()
                },
            ),
        ),
        (
            "bytes behind a column",
            with_content(4, &four.clone().with(TIME, Column::Numbers(vec![2; 5]))),
        ),
        (
            "a run too long",
            with_content(4, &four.clone().with(OWNER, Column::Runs(vec![(1, 5)]))),
        ),
        (
            "a run too short",
            with_content(4, &four.clone().with(OWNER, Column::Runs(vec![(1, 3)]))),
        ),
        (
            "an endless number",
            with_content(4, &four.clone().with(TIME, Column::Bytes(vec![0xff; 40]))),
        ),
        ("rows of no event", with_content(4, &more_rows)),
        ("too many strings", with_content(4, &beyond(Some(u64::MAX), None))),
        ("too many moves", with_content(4, &beyond(None, Some(u64::MAX)))),
        ("more reasons than numbers", {
            let reasons = vec![[1, 0]; 257];
            with_content(
                4,
                &Content {
                    reasons,
                    ..four.clone()
                },
            )
        }),
        ("a long name of a task", {
            let strings = vec![vec![b'a'; 257]];
            with_content(
                4,
                &Content {
                    strings,
                    ..four.clone()
                },
            )
        }),
    ]
}

/// A store that keeps all blocks.
struct Kept<'a>(&'a mut Vec<u8>);

impl io::Write for Kept<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store for Kept<'_> {}

/// The joined recording, redacted if there is a key, and the number of parts that are reported to be missing.
fn merged(bytes: &[u8], key: Option<&Key>) -> (Vec<u8>, usize) {
    let mut missing = 0;
    let pieces = merge::survey(bytes, 0, key.is_some(), |_| missing += 1).unwrap();
    let mut copy = Vec::new();
    let mut out = Blocks::new(Kept(&mut copy)).unwrap();
    for run in merge::arrange(pieces, |_| {}) {
        merge::write(&run, &mut [Cursor::new(bytes)], key, &mut out).unwrap();
    }
    drop(out);
    (copy, missing)
}

fn is_whole(bytes: &[u8]) -> bool {
    let mut recording = RecordingFile::new(bytes).unwrap();
    let mut found = Contents::default();
    while let Some(item) = recording.next_item().unwrap() {
        found.add(&item, &mut recording);
    }
    found.is_whole()
}

/// Every reader reports the damage of every file.
#[test]
fn no_gap_is_called_whole() {
    let key = Key::new().unwrap();
    assert!(is_whole(&whole().end(0).bytes));
    for (name, bytes) in damaged_files().into_iter().chain(damaged_blocks()) {
        assert!(!is_whole(&bytes), "{name}");
        let mut missing = 0;
        let mut shown = JsonLines::new(io::sink());
        let input = replay(&mut RecordingFile::new(&bytes[..]).unwrap(), &mut shown, |_| {
            missing += 1;
        })
        .unwrap();
        assert!(!input.is_whole() && missing > 0, "{name}");
        // A redacted copy lacks the events that cannot be decoded, which is said.
        let (copy, missing) = merged(&bytes, Some(&key));
        assert!(missing > 0, "{name}");
        assert!(!is_whole(&copy), "{name}: its redacted copy is called whole");
        // A copy of its blocks is no more whole than they are.
        let (copy, _) = merged(&bytes, None);
        assert!(!is_whole(&copy), "{name}: its copy is called whole");
    }
}

/// Damage has the exit code 1, and words on stdout, in JSON and on stderr.
#[test]
fn every_command_reports_damage() {
    let path = file("whole", &whole().end(0).bytes);
    assert_eq!(outcome(&["info"], &path).0, Some(0));
    let damaged = [
        damaged_files().into_iter().find(|(name, _)| *name == "a block less"),
        damaged_blocks().into_iter().find(|(name, _)| *name == "too few rows"),
    ]
    .map(Option::unwrap);
    for (name, bytes) in damaged {
        let path = file(name, &bytes);
        let out = path.with_extension("redacted");
        let redact = ["merge", "--redact", "--force", "-o", out.to_str().unwrap()];
        for (arguments, words, on_stderr) in [
            (&["info"][..], "MISSING", ""),
            (&["info", "--json"], "\"whole\":false", ""),
            (&["cat"], "LOST", "at byte"),
            (&["report"], "missing from the recording", "at byte"),
            (&["export", "--format", "csv"], "", "at byte"),
            (&redact, "", "at byte"),
        ] {
            let (code, shown, errors) = outcome(arguments, &path);
            assert_eq!(code, Some(1), "{arguments:?} {name}");
            assert!(shown.contains(words), "{arguments:?} {name}: {shown}");
            assert!(errors.contains(on_stderr), "{arguments:?} {name}: {errors}");
        }
    }
}

/// No command panics where stderr cannot be written.
#[test]
fn a_full_stderr_ends_no_command() {
    let path = file("no-stderr", &whole().end(2).bytes);
    let commands = [
        &["info"][..],
        &["report"],
        &["cat"],
        &["export", "--format", "csv"],
        &["merge", "--redact", "-o", "-"],
        &["-v", "--bogus"],
        &["-p"],
        &["pages", "-p"],
    ];
    for arguments in commands {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracer"));
        let output = command.args(arguments).arg(&path).stderr(full).output().unwrap();
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{arguments:?}: {:?}",
            output.status
        );
    }
}
