//! Input that tracer cannot read, and names that it reads but must not repeat unchanged.
//! Input: files that are no recordings; a recording in which every name is hostile.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::case::{Case, Env, Needs, Outcome};
use crate::product::{
    Cause, Compaction, Device, Event, FailedPlace, Failure, FilePlace, Files, HEADER, Header, MissingHook, Move, Nanos,
    NodeId, Order, OwnerSource, Perms, Pfn, Reason, Summary, Sync, Task, Tgid, Tid, UnmappedMove, Verdict, VirtAddr,
    Vma, Writer, renumber,
};
use crate::tracer::invocation::{Ended, Program, ensure_harmless, run, tracer};

pub const CASES: &[Case] = &[
    Case {
        name: "inputs/refused",
        what: "a directory, a fifo, an empty file, a later version: one line that names it, exit code 2, nothing on stdout",
        needs: Needs::NOTHING,
        run: refused,
    },
    Case {
        name: "inputs/hostile_names",
        what: "no output has a control character of a name, in a recording where every name has several",
        needs: Needs::NOTHING,
        run: hostile_names,
    },
];

/// Every command that reads recordings. The recording is the last argument.
const READERS: [&[&str]; 8] = [
    &["cat"],
    &["cat", "--json"],
    &["info"],
    &["report"],
    &["export", "--format", "jsonl"],
    &["export", "--format", "csv"],
    &["export", "--format", "parquet"],
    &["merge", "-o", "-"],
];

fn refused(env: &Env) -> Result<Outcome> {
    let recording = hostile(env)?;
    let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = env.scratch.join(name);
        fs::write(&path, bytes).with_context(|| format!("write {name}"))?;
        Ok(path)
    };
    let mut newer = fs::read(&recording).context("read the recording")?;
    newer[6] = 9;
    renumber(&mut newer[..HEADER], 0);
    let folder = env.scratch.join("folder");
    fs::create_dir(&folder).context("create a directory")?;
    let inputs = [
        (folder, "is a directory, not a recording"),
        (file("empty", b"")?, "is empty: not a recording"),
        (file("other", b"PERFILE2")?, "is not a recording"),
        (file("zeros", &vec![0; 1 << 20])?, "not a recording"),
        (file("newer", &newer)?, "version 9 of the format"),
        (env.scratch.join("nowhere"), "No such file"),
        (PathBuf::from("/dev/null"), "is empty: not a recording"),
        (
            PathBuf::from("/proc/self/mem"),
            "cannot read /proc/self/mem: Input/output error",
        ),
    ];
    for (input, says) in &inputs {
        for reader in READERS {
            ensure_refused(&read(env, reader, input)?, input, says).with_context(|| format!("{reader:?}"))?;
        }
    }
    let fifo = env.scratch.join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("make a fifo")?;
    for (bytes, says) in [
        (&b""[..], "is empty: not a recording"),
        (b"PERFILE2", "is not a recording"),
    ] {
        for reader in READERS {
            let program = Program::start(tracer(env, &words(reader, &fifo)))?;
            let mut writer = File::options().write(true).open(&fifo).context("open the fifo")?;
            writer.write_all(bytes).context("write to the fifo")?;
            drop(writer);
            ensure_refused(&program.wait()?, &fifo, says).with_context(|| format!("{reader:?}"))?;
        }
    }
    // The content is refused, not the kind of file.
    let program = Program::start(tracer(env, &words(&["cat"], &fifo)))?;
    let (from, to) = (recording.clone(), fifo.clone());
    let copying = thread::spawn(move || fs::copy(from, to));
    program.wait()?.ensure_code(0)?;
    ensure!(
        copying.join().is_ok_and(|copied| copied.is_ok()),
        "the fifo took not all"
    );
    Ok(Outcome::Passed)
}

fn words<'a>(reader: &[&'a str], input: &'a Path) -> Vec<&'a str> {
    [reader, &[input.to_str().unwrap_or_default()]].concat()
}

fn read(env: &Env, reader: &[&str], input: &Path) -> Result<Ended> {
    run(tracer(env, &words(reader, input)))
}

fn ensure_refused(ended: &Ended, input: &Path, says: &str) -> Result<()> {
    ended.ensure_refused(&[says, &input.to_string_lossy()])?;
    ensure!(ended.stderr.lines().count() == 1, "not one line: {}", ended.stderr);
    Ok(())
}

/// Characters that end a line, a field or a string; that move the cursor, in seven bits and in eight; that are not
/// ASCII.
const HOSTILE: &str = "h\u{1b}]0;x\u{7}\r\n\t\"';, \\\u{8}\u{7f}\u{9b}31m\u{202e}ß";

/// A recording with a header and one event of each kind, all with hostile names.
fn hostile(env: &Env) -> Result<PathBuf> {
    let path = env.scratch.join("hostile.data");
    let name = || HOSTILE.to_owned();
    let header = Header {
        version: name(),
        host: name(),
        boot_id: name(),
        kernel: name(),
        nodes: 2,
        command_line: vec![name()],
        fallbacks: vec![name()],
        refused: vec![MissingHook {
            hook: name(),
            reason: name(),
            loses: name(),
        }],
        targets: name(),
        ..Header::unknown()
    };
    let mut sink = Writer::new(Files::create(&path, true, None, Sync::Never)?)?;
    sink.begin(&header)?;
    for event in events() {
        sink.event(&event)?;
    }
    sink.finish(&Summary::default())?;
    Ok(path)
}

