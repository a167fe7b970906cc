//! Escapes names that come from outside: no control character reaches a terminal.
//! Input: comm, VMA names, paths.

use std::{
    fmt::{self, Write as _},
    io,
};

use serde::Serialize;

/// Displays a name with its control and direction-changing characters escaped (`\x1b`, `\u{202e}`).
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c if is_unseen(c) => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// C1 controls, line and paragraph separators, bidirectional marks, overrides and isolates, BOM, tags, and other
/// characters that take no room on the screen.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{80}'..='\u{9f}'
        | '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}'
    )
}

/// Writes a value as JSON on one line. Its names are as harmless as [`Printable`] ones: invisible characters are
/// written as `\u202e`, which a reader decodes.
///
/// # Errors
/// When the writer fails.
pub fn json(writer: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(writer, Harmless))
}

/// The same as text, with a line end.
#[must_use]
pub fn json_text(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    // Neither the values nor a vector can fail.
    let _ = json(&mut out, value);
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

struct Harmless;

impl serde_json::ser::Formatter for Harmless {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // serde_json escapes all control characters that JSON does not allow; JSON allows DEL.
        if fragment.is_ascii() && !fragment.as_bytes().contains(&0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        let is_harmful = |c: char| c == '\x7f' || is_unseen(c);
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_harmful(*c)) {
            writer.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_escape_sequence_survives() {
        assert_eq!(
            Printable("a\x1b[31mb\u{9b}c\u{202e}d\\").to_string(),
            "a\\x1b[31mb\\u{9b}c\\u{202e}d\\\\"
        );
        assert_eq!(
            Printable("a\u{61c}b\u{ad}c\u{e0041}").to_string(),
            "a\\u{61c}b\\u{ad}c\\u{e0041}"
        );
        assert_eq!(Printable("[heap] größer").to_string(), "[heap] größer");
    }

    #[test]
    fn json_means_the_same() {
        let name = "a\u{9b}31m\u{202e}\x1b\x7f\u{e0041} größer\\";
        let mut out = Vec::new();
        json(&mut out, &name).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, r#""a\u009b31m\u202e\u001b\u007f\udb40\udc41 größer\\""#);
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), name);
    }
}
