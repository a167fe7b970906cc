//! Names that somebody else chose, made harmless: no control character reaches a terminal.
//! Input: comm, VMA names, paths.

use std::fmt::{self, Write as _};

/// Displays a name with its control and direction-changing characters escaped (`\x1b`, `\u{202e}`).
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                // C1 controls, line and paragraph separators, bidirectional marks, overrides and isolates, BOM, tags,
                // and what else takes no room on the screen.
                '\u{80}'..='\u{9f}'
                | '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}' => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
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
}
