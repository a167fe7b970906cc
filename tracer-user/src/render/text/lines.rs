//! Lines of text: their styles, and the breaking of long sentences.
//! Input: text and tones; output: any writer.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::{
    section::{Note, Tone},
    words::sentence,
};

/// The style of headings.
pub const HEADING: Style = Style::new().bold();

/// Columns of a line of sentences about a row.
const LINE: usize = 100;

/// The style of a tone.
#[must_use]
pub fn style(tone: Tone) -> Style {
    match tone {
        Tone::Normal => Style::new(),
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Warning => AnsiColor::Yellow.on_default(),
        Tone::Alarm => AnsiColor::Red.on_default().bold(),
        Tone::Dim => Style::new().dimmed(),
    }
}

/// Writes sentences about a row, each behind its label, broken into lines that begin at `indent`.
pub fn row_notes(out: &mut dyn Write, indent: usize, notes: &[Note]) -> io::Result<()> {
    for note in notes {
        let label = note.label.map_or_else(String::new, |label| format!("{label} "));
        let width = label.chars().count();
        let mut label = label.as_str();
        for text in wrap(&sentence(&note.words), LINE.saturating_sub(indent + width)) {
            line(out, style(note.tone), &format!("{:indent$}{label:width$}{text}", ""))?;
            label = "";
        }
    }
    Ok(())
}

/// Writes a line in a style.
///
/// # Errors
/// The errors of `out`.
pub fn line(out: &mut dyn Write, style: Style, text: &str) -> io::Result<()> {
    writeln!(out, "{style}{}{style:#}", text.trim_end())
}

/// Breaks a sentence at spaces into lines of at most `width` characters; a longer word stays whole.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
