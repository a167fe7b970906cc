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
