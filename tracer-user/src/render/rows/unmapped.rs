//! Rows of folios that moved without a mapping: one per folio, or per range of neighbours in a file.
//! Input: moves of such folios.

use super::{Layout, NONE, mover, nodes, reason};
use crate::{
    escape::Printable,
    event::{
        Residence,
        unmapped::{FilePlace, UnmappedMove},
    },
    units::{Nanos, PAGE_SIZE, Pfn},
    words::quantity::PageSize,
};

/// Folios that no process maps, shown as one row.
#[derive(Clone, Debug)]
pub struct Row {
    /// The first of them; in a file, the one with the lowest offset, at the time of the first.
    shown: UnmappedMove,
    folios: u64,
}

impl Row {
    /// A row of one.
    #[must_use]
    pub fn new(moved: &UnmappedMove) -> Self {
        Self {
            shown: moved.clone(),
            folios: 1,
        }
    }

    /// The time when the first of them moved.
    #[must_use]
    pub fn at(&self) -> Nanos {
        self.shown.at
    }

    /// Adds a move of the same order, nodes, reason and actor. It must adjoin the row's pages in the file, or have no
    /// file like them. Returns false if it needs another row.
    pub fn extend(&mut self, moved: &UnmappedMove) -> bool {
        let shown = &mut self.shown;
        let same = shown.order == moved.order
            && (shown.old_node, shown.new_node) == (moved.old_node, moved.new_node)
            && shown.reason == moved.reason
            && shown.actor.tid == moved.actor.tid;
        let joined = same
            && match (&mut shown.file, &moved.file) {
                (None, None) => true,
                (Some(here), Some(next)) if (here.dev, here.inode) == (next.dev, next.inode) => {
                    let bytes = moved.order.pages().saturating_mul(PAGE_SIZE);
                    if here.offset.checked_add(bytes.saturating_mul(self.folios)) == Some(next.offset) {
                        true
                    } else if next.offset.checked_add(bytes) == Some(here.offset) {
                        here.offset = next.offset;
                        (shown.old_pfn, shown.new_pfn) = (moved.old_pfn, moved.new_pfn);
                        true
                    } else {
                        false
                    }
                }
                _ => false,
            };
        self.folios += u64::from(joined);
        joined
    }

    /// The row as text, without the last line's end.
    #[must_use]
    pub fn text(&self, time: &str, layout: &Layout) -> String {
        let moved = &self.shown;
        let pfn = |pfn: Option<Pfn>| pfn.map_or_else(|| "?".to_owned(), |pfn| pfn.to_string());
        let size = match self.folios {
            1 => PageSize(moved.order).to_string(),
            n => format!("{} x{n}", PageSize(moved.order)),
        };
        let columns = [
            time,
            "nobody",
            NONE,
            &size,
            &format!("{} -> {}", pfn(moved.old_pfn), pfn(moved.new_pfn)),
            &nodes((Residence::of(moved.old_node), Residence::of(moved.new_node))),
            &reason(&moved.reason),
            &mover(&moved.actor, None, Some(&moved.reason)),
            NONE,
        ];
        let file = moved
            .file
            .as_ref()
            .map_or_else(|| "unmapped meanwhile, or a driver's".to_owned(), place);
        layout.lines(columns, &file, "")
    }
}

fn place(file: &FilePlace) -> String {
    let name = file.name.as_deref().unwrap_or("?");
    format!(
        "{} +{:#x} (dev {}, inode {})",
        Printable(name),
        file.offset,
        file.dev,
        file.inode
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Event, made_up};

    /// A page of the page cache, `number` pages into its file.
    fn page(number: u64) -> UnmappedMove {
        let found = made_up::others().into_iter().find_map(|event| match event {
            Event::Unmapped(moved) if moved.file.is_some() => Some(moved),
            _ => None,
        });
        let mut moved = found.unwrap();
        let bytes = moved.order.pages().saturating_mul(PAGE_SIZE);
        if let Some(file) = &mut moved.file {
            file.offset = 0x10_0000 + number * bytes;
        }
        moved.old_pfn = Some(Pfn(0x1000 + number));
        moved
    }

    #[test]
    fn neighbours_in_a_file_are_one_row() {
        let mut row = Row::new(&page(10));
        for number in [9, 11, 8, 12] {
            assert!(row.extend(&page(number)), "{number}");
        }
        for number in [6, 14, 10] {
            assert!(!row.extend(&page(number)), "{number}");
        }
        let mut other = page(13);
        if let Some(file) = &mut other.file {
            file.inode += 1;
        }
        assert!(!row.extend(&other));
        assert!(!row.extend(&UnmappedMove { file: None, ..page(13) }));
        let text = row.text("12:01:03.417", &Layout::new(None, 2));
        assert!(text.contains(" 16K x5 ") && text.contains(" 0x1008 -> "), "{text}");
        assert!(text.contains("+0x120000 "), "{text}");
    }
}
