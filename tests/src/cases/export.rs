//! Exports: their content, the messages about missing content, and that a file appears only when it is complete.
//! Input: tracer; the recordings of the workload `fleet`. `cargo xtask test` shows that other programs can read them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::case::{Case, Env, Needs, Outcome};
use crate::tracer::invocation::{SOON, run, tracer};
use crate::worker::Worker;

pub const CASES: &[Case] = &[
    Case {
        name: "export/everything",
        what: "jsonl equals the output of cat --json; a table reports the events that it leaves out, and all tables together leave out nothing",
        needs: Needs::NOTHING,
        run: everything,
    },
    Case {
        name: "export/files",
        what: "the file is for its owner alone, and complete or absent; it never replaces another and follows no link",
        needs: Needs::NOTHING,
        run: files,
    },
    Case {
        name: "export/damaged",
        what: "the intact parts of a damaged recording are exported, the rest is reported: exit code 1",
        needs: Needs::NOTHING,
        run: damaged,
    },
    Case {
        name: "export/pipe",
        what: "a reader that closes the pipe is no error",
        needs: Needs::NOTHING,
        run: pipe,
    },
];

/// The number of events of each kind in the recording of the first host.
const COUNTS: [(&str, usize); 4] = [
    ("moves", 20_000 / 100 * 97),
    ("unmapped", 200),
    // One of three failures has no owner, one has one, one has two. A failure without an owner still has a row.
    ("failures", 200 + 66),
    ("compactions", 200),
];

/// The three recordings.
fn fleet(env: &Env) -> Result<PathBuf> {
    let worker = Worker::spawn("fleet", &[&env.scratch.to_string_lossy()])?;
    ensure!(worker.wait(SOON)?.success(), "the recordings could not be written");
    Ok(env.scratch.join("db-1.data"))
}

