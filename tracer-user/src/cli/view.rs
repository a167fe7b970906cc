//! The presentation of events on standard output.
//! Input: words of the command line; the terminal.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write as _},
};

use clap::ValueEnum;
use rustix::termios::tcgetwinsize;

use crate::{
    output::Output,
    render::text,
    run::ending::Ending,
    section::Section,
    sink::{
        Sink,
        json::JsonLines,
        text::{Terminal, Text},
    },
};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Print one JSON object a line instead of rows. The output of a COMMAND is mixed in, unless it is redirected:
    /// -- sh -c 'cmd >&2'
    #[arg(long)]
    pub json: bool,

    /// One row per mapping that moved: do not fold neighbouring pages, and all processes that map them (+N), into one row
    #[arg(long, conflicts_with = "json")]
    pub each: bool,

    /// Colours: auto uses them on a terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Args {
    /// The sink that writes to standard output in the selected form; `ending` is that of a live run.
    ///
    /// # Errors
    /// As [`stdout`].
    pub fn sink(&self, ending: Option<&Ending>) -> io::Result<Box<dyn Sink>> {
        let out = stdout(ending)?;
        if self.json {
            return Ok(Box::new(JsonLines::new(out)));
        }
        let choice = match self.color {
            Color::Auto => anstream::AutoStream::choice(&io::stdout()),
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        let writer = anstream::AutoStream::new(Box::new(out) as Box<dyn io::Write>, choice);
        Ok(Box::new(Text::new(writer, !self.each, terminal())))
    }
}

/// Standard output, buffered for many small writes. With the `ending` of a live run, it does not wait for long for its
/// reader once the run is to end.
///
/// # Errors
/// When there are too many open files.
pub fn stdout(ending: Option<&Ending>) -> io::Result<BufWriter<Stdout>> {
    // Not `io::Stdout`, which has a buffer of its own.
    let out = Output::new(File::from(rustix::io::dup(rustix::stdio::stdout())?));
    let out = match ending {
        Some(ending) => out.heeding(ending),
        None => out,
    };
    Ok(BufWriter::with_capacity(1 << 16, Stdout(out)))
}

/// Prints a complete answer. It is no error if the reader is gone.
pub fn print(text: &str) -> anyhow::Result<()> {
    print_with(|out| out.write_all(text.as_bytes()))
}

/// Prints a complete answer that may be too long for one text. It is no error if the reader is gone.
pub fn print_with(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> anyhow::Result<()> {
    ended(stdout(None).and_then(|mut out| write(&mut out).and_then(|()| out.flush())))
}

/// Prints a complete answer for people. It is no error if the reader is gone.
pub fn print_sections(sections: &[Section]) -> anyhow::Result<()> {
    let choice = anstream::AutoStream::choice(&io::stdout());
    ended(stdout(None).and_then(|out| {
        let mut out = anstream::AutoStream::new(Box::new(out) as Box<dyn io::Write>, choice);
        text::write(&mut out, sections).and_then(|()| out.flush())
    }))
}

/// Ignores the error that the reader of the output is gone.
fn ended(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Columns of the terminal on standard output; None if there is none.
pub fn columns() -> Option<usize> {
    terminal().map(|terminal| terminal.columns)
}

/// The terminal on stdout; None if there is none.
fn terminal() -> Option<Terminal> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(io::stdout()).ok()?;
    // A terminal that does not know its size reports 0.
    (size.ws_col > 0).then_some(Terminal {
        columns: size.ws_col.into(),
        lines: size.ws_row.into(),
    })
}

/// Standard output; its errors name it.
pub struct Stdout(Output);

impl io::Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(on_stdout)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn on_stdout(error: io::Error) -> io::Error {
    match error.kind() {
        // The caller repeats the system call; `write_all` does.
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("cannot write to standard output: {error}")),
    }
}
