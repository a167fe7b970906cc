//! `tracer merge`: joins recordings into one.
//! Input: the parsed command line; recordings.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
};

use anyhow::Context as _;

use crate::{
    cli::{error::Refused, inputs, recorded},
    output::Draft,
    recording::{
        blocks::Blocks,
        files::Files,
        merge::{self, MergeError, Note, Piece},
        redact::Key,
    },
    words::quantity::{Bytes, Counted},
};

const EXAMPLES: &str = "\
Examples:
  tracer merge -o day.data a.data b.data          one file, run behind run, the earliest first
  tracer merge -o day.data tracer.data*           the files of a run that was rotated, as one run
  tracer merge --redact -o public.data tracer.data
                                                  a copy for others

--redact: frames get stand-ins, which keep equal frames equal, neighbours within 2 MiB neighbours, and
the node the same. Files, devices, inodes and names of memory get stand-ins, too; the command line
is left out. Names and numbers of processes, addresses, times, and the name of the machine remain.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recordings in any order; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// The file to write; - is standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,

    /// Write stand-ins for frames and for everything that names files
    #[arg(long)]
    pub redact: bool,
}

/// Runs `tracer merge`. The exit code is 1 if something is missing from a recording.
///
/// # Errors
/// When a recording cannot be read, or the output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Refused("a recording cannot be shown on a terminal: use a file or a pipe".to_owned()).into());
    }
    let draft = if to_stdout {
        None
    } else {
        Some(Draft::create(&args.output, args.force)?)
    };
    let creates_in = draft.as_ref().and_then(|draft| draft.path().parent());
    let inputs = inputs::open_to_seek(&args.files, creates_in)?;
    let mut recordings: Vec<File> = inputs.into_iter().map(|input| input.file).collect();
    let mut whole = true;
    let mut pieces = Vec::new();
    for ((number, path), recording) in args.files.iter().enumerate().zip(&mut recordings) {
        let missing = |missing: &_| {
            whole = false;
            recorded::complain(path, missing);
        };
        pieces.extend(
            merge::survey(recording, number, args.redact, missing)
                .map_err(|error| recorded::unreadable(path, error))?,
        );
    }
    let runs = merge::arrange(pieces, |note| {
        // A piece that is skipped loses nothing if the other file has all of it.
        whole &= matches!(&note, Note::Twice(piece, taken) if piece.parts().1 <= taken.parts().1);
        tell(args, &note);
    });
    if runs.is_empty() {
        return Err(Refused("there is nothing to join: no recording has an undamaged block".to_owned()).into());
    }
    let key = if args.redact {
        Some(Key::new().context("cannot make stand-ins")?)
    } else {
        None
    };
    let files = match &draft {
        Some(draft) => Files::draft(draft)?,
        None => Files::stdout()?,
    };
    let total = files.total();
    let mut out = Blocks::new(files)?;
    let written = runs
        .iter()
        .try_for_each(|run| {
            let complete = merge::write(run, &mut recordings, key.as_ref(), &mut out)?;
            if !complete {
                let _ = writeln!(
                    io::stderr(),
                    "tracer: blocks of an unknown kind are left out: they cannot be redacted"
                );
            }
            whole &= complete;
            Ok(())
        })
        .and_then(|()| out.done().map_err(MergeError::Write));
    match written {
        Err(MergeError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        Err(MergeError::Write(error)) => return Err(error.into()),
        Err(MergeError::Read(number, error)) => {
            let path = args.files.get(number).map_or(Path::new("-"), PathBuf::as_path);
            return Err(recorded::unreadable(path, error));
        }
        Ok(()) => {}
    }
    if let Some(draft) = draft {
        draft.publish()?;
    }
    let _ = writeln!(
        io::stderr(),
        "tracer: {} of {}, {}",
        Counted(runs.len() as u64, "run"),
        Counted(args.files.len() as u64, "file"),
        Bytes(total.load(Ordering::Relaxed))
    );
    Ok(ExitCode::from(u8::from(!whole)))
}

fn tell(args: &Args, note: &Note) {
    let name = |piece: &Piece| {
        let path = args.files.get(piece.recording);
        path.map_or_else(String::new, |path| inputs::name(path))
    };
    let parts = |piece: &Piece| match piece.parts() {
        (first, last) if first == last => format!("part {}", u64::from(first) + 1),
        (first, last) => format!("parts {} to {}", u64::from(first) + 1, u64::from(last) + 1),
    };
    let text = match note {
        Note::Twice(piece, taken) if parts(piece) == parts(taken) => {
            format!(
                "{}: left out: {} has the same part of the run",
                name(piece),
                name(taken)
            )
        }
        Note::Twice(piece, taken) => format!(
            "{}: left out: {} of a run, of which {} has {}",
            name(piece),
            parts(piece),
            name(taken),
            parts(taken)
        ),
        Note::Between(before, after) => format!(
            "between {} ({} of a run) and {} ({}) files of the run are missing",
            name(before),
            parts(before),
            name(after),
            parts(after)
        ),
    };
    let _ = writeln!(io::stderr(), "tracer: {text}");
}
