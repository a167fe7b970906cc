//! Pages as text: a line and a table for each process, a table of processes, or a line for each extent.
//! Input: the stream of `pages`, the width of the terminal.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use crate::escape::Printable;
use crate::pages::extent::{Extent, State};
use crate::pages::sums::Sums;
use crate::pages::walk::Walked;
use crate::proc::maps::Vma;
use crate::proc::page_flags::{self, FIRST_INTERNAL};
use crate::render::pages::{Format, ProcessCounts, Who};
use crate::units::{NodeId, Order, PAGE_SHIFT};
use crate::words::quantity::{Bytes, Count, PageSize};

/// At most this number of nodes have columns of their own; more nodes are summed up in the line above.
const MOST_NODES: usize = 4;
/// At most this number of folio sizes have columns of their own.
const MOST_SIZES: usize = 5;
/// The least and the most columns of a name.
const NAME: (usize, usize) = (16, 40);
/// Flags are shown only if this number of columns is left for them.
const FLAGS: usize = 12;

/// The kind of rows that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A table for each process, whose rows are its mappings.
    Vmas,
    /// One table, whose rows are processes.
    Processes,
    /// No table: every extent.
    Runs,
}

/// Writes text.
#[derive(Debug)]
pub struct Text<W> {
    out: W,
    rows: Rows,
    width: usize,
    table: Table,
    /// The mapping of the last extent: a heading stands above the first extent of each mapping.
    last: Option<Arc<Vma>>,
    hidden: bool,
}

impl<W: Write> Text<W> {
    /// Writes to this writer at most `most` rows of a table, in lines of this number of columns.
    pub fn new(out: W, rows: Rows, width: usize, most: usize) -> Self {
        Self {
            out,
            rows,
            width,
            table: Table::new(most),
            last: None,
            hidden: false,
        }
    }

    fn notes(&mut self, walked: &Walked, sums: &Sums) -> io::Result<()> {
        let large: u64 = sums.mappings().map(|(_, pages)| pages).sum();
        if large > 0 {
            let kinds: Vec<String> = sums
                .mappings()
                .map(|(mapping, pages)| format!("{} mapped {}", share(pages, large), mapping.words()))
                .collect();
            self.note("large", &kinds.join(", "))?;
        }
        let others: Vec<String> = sums
            .states()
            .filter(|(state, _)| !matches!(state, State::Present | State::Swapped))
            .map(|(state, pages)| format!("{} {}", Bytes(pages << PAGE_SHIFT), state.name()))
            .collect();
        if !others.is_empty() {
            self.note("also", &others.join(", "))?;
        }
        if walked.changed > 0 {
            let words = format!(
                "the process changed {} of its mappings meanwhile: they may be missing, or half read",
                Count(walked.changed as u64)
            );
            self.note("changed", &words)?;
        }
        if walked.skipped > 0 {
            self.note("maps", &format!("{} lines could not be read", walked.skipped))?;
        }
        if walked.ended {
            self.note("ended", "the process ended meanwhile: the rest of its pages is missing")?;
        }
        Ok(())
    }

