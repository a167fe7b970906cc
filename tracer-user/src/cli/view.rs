//! The presentation of events on standard output.
//! Input: words of the command line; the terminal.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use clap::ValueEnum;
use rustix::termios::tcgetwinsize;

use crate::{
    render::text,
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
    /// The sink that writes to standard output in the selected form.
    pub fn sink(&self) -> Box<dyn Sink> {
        if self.json {
            return Box::new(JsonLines::new(stdout()));
        }
        let choice = match self.color {
            Color::Auto => anstream::AutoStream::choice(&io::stdout()),
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        };
        let writer = anstream::AutoStream::new(io::stdout(), choice);
        Box::new(Text::new(buffered(writer), !self.each, terminal()))
    }
}

/// Standard output, buffered for many small writes.
pub fn stdout() -> BufWriter<Output<io::Stdout>> {
    buffered(io::stdout())
}

/// Prints a complete answer. It is no error if the reader is gone.
pub fn print(text: &str) -> anyhow::Result<()> {
    ended(Output(io::stdout()).write_all(text.as_bytes()))
}

/// Prints a complete answer for people. It is no error if the reader is gone.
pub fn print_sections(sections: &[Section]) -> anyhow::Result<()> {
    let choice = anstream::AutoStream::choice(&io::stdout());
    let mut out = buffered(anstream::AutoStream::new(io::stdout(), choice));
    ended(text::write(&mut out, sections).and_then(|()| out.flush()))
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

fn buffered<W: io::Write>(writer: W) -> BufWriter<Output<W>> {
    BufWriter::with_capacity(1 << 16, Output(writer))
}

/// Standard output; its errors name it.
pub struct Output<W>(W);

impl<W: io::Write> io::Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(on_stdout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(on_stdout)
    }
}

fn on_stdout(error: io::Error) -> io::Error {
    match error.kind() {
        // The caller repeats the system call; `write_all` does.
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("cannot write to standard output: {error}")),
    }
}
