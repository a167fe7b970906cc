//! Pages as CSV: a row for each extent, or for each mapping. The columns are described in docs/pages.md.
//! Input: the stream of `pages`.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;

use crate::escape::Printable;
use crate::pages::extent::{Extent, Mapping, State};
use crate::pages::sums::Sums;
use crate::pages::walk::Walked;
use crate::proc::maps::Vma;
use crate::proc::page_flags;
use crate::render::pages::{Format, ProcessCounts, Who};

/// Writes rows under one heading.
pub struct Csv<W: Write> {
    out: csv::Writer<W>,
    each: bool,
}

/// One heading for each of [`Mapping::ALL`].
const LARGE: [&str; Mapping::ALL.len()] = [
    "large_entry",
    "large_pages",
    "large_whole",
    "large_unaligned",
    "large_part",
];

impl<W: Write> Csv<W> {
    /// Writes to this writer. With `each`, a row is an extent instead of a mapping.
    ///
    /// # Errors
    /// The errors of the writer.
    pub fn new(out: W, each: bool) -> io::Result<Self> {
        let mut out = csv::Writer::from_writer(out);
        let mut heading = vec!["pid", "comm", "vma_start", "vma_end", "perms", "vma"];
        if each {
            heading.extend([
                "vaddr",
                "pages",
                "state",
                "pfn",
                "hidden",
                "node",
                "order",
                "mapping",
                "map_count",
                "swap_type",
                "swap_offset",
                "exclusive",
                "file",
                "soft_dirty",
                "uffd_wp",
                "flags",
            ]);
        } else {
            heading.push("pages");
            heading.extend(State::ALL.map(State::name));
            heading.extend([
                "unread",
                "nodes",
                "hidden_pages",
                "unknown_node_pages",
                "orders",
                "unknown_order_pages",
            ]);
            heading.extend(LARGE);
            heading.extend([
                "exclusive",
                "shared",
                "file",
                "soft_dirty",
                "uffd_wp_pages",
                "flags",
                "max_map_count",
            ]);
        }
        out.write_record(heading)?;
        Ok(Self { out, each })
    }
}

fn place(who: &Who, vma: &Vma) -> Vec<String> {
    vec![
        who.tgid.to_string(),
        Printable(&who.comm).to_string(),
        vma.start.to_string(),
        vma.end.to_string(),
        vma.perms.to_string(),
        Printable(&vma.name).to_string(),
    ]
}

fn or_empty(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// `0:512 9:1024`: keys with their pages.
fn pairs(pairs: impl Iterator<Item = (impl Display, u64)>) -> String {
    let words: Vec<String> = pairs.map(|(key, pages)| format!("{key}:{pages}")).collect();
    words.join(" ")
}

impl<W: Write> Format for Csv<W> {
    fn begin(&mut self, _: &Who) -> io::Result<()> {
        Ok(())
    }

    fn extent(&mut self, who: &Who, vma: &Arc<Vma>, extent: &Extent) -> io::Result<()> {
        if !self.each {
            return Ok(());
        }
        let names = |flags: u64| page_flags::names_of(flags).collect::<Vec<_>>().join(" ");
        let mut row = place(who, vma);
        row.extend([
            extent.address.to_string(),
            extent.pages.to_string(),
            extent.state.name().to_owned(),
            or_empty(extent.pfn()),
            (extent.hides_frames() || extent.state.hides()).to_string(),
            or_empty(extent.node),
            or_empty(extent.order),
            or_empty(extent.mapping.map(Mapping::name)),
            or_empty(extent.mapped),
            or_empty(extent.slot().map(|slot| slot.ty)),
            or_empty(extent.slot().map(|slot| slot.offset)),
            extent.entry.exclusive().to_string(),
            extent.entry.file_or_shmem().to_string(),
            extent.entry.soft_dirty().to_string(),
            extent.entry.uffd_wp().to_string(),
            or_empty(extent.flags.map(|flags| names(flags.bits()))),
        ]);
        Ok(self.out.write_record(row)?)
    }

    fn vma(&mut self, who: &Who, vma: &Arc<Vma>, sums: &Sums, unread: u64) -> io::Result<()> {
        if self.each {
            return Ok(());
        }
        let mut row = place(who, vma);
        row.push(vma.pages().to_string());
        row.extend(State::ALL.map(|state| sums.in_state(state).to_string()));
        row.extend([
            unread.to_string(),
            pairs(sums.nodes()),
            sums.hidden.to_string(),
            sums.elsewhere.to_string(),
            pairs(sums.orders()),
            sums.unknown_size.to_string(),
        ]);
        row.extend(Mapping::ALL.map(|mapping| sums.mapped_so(mapping).to_string()));
        let flags = sums
            .flags()
            .map(|(bit, pages)| (page_flags::names_of(1 << bit).collect::<String>(), pages));
        row.extend([
            sums.exclusive.to_string(),
            sums.shared.to_string(),
            sums.file.to_string(),
            sums.soft_dirty.to_string(),
            sums.uffd_wp.to_string(),
            pairs(flags),
            sums.most_mapped.to_string(),
        ]);
        Ok(self.out.write_record(row)?)
    }

    fn end(&mut self, _: &Who, _: &Walked, _: &Sums) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: &ProcessCounts, _: &Sums) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn columns_have_names_of_their_own() {
        for (mapping, column) in Mapping::ALL.into_iter().zip(LARGE) {
            assert_eq!(column, format!("large_{}", mapping.name()));
        }
        for each in [false, true] {
            let mut out = Vec::new();
            Csv::new(&mut out, each).unwrap().out.flush().unwrap();
            let text = String::from_utf8(out).unwrap();
            let columns: Vec<&str> = text.trim_end().split(',').collect();
            assert_eq!(columns.iter().collect::<BTreeSet<_>>().len(), columns.len(), "{text}");
        }
    }
}