    /// Writes a name and, behind it, words that are broken into lines.
    fn note(&mut self, name: &str, words: &str) -> io::Result<()> {
        let mut line = format!("{name:9}");
        for word in words.split(' ') {
            if line.chars().count() + word.chars().count() > self.width && line.trim_end().len() > name.len() {
                writeln!(self.out, "{}", line.trim_end())?;
                line = " ".repeat(9);
            }
            line.push_str(word);
            line.push(' ');
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

/// `1 process`, `8 processes`
fn processes(count: usize) -> String {
    match count {
        1 => "1 process".to_owned(),
        _ => format!("{} processes", Count(count as u64)),
    }
}

/// `postgres[4711]`
fn name(who: &Who) -> String {
    format!("{}[{}]", Printable(&who.comm), who.tgid)
}

/// `2.1 GiB mapped, 1.9 GiB present · node 0: 1.1 GiB`, in pieces that may be split across lines.
fn facts(mapped: u64, sums: &Sums) -> Vec<String> {
    let bytes = |pages: u64| Bytes(pages << PAGE_SHIFT);
    let mut sizes = format!(
        "{} mapped, {} present",
        Bytes(mapped),
        bytes(sums.in_state(State::Present))
    );
    if let swapped @ 1.. = sums.in_state(State::Swapped) {
        let _ = write!(sizes, ", {} swapped", bytes(swapped));
    }
    let mut facts = vec![sizes];
    let mut nodes: Vec<String> = sums
        .nodes()
        .map(|(node, pages)| format!("node {node}: {}", bytes(pages)))
        .collect();
    if sums.elsewhere > 0 {
        nodes.push(format!("no known node: {}", bytes(sums.elsewhere)));
    }
    if sums.hidden > 0 {
        nodes.push("frames and nodes hidden".to_owned());
    }
    if !nodes.is_empty() {
        facts.push(nodes.join(", "));
    }
    if sums.shared > 0 {
        facts.push(format!("{} shared", bytes(sums.shared)));
    }
    facts
}

impl<W: Write> Format for Text<W> {
    fn begin(&mut self, who: &Who) -> io::Result<()> {
        self.last = None;
        if self.rows == Rows::Runs {
            writeln!(self.out, "{}", name(who))?;
        }
        Ok(())
    }

    fn extent(&mut self, _: &Who, vma: &Arc<Vma>, extent: &Extent) -> io::Result<()> {
        if self.rows != Rows::Runs {
            return Ok(());
        }
        if self.last.is_none() {
            let heading = ["ADDRESS", "PAGES", "SIZE", "STATE", "FRAME", "NODE", "MAPPED", "FLAGS"];
            let [address, pages, size, state, frame, node, mapped, flags] = heading;
            writeln!(
                self.out,
                "{address:16} {pages:>7} {size:>5} {state:9} {frame:11} {node:>4} {mapped:>6}  {flags}"
            )?;
        }
        if self.last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, vma)) {
            self.last = Some(Arc::clone(vma));
            writeln!(
                self.out,
                "{:x}-{:x} {} {}",
                vma.start.0,
                vma.end.0,
                vma.perms,
                Printable(vma.label())
            )?;
        }
        writeln!(self.out, "{}", extent_line(extent))
    }

    fn vma(&mut self, _: &Who, vma: &Arc<Vma>, sums: &Sums, unread: u64) -> io::Result<()> {
        if self.rows == Rows::Vmas {
            self.table.push(Row {
                name: label(vma),
                mapped: vma.pages(),
                unread,
                sums: sums.clone(),
            });
        }
        Ok(())
    }

    fn end(&mut self, who: &Who, walked: &Walked, sums: &Sums) -> io::Result<()> {
        self.hidden |= sums.hidden > 0 || sums.in_state(State::Hidden) > 0;
        if self.rows == Rows::Processes {
            self.table.push(Row {
                name: name(who),
                mapped: walked.mapped >> PAGE_SHIFT,
                unread: 0,
                sums: sums.clone(),
            });
            return Ok(());
        }
        let mut line = name(who);
        for fact in facts(walked.mapped, sums) {
            if line.chars().count() + 3 + fact.chars().count() > self.width {
                writeln!(self.out, "{line}")?;
                line = format!("  {fact}");
            } else {
                let _ = write!(line, " · {fact}");
            }
        }
        writeln!(self.out, "{line}")?;
        self.table.write(&mut self.out, "VMA", "mappings", self.width)?;
        self.notes(walked, sums)?;
        writeln!(self.out)
    }

    fn finish(&mut self, counts: &ProcessCounts, sums: &Sums) -> io::Result<()> {
        if self.rows == Rows::Processes {
            self.table.write(&mut self.out, "PROCESS", "processes", self.width)?;
            let all = format!(
                "{}, {} present: a page that several map is counted for each",
                processes(counts.whole),
                Bytes(sums.in_state(State::Present) << PAGE_SHIFT)
            );
            self.note("all", &all)?;
        }
        if counts.ended > 0 {
            self.note(
                "ended",
                &format!("{} ended before all of it was read", processes(counts.ended)),
            )?;
        }
        if counts.unreadable > 0 {
            self.note(
                "missing",
                &format!("{} may not be read: run with sudo", processes(counts.unreadable)),
            )?;
        }
        if self.hidden {
            self.note(
                "hidden",
                "frames, nodes, page sizes and the kinds of entries without a page are for root: run with sudo",
            )?;
        }
        self.out.flush()
    }
}

fn extent_line(extent: &Extent) -> String {
    let size = extent
        .order
        .map_or_else(String::new, |order| PageSize(order).to_string());
    let frame = match (extent.pfn(), extent.slot()) {
        (Some(pfn), _) => pfn.to_string(),
        (None, Some(slot)) => format!("{}:{:#x}", slot.ty, slot.offset),
        (None, None) if extent.hides_frames() => "hidden".to_owned(),
        (None, None) => "-".to_owned(),
    };
    let node = extent.node.map_or_else(
        || if extent.hides_frames() { "hidden" } else { "-" }.to_owned(),
        |node| node.to_string(),
    );
    let mapped = extent
        .mapped
        .map_or_else(|| "-".to_owned(), |mapped| Count(mapped).to_string());
    let mut words: Vec<String> = Vec::new();
    words.extend(extent.mapping.map(|mapping| format!("({})", mapping.words())));
    let entry = [
        (extent.entry.exclusive(), "exclusive"),
        (extent.entry.file_or_shmem(), "file"),
        (extent.entry.soft_dirty(), "soft_dirty"),
        (extent.entry.uffd_wp(), "uffd_wp"),
    ];
    words.extend(
        entry
            .into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, name)| name.to_owned()),
    );
    words.extend(extent.flags.iter().flat_map(|flags| page_flags::names_of(flags.bits())));
    let line = format!(
        "{:<16x} {:>7} {size:>5} {:9} {frame:11} {node:>4} {mapped:>6}  {}",
        extent.address.0,
        Count(extent.pages),
        extent.state.name(),
        words.join(" ")
    );
    line.trim_end().to_owned()
}