fn everything(env: &Env) -> Result<Outcome> {
    let path = fleet(env)?;
    let path = path.to_string_lossy();
    let shown = run(tracer(env, &["cat", "--json", &path]))?;
    shown.ensure_code(0)?;
    let exported = run(tracer(env, &["export", "--format", "jsonl", &path]))?;
    exported.ensure_code(0)?;
    ensure!(exported.stdout == shown.stdout, "jsonl is not what cat --json prints");
    ensure!(exported.stderr.is_empty(), "{}", exported.stderr);

    for (kind, rows) in COUNTS {
        let exported = run(tracer(env, &["export", "--format", "csv", "--kind", kind, &path]))?;
        exported.ensure_code(0)?;
        ensure!(
            exported.stdout.lines().count() == rows + 1,
            "{kind}: not {rows} rows and a heading"
        );
        ensure!(!exported.stdout.contains('\u{1b}'), "{kind}: an escape sequence");
        let left_out = exported.stderr.trim_end();
        for (other, _) in COUNTS.iter().filter(|(other, _)| *other != kind) {
            ensure!(left_out.contains(other), "{kind}: {left_out:?} says nothing of {other}");
        }
        ensure!(
            !left_out.contains(kind) && left_out.lines().count() == 1,
            "{kind}: {left_out}"
        );
    }

    let folded = run(tracer(
        env,
        &["export", "--format", "folded", "--by", "comm,reason", &path],
    ))?;
    folded.ensure_code(0)?;
    let mut pages = 0;
    for line in folded.stdout.lines() {
        let (stack, count) = line.rsplit_once(' ').context("a line without a count")?;
        ensure!(stack.matches(';').count() == 1, "not two frames: {line}");
        pages += count.parse::<u64>().with_context(|| line.to_owned())?;
    }
    let moved = shown.stdout.lines().last().context("no summary")?;
    ensure!(
        moved.contains(&format!(r#""mappings":{pages},"#)),
        "{pages} pages: {moved}"
    );
    Ok(Outcome::Passed)
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn files(env: &Env) -> Result<Outcome> {
    let path = fleet(env)?;
    let path = path.to_string_lossy();
    let dir = env.scratch.join("out");
    fs::create_dir(&dir).context("create a directory")?;
    for format in ["jsonl", "csv", "parquet", "folded", "perfetto"] {
        let out = dir.join(format);
        let out_name = out.to_string_lossy();
        let export = |more: &[&str]| {
            run(tracer(
                env,
                &[&["export", "--format", format, "-o", &out_name, &path], more].concat(),
            ))
        };
        export(&[])?.ensure_code(0)?;
        let mode = fs::metadata(&out).context("look at the export")?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{format}: {mode:o}");
        let refused = export(&[])?;
        ensure!(
            refused.status.code() == Some(2) && refused.stderr.contains("--force"),
            "{refused:?}"
        );
        export(&["--force"])?.ensure_code(0)?;
        fs::remove_file(&out).context("remove the export")?;
        symlink(dir.join("elsewhere"), &out).context("make a link")?;
        for more in [&[][..], &["--force"]] {
            let refused = export(more)?;
            ensure!(
                refused.status.code() == Some(2) && refused.stderr.contains("symbolic link"),
                "{refused:?}"
            );
        }
        fs::remove_file(&out).context("remove the link")?;
        // The export breaks off: no file is left that looks like an export.
        let nothing = run(tracer(
            env,
            &["export", "--format", format, "-o", &out_name, &path, "/nowhere"],
        ))?;
        ensure!(nothing.status.code() == Some(2), "{nothing:?}");
        let full = run(tracer(env, &["export", "--format", format, "-o", "/dev/full", &path]))?;
        ensure!(
            full.status.code() == Some(2) && full.stderr.contains("/dev/full"),
            "{full:?}"
        );
        ensure!(names(&dir)?.is_empty(), "{:?}", names(&dir)?);
    }
    Ok(Outcome::Passed)
}

fn damaged(env: &Env) -> Result<Outcome> {
    let mut bytes = fs::read(fleet(env)?).context("read a recording")?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // The file holds two runs.
    bytes.extend(fs::read(env.scratch.join("db-2.data")).context("read a recording")?);
    let path = env.scratch.join("damaged.data");
    fs::write(&path, bytes).context("write a damaged recording")?;
    let set = env.scratch.join("set");
    let (path, out) = (path.to_string_lossy(), set.to_string_lossy());
    let args = ["export", "--format", "csv", "--partition", "-o", &out, &path];
    let exported = run(tracer(env, &args))?;
    let told = exported.stderr.contains(&*path) && exported.stderr.contains("20,000 events");
    ensure!(exported.status.code() == Some(1), "{exported:?}");
    // The recording runs from ten seconds before midnight to thirty after it.
    ensure!(
        names(&set)? == ["date=2026-03-01", "date=2026-03-02"],
        "{:?}",
        names(&set)?
    );
    let mut rows = 0;
    for date in names(&set)? {
        ensure!(names(&set.join(&date))? == ["host=db-2"], "{date}");
        for part in names(&set.join(&date).join("host=db-2"))? {
            let text = fs::read_to_string(set.join(&date).join("host=db-2").join(part)).context("read a part")?;
            rows += text.lines().count() - 1;
        }
    }
    ensure!(rows == 40_000 / 100 * 97 && told, "{rows} rows: {}", exported.stderr);
    Ok(Outcome::Passed)
}

fn pipe(env: &Env) -> Result<Outcome> {
    let path = fleet(env)?;
    let path = path.to_string_lossy();
    for format in ["jsonl", "csv", "parquet", "folded", "perfetto"] {
        let mut child = tracer(env, &["export", "--format", format, &path])
            .spawn()
            .context("start tracer export")?;
        let mut stdout = BufReader::with_capacity(64, child.stdout.take().context("a piped stdout")?);
        ensure!(
            !stdout.fill_buf().context("read the export")?.is_empty(),
            "{format}: nothing came"
        );
        drop(stdout);
        let ended = child.wait_with_output().context("wait for tracer")?;
        let stderr = String::from_utf8_lossy(&ended.stderr);
        ensure!(
            ended.status.success() && !stderr.contains("cannot"),
            "{format}: {} {stderr}",
            ended.status
        );
    }
    Ok(Outcome::Passed)
}
