//! Recordings that a stranger crafted: small files do not exhaust a reader, and no gap is called whole.
//! Input: files made from docs/recording-format.md alone; the program.

#[path = "crafted/encode.rs"]
mod encode;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use encode::{
    ADDRESS, BLACKOUT, BOOKS, Column, Content, END, EVENTS, HEADER, Head, KNOWN, MAPPING, NTH, OLD_NODE, OWNER, REASON,
    Recording, TIME, differences, end, header, packed, zstd,
};

const MOST: u64 = 1 << 18;
const DAY: i64 = 86_400_000_000_000;

/// A file in the folder of this test, which stays there for other measurements.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crafted");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}.data"));
    fs::write(&path, bytes).unwrap();
    path
}

/// Runs tracer with at most that many MiB of address space and a minute of CPU time.
fn bounded(mebibytes: u64, arguments: &[&str], path: &Path) -> Output {
    let command = format!("ulimit -t 60 && ulimit -v {} && exec \"$0\" \"$@\"", mebibytes * 1024);
    Command::new("sh")
        .args(["-c", &command, env!("CARGO_BIN_EXE_tracer")])
        .args(arguments)
        .arg(path)
        .output()
        .unwrap()
}

fn tracer(arguments: &[&str], path: &Path) -> Output {
    bounded(4096, arguments, path)
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// ---- Small files that exhaust readers ----

/// Many runs, each with a header that takes most of a mebibyte unpacked, and eight times as much in memory.
fn headers() -> Vec<u8> {
    let long = format!("[{}\"\"]", "\"\",".repeat(1 << 18));
    let mut bytes = Vec::new();
    for run in 0..1000 {
        let header = header(run, &long);
        bytes.extend(packed(
            HEADER,
            0,
            0,
            &zstd::bulk::compress(header.as_bytes(), 3).unwrap(),
            header.len(),
        ));
    }
    bytes
}

/// Blocks of the longest names, each of another mapping.
fn names() -> Vec<u8> {
    let mut recording = Recording::begun(0);
    for block in 0..20u64 {
        let mut content = Content::moves(1000).counting(MAPPING);
        content.strings.extend((0..1000u64).map(|name| {
            let mut text = format!("/{block}/{name}/").into_bytes();
            text.resize(1 << 16, b'a');
            text
        }));
        content.mappings = (2..=1001).collect();
        recording.events(&content);
    }
    recording.end(0);
    recording.bytes
}

/// One block of moves that have nothing in common.
fn groups() -> Vec<u8> {
    let each = |value| differences(MOST, value);
    let mut recording = Recording::begun(0);
    let content = Content::moves(MOST)
        .with(ADDRESS, each(1 << 20))
        .with(TIME, each(1_000_000_000))
        .with(KNOWN, Column::Runs(vec![(16, MOST)]))
        .with(BLACKOUT, each(1 << 40));
    recording.events(&content).end(0);
    recording.bytes
}

/// Moves with as many reasons and nodes as rows.
fn reasons() -> Vec<u8> {
    let mut recording = Recording::begun(0);
    let count = 1 << 16;
    let mut content = Content::moves(count)
        .counting(REASON)
        .counting(OLD_NODE)
        .with(KNOWN, Column::Runs(vec![(4 | 16, count)]))
        .with(BLACKOUT, differences(count, 1 << 40));
    content
        .strings
        .extend((0..count).map(|name| format!("r{name}").into_bytes()));
    content.reasons = (0..count).map(|name| [name % 256, name + 2]).collect();
    recording.events(&content).end(0);
    recording.bytes
}

/// One folio that every process of a block maps.
fn shared() -> Vec<u8> {
    let mut recording = Recording::begun(0);
    let mut content = Content::moves(MOST)
        .counting(OWNER)
        .with(KNOWN, Column::Runs(vec![(128, MOST)]))
        .with(NTH, Column::Runs(vec![(1, 1), (2, MOST - 1)]));
    content.tasks = (1..=MOST).map(|task| [task, task, 1]).collect();
    recording.events(&content).end(0);
    recording.bytes
}

/// Blocks that each claim the rest of the file, with a wrong checksum.
fn nested() -> Vec<u8> {
    let size = 16 << 20;
    let mut bytes = Recording::begun(0).bytes;
    while bytes.len() < size {
        let left = u32::try_from(size - bytes.len()).unwrap();
        let head = Head {
            kind: EVENTS,
            sequence: 2,
            rows: 1,
            packed: left.saturating_sub(56),
            unpacked: 1,
            crc: 1,
        };
        bytes.extend(head.bytes());
        bytes.resize(bytes.len() + 1024 - 56, 0);
    }
    bytes
}

/// An event each day.
fn days(count: u64) -> Vec<u8> {
    let mut recording = Recording::begun(0);
    recording.events(&Content::moves(count).with(TIME, differences(count, DAY)));
    recording.end(0);
    recording.bytes
}

/// Intervals of the books with long lists.
fn books() -> Vec<u8> {
    let check = "{\"name\":\"\",\"kernel\":0,\"seen\":1,\"exact\":true},".repeat(80_000);
    let mut recording = Recording::begun(0);
    for _ in 0..50 {
        let books = format!(
            "{{\"account\":{{\"begin\":0,\"end\":1,\"kernel\":1,\"moved\":0,\"released\":0,\"unseen\":0,\
             \"unbalanced_calls\":0,\"checks\":[{}],\"settled\":true,\"blind_to_unmapped\":false}},\"lost\":0}}",
            check.trim_end_matches(',')
        );
        let content = books.as_bytes();
        let block = packed(
            BOOKS,
            recording.sequence,
            0,
            &zstd::bulk::compress(content, 3).unwrap(),
            content.len(),
        );
        recording.bytes.extend(block);
        recording.sequence += 1;
    }
    recording.end(0);
    recording.bytes
}

/// Each file is read by each command in bounded memory.
#[test]
fn small_files_do_not_exhaust_a_reader() {
    for (name, bytes) in [
        ("headers", headers()),
        ("names", names()),
        ("groups", groups()),
        ("reasons", reasons()),
        ("shared", shared()),
        ("nested", nested()),
        ("books", books()),
    ] {
        let path = file(name, &bytes);
        for arguments in [&["info"][..], &["report", "--json"], &["export", "--format", "folded"]] {
            let output = bounded(1024, arguments, &path);
            let code = output.status.code();
            assert!(
                matches!(code, Some(0 | 1)),
                "{name} {arguments:?}: {code:?} {}",
                words(&output.stderr)
            );
        }
    }
}

#[test]
fn a_data_set_has_no_more_files_than_it_may() {
    let path = file("days", &days(3000));
    let root = path.with_extension("set");
    let _ = fs::remove_dir_all(&root);
    let set = ["export", "--format", "csv", "--partition", "-o", root.to_str().unwrap()];
    let output = tracer(&set, &path);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        words(&output.stderr).contains("--max-files"),
        "{}",
        words(&output.stderr)
    );
    let files = |root: &Path| {
        let days = fs::read_dir(root).unwrap();
        days.flat_map(|day| fs::read_dir(day.unwrap().path().join("host=db-1")).unwrap())
            .count()
    };
    assert!(files(&root) <= 1000);
    let output = tracer(&[&set[..], &["--force", "--max-files", "3000"]].concat(), &path);
    assert_eq!(
        (output.status.code(), files(&root)),
        (Some(0), 3000),
        "{}",
        words(&output.stderr)
    );
    fs::remove_dir_all(&root).unwrap();
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

/// Files of which every block is well-formed, or one that has no events is damaged.
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

/// Damage has the exit code 1, and words on stdout, in JSON and on stderr.
#[test]
fn no_gap_is_called_whole() {
    let path = file("whole", &whole().end(0).bytes);
    let output = tracer(&["info", "--json"], &path);
    assert_eq!(output.status.code(), Some(0), "{}", words(&output.stdout));
    for (name, bytes) in damaged_files().into_iter().chain(damaged_blocks()) {
        let path = file(&name.replace(' ', "-"), &bytes);
        let info = tracer(&["info"], &path);
        assert_eq!(info.status.code(), Some(1), "{name}");
        assert!(
            words(&info.stdout).contains("MISSING"),
            "{name}: {}",
            words(&info.stdout)
        );
        let json = words(&tracer(&["info", "--json"], &path).stdout);
        assert!(json.contains("\"whole\":false"), "{name}: {json}");
        for command in ["cat", "report"] {
            let shown = tracer(&[command], &path);
            assert_eq!(shown.status.code(), Some(1), "{command} {name}");
            let text = words(&shown.stdout);
            assert!(
                text.contains("LOST") || text.contains("missing from the recording"),
                "{command} {name}: {text}"
            );
            assert!(
                words(&shown.stderr).contains("at byte"),
                "{command} {name}: {}",
                words(&shown.stderr)
            );
        }
        // A redacted recording lacks the events that cannot be decoded, and says so.
        let out = path.with_extension("redacted");
        let merge = ["merge", "--redact", "--force", "-o", out.to_str().unwrap()];
        let merged = tracer(&merge, &path);
        assert_eq!(merged.status.code(), Some(1), "{name}: {}", words(&merged.stderr));
        assert!(words(&merged.stderr).contains("at byte"), "{name}");
        assert_eq!(
            tracer(&["info"], &out).status.code(),
            Some(1),
            "{name}: its redacted copy is called whole"
        );
        // A copy of its blocks is no more whole than they are.
        let merged = tracer(&["merge", "--force", "-o", out.to_str().unwrap()], &path);
        let copied = tracer(&["info"], &out);
        assert_eq!(
            copied.status.code(),
            Some(1),
            "{name}: its copy is called whole: {}",
            words(&merged.stderr)
        );
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