/// `libc.so.6 r-xp`: the last part of a path; other names are unchanged.
fn label(vma: &Vma) -> String {
    let whole = vma.label();
    let name = match whole.rsplit_once('/') {
        // Short paths such as /dev/zero are clearer whole.
        Some((before, name)) if before.contains('/') && before.starts_with('/') && before.len() > 5 => name,
        _ => whole,
    };
    match name {
        "[heap]" | "[stack]" | "[vdso]" | "[vvar]" | "[vsyscall]" => name.to_owned(),
        name => format!("{} {}", Printable(name), vma.perms),
    }
}

/// `97 %`. A share above zero is never shown as zero.
fn share(part: u64, whole: u64) -> String {
    let percent = (u128::from(part) * 100 + u128::from(whole) / 2) / u128::from(whole.max(1));
    match (part, percent) {
        (0, _) => "-".to_owned(),
        (_, 0) => "<1 %".to_owned(),
        (_, percent) if percent == 100 && part < whole => "99 %".to_owned(),
        (_, percent) => format!("{percent} %"),
    }
}

#[derive(Clone, Debug)]
struct Row {
    name: String,
    /// Pages of address space.
    mapped: u64,
    unread: u64,
    sums: Sums,
}

/// Collects rows and keeps the largest.
#[derive(Debug)]
struct Table {
    most: usize,
    rows: Vec<Row>,
    left_out: usize,
    rest: Row,
}

impl Table {
    fn new(most: usize) -> Self {
        Self {
            most,
            rows: Vec::new(),
            left_out: 0,
            rest: Row {
                name: String::new(),
                mapped: 0,
                unread: 0,
                sums: Sums::default(),
            },
        }
    }

    fn push(&mut self, row: Row) {
        self.rows.push(row);
        // Keeping the largest sorts all rows, so this does not run after each row.
        if self.rows.len() >= self.most.saturating_mul(2).saturating_add(64) {
            self.keep_largest();
        }
    }

