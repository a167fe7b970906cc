//! Rows of live events, one topic per file, and the layout of their columns.
//! Input: events; output: text for a terminal or a pipe.

pub mod compaction;
pub mod failure;
pub mod moved;
pub mod unmapped;

use std::borrow::Cow;

use crate::{
    escape::Printable,
    event::{Reason, Residence, Task},
    proc::maps::Vma,
    words::{cpuset, numbered},
};

/// Columns of PROCESS: a name of 15 bytes and a number of 7 digits.
const PROCESS: usize = 24;

/// WHERE gets at least this number of columns, even on a terminal too narrow for them.
const LEAST_WHERE: usize = 12;

/// Stands before each line that continues a row.
const INDENT: &str = "  ";

/// Stands in a column that does not apply.
const NONE: &str = "-";

/// The layout of rows: one line for everything or, on a terminal that is too narrow for it, a line for owner and reason
/// and a line for the page. Notes that do not fit beside the columns get lines of their own. Only WHERE is shortened to
/// fit, and loses its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    width: Option<usize>,
    node: bool,
    two_lines: bool,
}

impl Layout {
    /// Fits a terminal of `width` columns on a machine with this number of NUMA nodes. Without a width, rows are as
    /// wide as they need.
    #[must_use]
    pub fn new(width: Option<usize>, nodes: usize) -> Self {
        let layout = Self {
            width,
            node: width.is_none() || nodes > 1,
            two_lines: false,
        };
        let needed = width_of(&layout.one_line([""; 9])) + LEAST_WHERE;
        Self {
            two_lines: width.is_some_and(|width| width < needed),
            ..layout
        }
    }

    /// The heading, without the last line's end.
    #[must_use]
    pub fn heading(&self) -> String {
        let names = [
            "TIME", "PROCESS", "ADDRESS", "SIZE", "FRAME", "NODE", "REASON", "BY", "BLACKOUT",
        ];
        self.lines(names, "", "WHERE")
    }

    /// The number of lines of the heading, and of a row whose notes fit beside its columns.
    #[must_use]
    pub fn height(&self) -> usize {
        1 + usize::from(self.two_lines)
    }

    /// A row of these columns. `notes` and as much of `place` as fits come last.
    fn lines(&self, columns: [&str; 9], notes: &str, place: &str) -> String {
        if self.two_lines {
            let [first, second] = self.both_lines(columns);
            self.with_notes(format!("{first}\n"), second, notes, place)
        } else {
            self.with_notes(String::new(), self.one_line(columns), notes, place)
        }
    }

    /// A row without a page. If the columns of a page would take a line of their own, `notes` take it, and `subject`
    /// replaces those columns in words.
    fn lines_without_page(&self, columns: [&str; 9], notes: &str, subject: &str) -> String {
        if self.two_lines {
            let [first, _] = self.both_lines(columns);
            self.with_notes(format!("{first}\n"), INDENT.to_owned(), notes, subject)
        } else {
            self.lines(columns, notes, subject)
        }
    }

    /// Ends the row `text`; `last` is its last line so far.
    fn with_notes(&self, mut text: String, mut last: String, notes: &str, place: &str) -> String {
        let Some(width) = self.width else {
            return text + &last + notes + place;
        };
        let least = width_of(place).min(LEAST_WHERE);
        if width_of(&last) + width_of(notes) + least <= width || notes.is_empty() {
            last.push_str(notes);
        } else {
            if last != INDENT {
                text.push_str(last.trim_end());
                text.push('\n');
            }
            let mut lines = wrapped(notes, width);
            last = lines.pop().unwrap_or_default();
            for line in lines {
                text.push_str(&line);
                text.push('\n');
            }
            if width_of(&last) + least > width {
                text.push_str(last.trim_end());
                text.push('\n');
                INDENT.clone_into(&mut last);
            }
        }
        let room = width.saturating_sub(width_of(&last)).max(LEAST_WHERE);
        last.push_str(&end_of(place, room));
        text + &last
    }