fn events() -> [Event; 4] {
    let name = || Arc::<str>::from(HOSTILE);
    let (at, order, cpu) = (Nanos(1000), Order(0), 0);
    let task = Task {
        tgid: Tgid(7),
        tid: Tid(7),
        comm: Some(name()),
    };
    let reason = Reason {
        number: 77,
        name: Some(name()),
    };
    let vma = Some(Arc::new(Vma {
        start: VirtAddr(0x1000),
        end: VirtAddr(0x9000),
        perms: Perms::from_bytes(b"rw-p").expect("four letters of maps"),
        offset: 0,
        dev: (8, 1),
        inode: 9,
        name: name(),
    }));
    let (old_node, new_node) = (Some(NodeId(0)), Some(NodeId(1)));
    [
        Event::Move(Move {
            at,
            owner: Some(task.clone()),
            owner_source: OwnerSource::Kernel,
            vaddr: VirtAddr(0x2000),
            pages: 1,
            order,
            old_pfn: Some(Pfn(5)),
            new_pfn: Some(Pfn(6)),
            old_node,
            new_node,
            reason: Some(reason.clone()),
            actor: Some(task.clone()),
            blackout: Some(Nanos(9)),
            vma: vma.clone(),
            verdict: Verdict::Confirmed,
            flags: None,
            map_count: Some(1),
            ambiguous: false,
            nth: None,
            cpu,
        }),
        Event::Unmapped(UnmappedMove {
            at,
            order,
            old_pfn: Some(Pfn(5)),
            new_pfn: Some(Pfn(6)),
            old_node,
            new_node,
            reason: reason.clone(),
            actor: task.clone(),
            file: Some(FilePlace {
                dev: Device(8 << 20 | 1),
                inode: 9,
                offset: 0,
                name: Some(name()),
            }),
            cpu,
        }),
        Event::Failure(Failure {
            at,
            order,
            pfn: Some(Pfn(5)),
            node: old_node,
            reason,
            actor: task.clone(),
            mode: name(),
            cause: Cause::Locked,
            inferred: true,
            errno: None,
            attempts: 0,
            refs: None,
            map_count: None,
            flags: name(),
            places: vec![FailedPlace {
                owner: task.clone(),
                vaddr: VirtAddr(0x2000),
                vma,
                inferred: true,
            }],
            cpu,
        }),
        Event::Compaction(Compaction {
            at,
            duration: Nanos(9),
            actor: task,
            order: None,
            node: old_node,
            zone: name(),
            direct: true,
            sync: true,
            proactive: false,
            result: name(),
            moved: 1,
            failed: 1,
            cpu,
        }),
    ]
}

/// Every output that is text, with the number of its lines. None: the number depends on other parts of the output.
const OUTPUTS: [(&[&str], Option<usize>); 15] = [
    (&["cat"], None),
    // There are four events and the summary.
    (&["cat", "--json"], Some(4 + 1)),
    (&["report"], None),
    (&["report", "--json"], None),
    (&["report", "--by", "process,vma,actor,reason"], None),
    (&["report", "--by", "host,comm,nodes,order"], None),
    (&["info"], None),
    (&["info", "--json"], Some(1)),
    (&["export", "--format", "jsonl"], Some(4 + 1)),
    (&["export", "--format", "csv", "--kind", "moves"], Some(2)),
    (&["export", "--format", "csv", "--kind", "unmapped"], Some(2)),
    (&["export", "--format", "csv", "--kind", "failures"], Some(2)),
    (&["export", "--format", "csv", "--kind", "compactions"], Some(2)),
    (
        &["export", "--format", "folded", "--by", "comm,vma,reason,actor"],
        Some(1),
    ),
    (&["export", "--format", "folded", "--by", "host,process"], Some(1)),
];

fn hostile_names(env: &Env) -> Result<Outcome> {
    let path = hostile(env)?;
    for (output, lines) in OUTPUTS {
        let shown = read(env, output, &path)?;
        shown.ensure_code(0).with_context(|| format!("{output:?}"))?;
        for text in [&shown.stdout, &shown.stderr] {
            ensure_harmless(text).with_context(|| format!("{output:?}"))?;
        }
        ensure!(shown.stdout.contains('ß'), "{output:?} has no name: nothing is proven");
        let count = shown.stdout.lines().count();
        ensure!(
            lines.is_none_or(|lines| lines == count),
            "{output:?}: {count} lines: {}",
            shown.stdout
        );
        if output.contains(&"--json") || output.contains(&"jsonl") {
            let names = shown.stdout.lines().map(hostile_values).sum::<Result<usize>>()?;
            ensure!(names > 0, "{output:?}: no name is what it was: {}", shown.stdout);
        }
    }
    // The names of files that cannot be read are not repeated unchanged, either.
    let name = env.scratch.join(format!("no{}.data", HOSTILE.replace('/', "")));
    for reader in READERS {
        let ended = read(env, reader, &name)?;
        ended
            .ensure_refused(&["No such file"])
            .with_context(|| format!("{reader:?}"))?;
    }
    Ok(Outcome::Passed)
}

/// The number of strings in a line of JSON that are the unchanged name: output for programs keeps names as they are.
fn hostile_values(line: &str) -> Result<usize> {
    fn count(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::String(text) => usize::from(text == HOSTILE),
            serde_json::Value::Array(values) => values.iter().map(count).sum(),
            serde_json::Value::Object(object) => object.values().map(count).sum(),
            _ => 0,
        }
    }
    Ok(count(&serde_json::from_str(line).with_context(|| line.to_owned())?))
}