    fn keep_largest(&mut self) {
        self.rows
            .sort_by_key(|row| Reverse((row.sums.in_state(State::Present), row.sums.entries(), row.mapped)));
        for row in self.rows.drain(self.most.min(self.rows.len())..) {
            self.left_out += 1;
            self.rest.mapped += row.mapped;
            self.rest.unread += row.unread;
            self.rest.sums.merge(&row.sums);
        }
    }

    /// Writes the rows and empties the table.
    fn write(&mut self, out: &mut impl Write, heading: &str, things: &str, width: usize) -> io::Result<()> {
        self.keep_largest();
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.rows);
        if self.left_out > 0 {
            let mut rest = self.rest.clone();
            rest.name = format!("{} more {things}", Count(self.left_out as u64));
            rows.push(rest);
        }
        *self = Self::new(self.most);
        let columns = Columns::of(&rows);
        let mut lines = vec![columns.heading(heading)];
        lines.extend(rows.iter().map(|row| columns.cells(row)));
        let flags: Vec<String> = rows.iter().map(|row| flags(&row.sums)).collect();
        let names = lines.iter().map(|line| line[0].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (1..lines[0].len())
            .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
            .collect();
        let others: usize = widths.iter().map(|width| width + 2).sum();
        let room = width.saturating_sub(others).max(NAME.0);
        let name_width = names.min(NAME.1).min(room);
        let left = width.saturating_sub(name_width + others + 2);
        let flags = std::iter::once("FLAGS").chain(flags.iter().map(String::as_str));
        for (line, flags) in lines.iter().zip(flags) {
            let mut text = format!("{:name_width$}", shortened(&line[0], name_width));
            for (cell, width) in line[1..].iter().zip(&widths) {
                let _ = write!(text, "  {cell:>width$}");
            }
            if left >= FLAGS {
                let _ = write!(text, "  {}", cut(flags, left));
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Shortens a name that is too long to its beginning and its end.
fn shortened(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width || width < 8 {
        return name.to_owned();
    }
    // The end holds more: the rights of the mapping, the process's number.
    let tail = (width - 2) * 2 / 3;
    let head: String = name.chars().take(width - 2 - tail).collect();
    let tail: String = name.chars().skip(length - tail).collect();
    format!("{head}..{tail}")
}

/// As many whole words as fit.
fn cut(words: &str, width: usize) -> &str {
    if words.len() <= width {
        return words;
    }
    // Flags are ASCII.
    words
        .get(..=width)
        .and_then(|part| part.rfind(' '))
        .map_or("", |end| &words[..end])
}

/// The columns that are worth showing for these rows.
struct Columns {
    swap: bool,
    hidden: bool,
    elsewhere: bool,
    nodes: Vec<NodeId>,
    sizes: Vec<Order>,
}

impl Columns {
    fn of(rows: &[Row]) -> Self {
        let mut all = Sums::default();
        for row in rows {
            all.merge(&row.sums);
        }
        let mut nodes: Vec<NodeId> = all.nodes().map(|(node, _)| node).collect();
        if nodes.len() > MOST_NODES {
            nodes.clear();
        }
        // Keeps the largest shares, in order of size.
        let mut sizes: Vec<(Order, u64)> = all.orders().collect();
        sizes.sort_by_key(|&(order, pages)| (Reverse(pages), order));
        sizes.truncate(MOST_SIZES);
        let mut sizes: Vec<Order> = sizes.into_iter().map(|(order, _)| order).collect();
        sizes.sort_unstable();
        Self {
            swap: all.in_state(State::Swapped) > 0,
            hidden: all.in_state(State::Hidden) > 0,
            elsewhere: all.elsewhere > 0 && !nodes.is_empty(),
            nodes,
            sizes,
        }
    }

    fn heading(&self, first: &str) -> Vec<String> {
        let mut cells = vec![first.to_owned(), "SIZE".to_owned(), "PRESENT".to_owned()];
        cells.extend(self.swap.then(|| "SWAP".to_owned()));
        cells.extend(self.hidden.then(|| "SWAP?".to_owned()));
        cells.extend(self.nodes.iter().map(|node| format!("NODE {node}")));
        cells.extend(self.elsewhere.then(|| "NODE ?".to_owned()));
        cells.extend(self.sizes.iter().map(|&order| PageSize(order).to_string()));
        cells
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let sums = &row.sums;
        let bytes = |pages: u64| match pages {
            0 => "-".to_owned(),
            pages => Bytes(pages << PAGE_SHIFT).to_string(),
        };
        let present = sums.in_state(State::Present);
        let mut cells = vec![row.name.clone(), bytes(row.mapped)];
        cells.push(match (row.unread, present) {
            (1.., 0) => "?".to_owned(),
            (_, present) => bytes(present),
        });
        cells.extend(self.swap.then(|| bytes(sums.in_state(State::Swapped))));
        cells.extend(self.hidden.then(|| bytes(sums.in_state(State::Hidden))));
        cells.extend(self.nodes.iter().map(|&node| bytes(sums.on_node(node))));
        cells.extend(self.elsewhere.then(|| bytes(sums.elsewhere)));
        cells.extend(self.sizes.iter().map(|&order| share(sums.of_order(order), present)));
        cells
    }
}

/// Flags that nearly every page of a process has, or that another column shows.
const COMMON: [&str; 5] = ["uptodate", "lru", "mmap", "huge", "thp"];

/// Flags for the kernel's own use that are shown nevertheless: reserved, mlocked.
const TELLING: [u32; 2] = [32, 33];

/// `anon dirty:43% mlocked`: the flags that distinguish the frames, with their share if not all frames have them.
fn flags(sums: &Sums) -> String {
    let mut flags: Vec<(u64, String)> = sums
        .flags()
        .filter(|(bit, _)| *bit < FIRST_INTERNAL || TELLING.contains(bit))
        .map(|(bit, pages)| (pages, page_flags::names_of(1 << bit).collect::<String>()))
        .filter(|(_, name)| !COMMON.contains(&name.as_str()))
        .collect();
    flags.sort_by_key(|(pages, _)| Reverse(*pages));
    let anonymous = flags.iter().any(|(_, name)| name == "anon");
    let mut words: Vec<String> = flags
        .into_iter()
        .filter(|(_, name)| !(anonymous && name == "swapbacked"))
        .map(|(pages, name)| match share(pages, sums.flagged).as_str() {
            "100 %" => name,
            share => format!("{name}:{}", share.replace(' ', "")),
        })
        .collect();
    if sums.most_mapped > 1 {
        words.insert(0, format!("mapped-{}x", Count(sums.most_mapped)));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::extent::Mapping;
    use crate::proc::entry::Meaning;
    use crate::proc::kpage::{KpfQuirks, PageFlags};
    use crate::proc::maps;
    use crate::proc::pagemap::{Entry, SwapSlot};
    use crate::units::{Pfn, Tgid, VirtAddr};

    const MAPS: &[u8] = b"55d0c1a00000-55d0c2020000 rw-p 00000000 00:00 0 [heap]\n\
7f3a5c200000-7f3adc200000 rw-s 00000000 00:01 7 /dev/zero (deleted)\n\
7f3ae1000000-7f3ae11d0000 r-xp 00000000 fe:00 9 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
7f3ae2000000-7f3ae2100000 r--p 00000000 fe:00 9 /tmp/a\x1b[2Jlong name that nobody has any room for.so\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";

    fn extent(address: u64, pages: u64, node: u32, order: u8, flags: u64) -> Extent {
        Extent {
            address: VirtAddr(address),
            pages,
            state: State::Present,
            entry: Entry(1 << 63 | 1 << 56 | 0x1000),
            meaning: Meaning::Frame(Pfn(0x1000)),
            node: Some(NodeId(node)),
            flags: Some(PageFlags::new(flags, KpfQuirks::default())),
            mapped: Some(1),
            order: Some(Order(order)),
            mapping: (order > 0).then_some(Mapping::Entry),
        }
    }

    /// The extents of each mapping.
    fn extents(of: usize) -> Vec<Extent> {
        let anon = 1 << 3 | 1 << 5 | 1 << 11 | 1 << 12 | 1 << 14;
        let shmem = 1 << 3 | 1 << 4 | 1 << 11 | 1 << 14;
        let text = 1 << 3 | 1 << 5 | 1 << 11;
        match of {
            0 => vec![
                extent(0x55d0_c1a0_0000, 1540, 0, 0, anon),
                Extent {
                    state: State::Swapped,
                    meaning: Meaning::Swap(SwapSlot { ty: 0, offset: 0x77 }),
                    entry: Entry(1 << 62 | 0x77 << 5),
                    node: None,
                    flags: None,
                    mapped: None,
                    order: None,
                    ..extent(0x55d0_c200_4000, 20, 0, 0, 0)
                },
                Extent {
                    state: State::Guard,
                    meaning: Meaning::Guard,
                    entry: Entry(1 << 62 | 1 << 58),
                    node: None,
                    flags: None,
                    mapped: None,
                    order: None,
                    ..extent(0x55d0_c201_8000, 2, 0, 0, 0)
                },
            ],
            1 => vec![
                extent(0x7f3a_5c20_0000, 262_144, 0, 9, shmem | 1 << 22),
                extent(0x7f3a_9c20_0000, 200_000, 1, 9, shmem | 1 << 22),
                extent(0x7f3a_cd00_0000, 4_000, 1, 0, shmem),
            ],
            2 => vec![Extent {
                entry: Entry(1 << 63 | 1 << 61 | 0x1000),
                mapped: Some(91),
                ..extent(0x7f3a_e100_0000, 330, 0, 0, text)
            }],
            _ => Vec::new(),
        }
    }

    fn written(rows: Rows, width: usize, most: usize) -> String {
        let who = Who {
            tgid: Tgid(4711),
            comm: "post\u{202e}gres".to_owned(),
        };
        let mut out = Vec::new();
        let mut text = Text::new(&mut out, rows, width, most);
        let mut all = Sums::default();
        text.begin(&who).unwrap();
        let mut walked = Walked::default();
        for (at, vma) in maps::parse(MAPS).map(Result::unwrap).map(Arc::new).enumerate() {
            let mut sums = Sums::default();
            for extent in extents(at) {
                sums.add(&extent);
                text.extent(&who, &vma, &extent).unwrap();
            }
            all.merge(&sums);
            walked.mapped += vma.pages() << PAGE_SHIFT;
            text.vma(&who, &vma, &sums, 0).unwrap();
        }
        walked.changed = 2;
        text.end(&who, &walked, &all).unwrap();
        let counts = ProcessCounts {
            whole: 1,
            ended: 0,
            unreadable: 3,
        };
        text.finish(&counts, &all).unwrap();
        drop(text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_at_80_columns() {
        let page = written(Rows::Vmas, 80, 40);
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        insta::assert_snapshot!("vmas_80", page);
        insta::assert_snapshot!("runs_80", written(Rows::Runs, 80, 40));
        insta::assert_snapshot!("processes_80", written(Rows::Processes, 80, 40));
    }

    #[test]
    fn a_wide_terminal_has_room_for_flags() {
        insta::assert_snapshot!("vmas_140", written(Rows::Vmas, 140, 2));
    }

    #[test]
    fn shares_are_never_rounded_to_all_or_nothing() {
        assert_eq!(share(0, 10), "-");
        assert_eq!(share(1, 10_000), "<1 %");
        assert_eq!(share(9_999, 10_000), "99 %");
        assert_eq!(share(10, 10), "100 %");
        assert_eq!(share(0, 0), "-");
    }

    #[test]
    fn names_are_cut_in_the_middle() {
        assert_eq!(shortened("/a/very/long/name rw-p", 16), "/a/ve..name rw-p");
        assert_eq!(shortened("short", 16), "short");
        assert_eq!(cut("anon dirty lru", 11), "anon dirty");
        assert_eq!(cut("anon", 2), "");
    }
}