    fn one_line(&self, columns: [&str; 9]) -> String {
        let [time, process, address, size, frame, node, reason, by, blackout] = columns;
        let node = self.node_column(node);
        let page = size_and_frame(size, frame);
        format!("{time:<12} {process:<PROCESS$} {address:<12} {page} {node}{reason:<17} {by:<24} {blackout:>8}  ")
    }

    fn both_lines(&self, columns: [&str; 9]) -> [String; 2] {
        let [time, process, address, size, frame, node, reason, by, blackout] = columns;
        let node = self.node_column(node);
        let page = size_and_frame(size, frame);
        [
            format!("{time:<12} {process:<PROCESS$} {by:<24} {reason}"),
            format!("{INDENT}{address:<12} {page} {node}{blackout:>8}  "),
        ]
    }

    fn node_column(&self, node: &str) -> String {
        if self.node {
            format!("{node:<5} ")
        } else {
            String::new()
        }
    }
}

/// Two columns. A long size takes room from the frames, which rarely need all of theirs.
fn size_and_frame(size: &str, frame: &str) -> String {
    let both = format!("{size:<8} {frame:<24}");
    let both = both.trim_end();
    format!("{both:<33}")
}

/// Columns that a text takes.
fn width_of(text: &str) -> usize {
    text.chars().count()
}

/// Indented lines of at most `width` columns, broken between words. A word that is longer loses its beginning. The last
/// line keeps the spaces at the end of `text`.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![INDENT.to_owned()];
    let mut line_is_empty = true;
    for word in text.split_inclusive(' ') {
        let last = lines.last_mut().map_or(0, |line| width_of(line));
        if !line_is_empty && last + width_of(word.trim_end()) > width {
            lines.push(INDENT.to_owned());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(&end_of(word, width.saturating_sub(INDENT.len()).max(LEAST_WHERE)));
        }
        line_is_empty = false;
    }
    let full = lines.len() - 1;
    for line in &mut lines[..full] {
        line.truncate(line.trim_end().len());
    }
    lines
}

/// The last `room` characters, with an ellipsis for those before them.
fn end_of(text: &str, room: usize) -> Cow<'_, str> {
    let excess = width_of(text).saturating_sub(room);
    if excess == 0 {
        return Cow::Borrowed(text);
    }
    let kept: String = text.chars().skip(excess + 1).collect();
    Cow::Owned(format!("…{kept}"))
}

/// `postgres[4711]`: the number is that of the process, also for a thread with a name of its own.
#[must_use]
pub fn named(task: &Task) -> String {
    numbered(task.comm.as_deref(), task.tgid)
}

/// The owner of the page and the number of other mappings in the row: `postgres[4711] +50`. Only the name is shortened
/// to fit.
fn owners(first: &Task, others: usize) -> String {
    let name = named(first);
    if others == 0 {
        return name;
    }
    let behind = format!("[{}] +{}", first.tgid, others);
    let comm = name.strip_suffix(&format!("[{}]", first.tgid)).unwrap_or(&name);
    let room = PROCESS.saturating_sub(width_of(&behind)).max(1);
    if width_of(comm) <= room {
        return format!("{comm}{behind}");
    }
    let kept: String = comm.chars().take(room - 1).collect();
    format!("{kept}…{behind}")
}

/// The reason. A recording may hold any name.
pub(super) fn reason(reason: &Reason) -> String {
    Printable(&reason.to_string()).to_string()
}

/// The task that moved the page or tried to, shown beside the owner. Without a known reason, a worker is shown like any
/// other task.
fn mover(by: &Task, owner: Option<&Task>, reason: Option<&Reason>) -> String {
    match &by.comm {
        Some(worker) if by.moves_for_cpuset(reason) => cpuset(worker),
        _ => actor(by, owner),
    }
}

/// The task that acted, shown beside the owner.
fn actor(actor: &Task, owner: Option<&Task>) -> String {
    match owner {
        Some(owner) if owner.tgid == actor.tgid => "itself".to_owned(),
        _ => match &actor.comm {
            // The name of a kernel thread identifies it; a process needs its number.
            Some(comm)
                if ["kcompactd", "khugepaged", "kswapd", "ksmd"]
                    .iter()
                    .any(|thread| comm.starts_with(thread)) =>
            {
                Printable(comm).to_string()
            }
            _ => named(actor),
        },
    }
}

