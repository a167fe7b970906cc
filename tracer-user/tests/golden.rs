//! Runs every report on every recording in tests/golden: old recordings stay readable for ever, with the same output.
//! Input: recordings of each version of the format; the program. Expected output is in tests/golden/expected.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tracer_user::{
    recording::{
        files::{Files, Limit, Sync},
        reader::{Item, RecordingFile},
        rows::Step,
        writer::Writer,
    },
    run::summary::Summary,
    units::Nanos,
};

/// The reports of each recording; its path is the last argument.
const REPORTS: [(&str, &[&str]); 12] = [
    ("report", &["report"]),
    ("report-json", &["report", "--json"]),
    ("report-by-process-reason", &["report", "--by", "process,reason"]),
    (
        "report-by-vma-nodes",
        &["report", "--by", "vma,nodes", "--sort", "name"],
    ),
    (
        "report-by-actor-order-verdict",
        &["report", "--by", "actor,order,verdict"],
    ),
    (
        "report-by-host-comm",
        &["report", "--by", "host,comm", "--sort", "events"],
    ),
    (
        "report-by-address",
        &["report", "--by", "address", "--sort", "name", "--rows", "5"],
    ),
    ("report-by-second", &["report", "--by", "second", "--json"]),
    ("cat", &["cat"]),
    ("cat-json", &["cat", "--json"]),
    ("info", &["info"]),
    ("info-json", &["info", "--json"]),
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// `v1/made-up.data`, and so on.
fn recordings() -> Vec<String> {
    let mut found = Vec::new();
    for folder in fs::read_dir(golden()).unwrap() {
        let folder = folder.unwrap();
        let version = folder.file_name().into_string().unwrap();
        if version.starts_with('v') {
            let files = fs::read_dir(folder.path()).unwrap();
            found.extend(files.map(|file| format!("{version}/{}", file.unwrap().file_name().to_str().unwrap())));
        }
    }
    found.sort();
    assert!(found.iter().any(|path| path.starts_with("v1/")), "{found:?}");
    found
}

fn tracer(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tracer"))
        .args(arguments)
        .current_dir(golden())
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that does not read its input does not need it.
    let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn shown(arguments: &[&str], input: &[u8]) -> String {
    words(&tracer(arguments, input).stdout)
}

fn expect(name: &str, path: &str, output: &Output) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(golden().join("expected"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let (shown, said) = (words(&output.stdout), words(&output.stderr));
    let all = format!("{shown}-- exit code {:?}, on stderr:\n{said}", output.status.code());
    let file = path.replace('/', "-").replace(".data", "");
    settings.bind(|| insta::assert_snapshot!(format!("{file}-{name}"), all));
}

/// A folio counts for each process that maps it, also where the report has none of its other mappings.
#[test]
fn a_selected_process_has_the_pages_of_its_row() {
    for path in recordings() {
        let json = |arguments: &[&str]| -> Value {
            serde_json::from_str(&shown(&[&["report", "--json"], arguments, &[&path]].concat(), b"")).unwrap()
        };
        let all = json(&["--by", "process"]);
        for row in all["tables"][0]["rows"].as_array().unwrap() {
            let Some(pid) = row["pid"].as_u64() else { continue };
            let selected = json(&["--pid", &pid.to_string()]);
            let totals = &selected["recordings"][0]["totals"];
            assert_eq!(totals["pages"], row["pages"], "{pid} in {path}");
            assert_eq!(totals["mappings"], row["mappings"], "{pid} in {path}");
        }
    }
}

#[test]
fn every_report_of_every_recording() {
    for path in recordings() {
        for (name, arguments) in REPORTS {
            expect(name, &path, &tracer(&[arguments, &[path.as_str()]].concat(), b""));
        }
        let merged = tracer(&["merge", "-o", "-", &path], b"");
        expect("merge", &path, &tracer(&["info", "-"], &merged.stdout));
    }
}

#[test]
fn a_recording_without_an_end_is_reported_as_far_as_it_goes() {
    for path in recordings() {
        let mut bytes = fs::read(golden().join(&path)).unwrap();
        bytes.pop();
        expect("cut-report", &path, &tracer(&["report", "-"], &bytes));
        expect("cut-report-json", &path, &tracer(&["report", "--json", "-"], &bytes));
    }
}

#[test]
fn a_joined_recording_shows_what_its_files_show() {
    let paths = recordings();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    for path in &paths {
        let merged = tracer(&["merge", "-o", "-", path], b"").stdout;
        assert_eq!(
            shown(&["cat", "--json", "-"], &merged),
            shown(&["cat", "--json", path], b"")
        );
        let report = |path: &str, input: &[u8]| shown(&["report", path], input).replace(path, "-");
        assert_eq!(report("-", &merged), report(path, b"").replace(path, "-"), "{path}");
    }
    let all = tracer(&[&["merge", "-o", "-"], &paths[..]].concat(), b"");
    assert_eq!(all.status.code(), Some(0), "{}", words(&all.stderr));
    // Files are in the order of their names, runs in the order of time.
    let rows = |path: &str, input: &[u8]| -> Vec<String> {
        let shown = shown(&["cat", "--json", path], input);
        shown.lines().map(str::to_owned).collect()
    };
    let (mut joined, mut one_by_one) = (rows("-", &all.stdout), Vec::new());
    one_by_one.extend(paths.iter().flat_map(|path| rows(path, b"")));
    joined.sort();
    one_by_one.sort();
    assert!(joined == one_by_one);
    let tables = |files: &[&str], input: &[u8]| {
        let by = ["report", "--by", "process,vma,nodes", "--sort", "name", "--json"];
        let report: Value = serde_json::from_str(&shown(&[&by, files].concat(), input)).unwrap();
        report["tables"].clone()
    };
    assert_eq!(tables(&["-"], &all.stdout), tables(&paths, b""));
    let info: Value = serde_json::from_str(&shown(&["info", "--json", "-"], &all.stdout)).unwrap();
    assert_eq!(info["runs"].as_array().map(Vec::len), Some(paths.len()));
}

#[test]
fn a_redacted_recording_has_no_names_of_files() {
    let mut names = 0;
    for path in recordings() {
        let redacted = tracer(&["merge", "--redact", "-o", "-", &path], b"");
        assert_eq!(redacted.status.code(), Some(0), "{}", words(&redacted.stderr));
        let info = shown(&["info", "-"], &redacted.stdout);
        assert!(info.contains(", redacted\n") && info.contains("(redacted)"), "{info}");
        let original = shown(&["cat", "--json", &path], b"");
        let copy = shown(&["cat", "--json", "-"], &redacted.stdout);
        assert_eq!(copy.lines().count(), original.lines().count(), "{path}");
        for (line, copy) in original.lines().zip(copy.lines()) {
            let parsed = [line, copy].map(|line| serde_json::from_str::<Value>(line).unwrap());
            let [line, copy] = &parsed;
            for name in ["/vma/name", "/file/name", "/places/0/vma/name"] {
                let Some(name) = line.pointer(name).and_then(Value::as_str) else {
                    continue;
                };
                if name.contains('/') {
                    names += 1;
                    assert!(!copy.to_string().contains(name), "{copy} of {path}");
                }
            }
            for pfn in ["/old_pfn", "/new_pfn", "/pfn"] {
                let frames = parsed.each_ref().map(|line| line.pointer(pfn).and_then(Value::as_str));
                assert_eq!(frames[0].is_some(), frames[1].is_some(), "{copy}");
                assert!(frames[0].is_none() || frames[0] != frames[1], "{copy}");
            }
        }
    }
    assert!(names > 0, "no name was compared");
}

#[test]
fn nothing_is_written_over_unless_asked_for() {
    let scratch = std::env::temp_dir().join(format!("tracer-golden-{}", std::process::id()));
    fs::create_dir(&scratch).unwrap();
    let (copy, link) = (scratch.join("copy"), scratch.join("link"));
    symlink(&copy, &link).unwrap();
    let (copy, link) = (copy.to_str().unwrap(), link.to_str().unwrap());
    let merge = |more: &[&str], from: &str, to: &str| {
        let output = tracer(&[&["merge", from, "-o", to], more].concat(), b"");
        (output.status.code(), words(&output.stderr))
    };
    let path = &recordings()[0];
    assert_eq!(merge(&[], path, copy).0, Some(0));
    assert_eq!(fs::metadata(copy).unwrap().permissions().mode() & 0o777, 0o600);
    for (more, from, to, hint) in [
        (&[][..], &path[..], copy, "--force"),
        (&["--force"], path, link, "symbolic link"),
    ] {
        let (code, said) = merge(more, from, to);
        assert!(code == Some(2) && said.contains(hint), "{said}");
    }
    // The output may also replace its own input, after all of that has been read.
    for from in [path, copy] {
        assert_eq!(merge(&["--force"], from, copy).0, Some(0));
        assert_eq!(shown(&["cat", copy], b""), shown(&["cat", path], b""));
    }
    fs::remove_dir_all(&scratch).unwrap();
}

/// A file of the rotation is full at about so many bytes.
const FULL: u64 = 1 << 12;
/// The rotated run took so long.
const DURATION: Nanos = Nanos(60_000_000_000);

/// Rotates the events of a golden recording, several times over, into files. Returns them as a shell sorts their names:
/// r.data, r.data.1, r.data.10, r.data.2.
fn rotated(scratch: &Path) -> Vec<String> {
    let limit = Limit { size: FULL, keep: 99 };
    let files = Files::create(&scratch.join("r.data"), false, Some(limit), Sync::Never).unwrap();
    let mut writer = Writer::new(files).unwrap();
    let original = fs::read(golden().join("v1/exact.data")).unwrap();
    let mut begun = false;
    for _ in 0..8 {
        let mut recording = RecordingFile::new(&original[..]).unwrap();
        while let Some(item) = recording.next_item().unwrap() {
            match item {
                Item::Begin(begin) if !begun => {
                    writer.begin(&begin.header).unwrap();
                    begun = true;
                }
                Item::Events => {
                    let mut events = recording.events();
                    while let Some(step) = events.next() {
                        if let Step::Event(event) = step {
                            writer.event(event).unwrap();
                        }
                    }
                }
                Item::Begin(_) | Item::Interval(_) | Item::End(_) | Item::Unknown | Item::Missing(_) => {}
            }
        }
    }
    let summary = Summary {
        duration: DURATION,
        ..Summary::default()
    };
    writer.finish(&summary).unwrap();
    let mut files: Vec<String> = fs::read_dir(scratch)
        .unwrap()
        .map(|file| file.unwrap().path().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    files
}

fn scratch(name: &str) -> PathBuf {
    let scratch = std::env::temp_dir().join(format!("tracer-{name}-{}", std::process::id()));
    fs::create_dir(&scratch).unwrap();
    scratch
}

fn lines(output: &Output) -> Vec<Value> {
    let text = words(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind(kind: &str, lines: &[Value]) -> u64 {
    lines.iter().filter(|line| line["kind"] == kind).count() as u64
}

#[test]
fn files_of_a_rotation_are_one_run_in_any_order() {
    let scratch = scratch("rotated");
    let files = rotated(&scratch);
    assert!(files.len() > 10, "{files:?}");
    let all: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut backwards = all.clone();
    backwards.reverse();

    let exported = lines(&tracer(&[&["export", "--format", "jsonl"], &all[..]].concat(), b""));
    let summary = exported.last().unwrap();
    assert_eq!(summary["kind"], "summary");
    assert_eq!(of_kind("summary", &exported), 1);
    assert_eq!(summary["events"], of_kind("move", &exported));
    assert_eq!(of_kind("move", &exported), 8 * 416);
    assert_eq!(summary["part"], Value::Null);
    assert_eq!(summary["duration_ns"], DURATION.0);
    for arguments in [
        &["cat", "--json"][..],
        &["report"],
        &["report", "--json"],
        &["info"],
        &["export", "--format", "csv"],
    ] {
        let [forth, back] = [&all, &backwards].map(|files| tracer(&[arguments, files].concat(), b""));
        assert!(forth.stdout == back.stdout, "{arguments:?}");
        assert_eq!(
            (forth.status.code(), back.status.code()),
            (Some(0), Some(0)),
            "{arguments:?}"
        );
    }
    let merged = tracer(&[&["merge", "-o", "-"], &all[..]].concat(), b"").stdout;
    assert!(lines(&tracer(&["cat", "--json", "-"], &merged)) == exported);
    fs::remove_dir_all(&scratch).unwrap();
}

#[test]
fn a_file_of_a_rotation_has_its_own_sums_and_says_which_period_is_here() {
    let scratch = scratch("part");
    rotated(&scratch);
    for (name, is_last) in [("r.data", true), ("r.data.2", false)] {
        let file = scratch.join(name);
        let file = file.to_str().unwrap();
        let exported = lines(&tracer(&["export", "--format", "jsonl", file], b""));
        let summary = exported.last().unwrap();
        assert_eq!(summary["kind"], "summary", "{name}");
        assert_eq!(summary["events"], of_kind("move", &exported), "{name}");
        assert_eq!(summary["part"]["files"].as_array().map(Vec::len), Some(1), "{summary}");
        assert_eq!(summary["duration_ns"].is_null(), !is_last, "{name}");
        for action in ["cat", "report"] {
            let shown = shown(&[action, file], b"");
            let says = if is_last {
                " of a run of 60 s; books and losses are those of the whole run"
            } else {
                " of a run whose end is not here"
            };
            assert!(shown.contains("HERE      part ") && shown.contains(says), "{shown}");
            assert!(!shown.contains(" moved in 60 s"), "{shown}");
        }
    }
    let both = ["r.data.2", "r.data"].map(|name| scratch.join(name).to_str().unwrap().to_owned());
    let [ninth, last] = both.each_ref().map(String::as_str);
    let info = shown(&["info", last, ninth], b"");
    assert!(info.starts_with("2 files: ") && !info.contains(" runs in "), "{info}");
    assert_eq!(
        (info.matches("machine ").count(), info.matches(" part ").count()),
        (1, 2),
        "{info}"
    );
    // A selection has no books. Its period is in that of the files.
    let selected = shown(&["report", "--since", "0.07", "--until", "0.1", last, ninth], b"");
    let here = ": 70 ms to 100 ms of a run of 60 s; losses are those of the whole run\n";
    assert!(selected.contains(here), "{selected}");
    // A file that was not joined is absent.
    let joined = scratch.join("joined.data");
    tracer(&["merge", "-o", joined.to_str().unwrap(), last, ninth], b"");
    let joined = shown(&["report", joined.to_str().unwrap()], b"");
    assert!(joined.contains("HERE      parts 9, 11 of a rotation: "), "{joined}");
    fs::remove_dir_all(&scratch).unwrap();
}

#[test]
fn what_damage_took_is_lost_in_every_sum() {
    let mut bytes = fs::read(golden().join("v1/exact.data")).unwrap();
    let events = |lines: &[Value]| lines.len() as u64 - of_kind("summary", lines) - of_kind("books", lines);
    let whole = events(&lines(&tracer(&["cat", "--json", "-"], &bytes)));
    // In the content of the first block of events, which follows two headers.
    let mut marks = (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"\xd7TR\x1a"));
    let block = marks.find(|at| bytes[at + 4] == 2).unwrap();
    bytes[block + 60] ^= 1;

    let shown = tracer(&["cat", "--json", "-"], &bytes);
    assert_eq!(shown.status.code(), Some(1));
    let left = lines(&shown);
    let lost = whole - events(&left);
    let summary = left.last().unwrap();
    assert!(lost > 0);
    assert_eq!(
        (&summary["damaged"]["events"], &summary["lost"]["events"]),
        (&lost.into(), &lost.into())
    );
    let report: Value = serde_json::from_str(&words(&tracer(&["report", "--json", "-"], &bytes).stdout)).unwrap();
    let recording = &report["recordings"][0];
    assert_eq!(
        (&recording["damaged"]["events"], &recording["lost_events"]),
        (&lost.into(), &lost.into())
    );
    let said = format!("{lost} events missing from the recording (");
    for action in ["cat", "report"] {
        let shown = tracer(&[action, "-"], &bytes);
        let text = words(&shown.stdout);
        assert_eq!(text.matches(&said).count(), 1, "{text}");
        assert!(text.contains(&format!(" · {lost} events lost\n")), "{text}");
        assert_eq!(shown.status.code(), Some(1));
    }
}

#[test]
fn cat_selects_what_report_selects() {
    let path = "v1/exact.data";
    let all = lines(&tracer(&["cat", "--json", path], b""));
    let owned = |line: &&Value| line["kind"] == "move" && line["pid"].is_u64();
    let owner = &all.iter().find(owned).unwrap()["pid"];
    let pid = owner.to_string();
    let selected = lines(&tracer(&["cat", "--json", "-p", &pid, path], b""));
    let (summary, rows) = selected.split_last().unwrap();
    let report: Value = serde_json::from_str(&shown(&["report", "--json", "-p", &pid, path], b"")).unwrap();
    let totals = &report["recordings"][0]["totals"];
    for key in ["events", "pages", "mappings", "reasons"] {
        assert_eq!(summary[key], totals[key], "{key}");
    }
    assert!(of_kind("move", rows) > 0);
    let others = rows.iter().filter(owned).filter(|line| line["pid"] != *owner);
    assert_eq!(others.count(), 0);
    // The books are those of all processes.
    assert_eq!((of_kind("books", rows), &summary["books"]), (0, &Value::Null));

    let between = lines(&tracer(
        &["cat", "--json", "--since", "0.5", "--until", "0.6", path],
        b"",
    ));
    assert!(between.len() < all.len());
    let twice = tracer(&["cat", path, "v1/tracepoint.data"], b"");
    assert_eq!(words(&twice.stdout).matches("\ncost ").count(), 2);
}

#[test]
fn a_value_that_does_not_exist_is_refused() {
    let path = "v1/exact.data";
    for action in ["cat", "report"] {
        let refused = tracer(&[action, "--where", "reason=numa", path], b"");
        assert_eq!(refused.status.code(), Some(2));
        let said = words(&refused.stderr);
        assert!(
            said.contains("no such reason; there are ") && said.contains("numa_misplaced"),
            "{said}"
        );
        let nothing = tracer(&[action, "--where", "comm=x", path], b"");
        assert_eq!(nothing.status.code(), Some(0));
        let said = words(&nothing.stderr);
        assert!(said.contains("nothing matches --where comm=x: 913 events"), "{said}");
        let shown = words(&nothing.stdout);
        assert!(shown.contains("no matching page moved · 0 events lost\n"), "{shown}");
    }
}
