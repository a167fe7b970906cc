//! Sections as text: tables under their headings, sentences behind their labels, tones as colours.
//! Input: sections; output: any writer, which strips the colours where there is no terminal.

mod lines;
mod table;

use std::io::{self, Write};

use crate::{
    section::{Note, Section},
    words::sentence,
};
use lines::line;

pub use lines::{HEADING, style};

/// Columns of a label, including the space behind it.
const LABEL: usize = 10;

/// Writes sections one below the other.
///
/// # Errors
/// The errors of `out`.
pub fn write(out: &mut dyn Write, sections: &[Section]) -> io::Result<()> {
    sections.iter().try_for_each(|section| self::section(out, section))
}

/// The sections as text without colours.
#[must_use]
pub fn plain(sections: &[Section]) -> String {
    let mut styled = Vec::new();
    // Writing to a vector cannot fail.
    let _ = write(&mut styled, sections);
    String::from_utf8_lossy(&anstream::adapter::strip_bytes(&styled).into_vec()).into_owned()
}

fn section(out: &mut dyn Write, section: &Section) -> io::Result<()> {
    if section.apart {
        writeln!(out)?;
    }
    if !section.title.is_empty() {
        line(out, HEADING, &format!("== {}", sentence(&section.title)))?;
    }
    table::write(out, section)?;
    section.notes.iter().try_for_each(|note| self::note(out, note))
}

/// Writes a note on its line.
///
/// # Errors
/// The errors of `out`.
pub fn note(out: &mut dyn Write, note: &Note) -> io::Result<()> {
    let text = sentence(&note.words);
    let text = match note.label {
        Some(label) => format!("{label:<0$} {text}", LABEL - 1),
        None => text,
    };
    line(out, style(note.tone), &text)
}

#[cfg(test)]
mod tests {
    use super::{lines::wrap, *};
    use crate::{
        cells,
        event::Residence,
        section::{Cell, Column, Row, Tone},
        units::{Nanos, NodeId, Tgid},
    };

    fn made_up() -> Section {
        let columns = vec![
            Column::name().key("process").heading("PROCESS"),
            Column::count().key("pages").heading("PAGES"),
            Column::count().key("nodes").heading(""),
            Column::duration().key("wait_ns").heading("WAITED"),
            Column::name().key("secret"),
            Column::name().heading("WHY").most(12),
        ];
        let pair = |old, new| (Residence::Node(NodeId(old)), Residence::Node(NodeId(new)));
        let mut section = Section::table("made_up", columns);
        section.row(cells![
            Cell::Process(Tgid(7), Some("a\x1b[31m\n".into())),
            1234,
            Cell::ByNodes(vec![(pair(0, 1), 7), (pair(1, 0), 8)]),
            Nanos(1500),
            "not for people",
            "because of this and of that"
        ]);
        section.rows.push(Row {
            cells: cells![
                Cell::Unknown,
                1,
                Cell::ByNodes(vec![(pair(0, 1), 9)]),
                Cell::None,
                "",
                "no"
            ],
            tone: Tone::Alarm,
            notes: vec![Note::about(
                "do:",
                cells!["nothing about ", Cell::Counted(1, "page", "pages")],
            )],
        });
        section.notes.push(Note::alarm("LOST", cells![2, " rows"]));
        section.notes.push(Note::more(cells!["of them ", Cell::Share(1, 8)]));
        section
    }

    #[test]
    fn tables_and_sentences() {
        let end = Section::notes(vec![Note::plain(cells!["the end"])]);
        insta::assert_snapshot!(plain(&[made_up(), end]));
    }

    #[test]
    fn tones_are_colours() {
        let mut out = Vec::new();
        write(&mut out, &[made_up()]).unwrap();
        let text = String::from_utf8(out).unwrap();
        for (begin, tone) in [
            ("unknown", Tone::Alarm),
            ("LOST", Tone::Alarm),
            ("of them", Tone::Normal),
        ] {
            let style = style(tone);
            let line = text.lines().find(|line| line.contains(begin)).unwrap();
            assert!(
                line.starts_with(&style.to_string()) && line.ends_with(&format!("{style:#}")),
                "{line:?}"
            );
        }
        assert!(text.contains(&format!("{HEADING}PROCESS")), "{text:?}");
    }

    #[test]
    fn long_sentences_wrap_at_spaces() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("unbreakable a", 4), ["unbreakable", "a"]);
        assert!(wrap("", 4).is_empty());
    }
}