/// The old and the new node. A page on swap has no node; the column FRAME shows that.
fn nodes((old, new): (Residence, Residence)) -> String {
    match (old, new) {
        (Residence::Node(_), Residence::Swap) => old.to_string(),
        (Residence::Swap, Residence::Node(_)) => new.to_string(),
        (Residence::Node(_), _) if old == new => old.to_string(),
        _ => format!("{old}->{new}"),
    }
}

/// The mapping at that place.
fn place(vma: Option<&Vma>) -> String {
    let Some(vma) = vma else { return "?".to_owned() };
    if vma.name.is_empty() {
        return format!("anon {}", vma.perms);
    }
    // Several processes may use a shared mapping, so its permissions are shown.
    if vma.perms.shared() {
        return format!("{} {}", Printable(&vma.name), vma.perms);
    }
    Printable(&vma.name).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        event::Event,
        made_up,
        units::{NodeId, Tgid, Tid},
    };

    const TIME: &str = "12:01:03.417";

    /// A row of each kind except moves, under the heading.
    fn table(width: usize) -> String {
        let layout = Layout::new(Some(width), 2);
        let mut text = layout.heading();
        for event in made_up::others() {
            let row = match &event {
                Event::Move(_) => continue,
                Event::Unmapped(event) => unmapped::Row::new(event).text(TIME, &layout),
                Event::Failure(event) => failure::Row::new(event).text(TIME, &layout),
                Event::Compaction(event) => compaction::text(event, TIME, &layout),
            };
            text.push('\n');
            text.push_str(&row);
        }
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn rows_fit_the_terminal() {
        insta::assert_snapshot!("others_80", table(80));
        insta::assert_snapshot!("others_120", table(120));
        for width in [80, 100, 120, 160, 200] {
            let text = table(width);
            assert!(text.lines().all(|line| width_of(line) <= width), "{width}: {text}");
        }
    }

    #[test]
    fn notes_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 9), ["  one two", "  three"]);
        assert_eq!(wrapped("one · ", 20), ["  one · "]);
        assert_eq!(wrapped("a /usr/lib/libc.so.6 b", 15), ["  a", "  …b/libc.so.6", "  b"]);
    }

    #[test]
    fn the_end_of_a_place_says_most() {
        assert_eq!(end_of("/usr/lib/libc.so.6", 9), "…ibc.so.6");
        assert_eq!(end_of("[heap]", 6), "[heap]");
    }

    #[test]
    fn a_worker_that_migrates_does_it_for_a_cpuset() {
        let worker = |comm: &str| Task {
            tgid: Tgid(33),
            tid: Tid(33),
            comm: Some(Arc::from(comm)),
        };
        let reason = |name: &str| Reason {
            number: 3,
            name: Some(Arc::from(name)),
        };
        let by = |comm, name| mover(&worker(comm), None, Some(&reason(name)));
        assert_eq!(by("kworker/1:2", "syscall_or_cpuset"), "cpuset (kworker/1:2)");
        assert_eq!(
            by("kworker/u4:1+cpuset_migrate_mm", "syscall_or_cpuset"),
            "cpuset (kworker/u4:1)"
        );
        assert_eq!(by("kworker/1:2", "contig_range"), "kworker/1:2[33]");
        assert_eq!(by("migratepages", "syscall_or_cpuset"), "migratepages[33]");
    }

    #[test]
    fn a_page_on_swap_has_no_node() {
        let node = |id| Residence::Node(NodeId(id));
        assert_eq!(nodes((node(1), Residence::Swap)), "1");
        assert_eq!(nodes((Residence::Swap, node(0))), "0");
        assert_eq!(nodes((Residence::Swap, Residence::Unknown)), "swap->?");
        assert_eq!(nodes((node(1), Residence::Unknown)), "1->?");
        assert_eq!(nodes((node(1), node(1))), "1");
        assert_eq!(nodes((Residence::Unknown, Residence::Unknown)), "?->?");
    }
}
