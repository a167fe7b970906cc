//! Pages as JSON lines. The keys are described in docs/pages.md.
//! Input: the stream of `pages`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use crate::escape;
use crate::pages::extent::{Extent, Mapping};
use crate::pages::sums::Sums;
use crate::pages::walk::Walked;
use crate::proc::maps::Vma;
use crate::proc::page_flags;
use crate::proc::pagemap::SwapSlot;
use crate::render::pages::{Format, ProcessCounts, Who};
use crate::units::PAGE_SHIFT;

/// Writes a line for each process and mapping, and for each extent if requested.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
    /// Whether extents are written.
    each: bool,
    /// Whether mappings are written.
    vmas: bool,
}

impl<W: Write> Json<W> {
    /// Writes to this writer. `each` adds extents, `vmas` adds mappings.
    pub fn new(out: W, each: bool, vmas: bool) -> Self {
        Self { out, each, vmas }
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        escape::json(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }
}

#[derive(Serialize)]
struct VmaKey<'a> {
    start: String,
    end: String,
    perms: String,
    name: &'a str,
}

impl<'a> VmaKey<'a> {
    fn new(vma: &'a Vma) -> Self {
        Self {
            start: vma.start.to_string(),
            end: vma.end.to_string(),
            perms: vma.perms.to_string(),
            name: &vma.name,
        }
    }
}

/// The counts that processes and mappings share; all are of base pages.
#[derive(Serialize)]
struct Counts {
    states: BTreeMap<&'static str, u64>,
    nodes: BTreeMap<u32, u64>,
    hidden_pages: u64,
    unknown_node_pages: u64,
    orders: BTreeMap<u8, u64>,
    unknown_order_pages: u64,
    mappings: BTreeMap<&'static str, u64>,
    exclusive_pages: u64,
    shared_pages: u64,
    file_pages: u64,
    soft_dirty_pages: u64,
    uffd_wp_pages: u64,
    flagged_pages: u64,
    flags: BTreeMap<String, u64>,
    max_map_count: u64,
}

impl Counts {
    fn new(sums: &Sums) -> Self {
        Self {
            states: sums.states().map(|(state, pages)| (state.name(), pages)).collect(),
            nodes: sums.nodes().map(|(node, pages)| (node.0, pages)).collect(),
            hidden_pages: sums.hidden,
            unknown_node_pages: sums.elsewhere,
            orders: sums.orders().map(|(order, pages)| (order.0, pages)).collect(),
            unknown_order_pages: sums.unknown_size,
            mappings: sums
                .mappings()
                .map(|(mapping, pages)| (mapping.name(), pages))
                .collect(),
            exclusive_pages: sums.exclusive,
            shared_pages: sums.shared,
            file_pages: sums.file,
            soft_dirty_pages: sums.soft_dirty,
            uffd_wp_pages: sums.uffd_wp,
            flagged_pages: sums.flagged,
            flags: sums.flags().map(|(bit, pages)| (flag_name(bit), pages)).collect(),
            max_map_count: sums.most_mapped,
        }
    }
}

fn flag_name(bit: u32) -> String {
    page_flags::names_of(1 << bit).collect()
}

#[derive(Serialize)]
struct Slot {
    r#type: u8,
    offset: u64,
}

impl From<SwapSlot> for Slot {
    fn from(slot: SwapSlot) -> Self {
        Self {
            r#type: slot.ty,
            offset: slot.offset,
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'a> {
    Process {
        pid: u32,
        comm: &'a str,
        vmas: usize,
        mapped_pages: u64,
        ended: bool,
        changed_vmas: usize,
        unparsed_vmas: usize,
        #[serde(flatten)]
        counts: Counts,
    },
    Vma {
        pid: u32,
        comm: &'a str,
        vma: VmaKey<'a>,
        pages: u64,
        unread_pages: u64,
        #[serde(flatten)]
        counts: Counts,
    },
    Pages {
        pid: u32,
        comm: &'a str,
        vaddr: String,
        pages: u64,
        state: &'static str,
        pfn: Option<String>,
        hidden: bool,
        node: Option<u32>,
        order: Option<u8>,
        mapping: Option<&'static str>,
        map_count: Option<u64>,
        swap: Option<Slot>,
        exclusive: bool,
        file: bool,
        soft_dirty: bool,
        uffd_wp: bool,
        flags: Option<Vec<String>>,
        vma: VmaKey<'a>,
    },
    Summary {
        processes: usize,
        ended: usize,
        unreadable: usize,
        #[serde(flatten)]
        counts: Counts,
    },
}

impl<W: Write> Format for Json<W> {
    fn begin(&mut self, _: &Who) -> io::Result<()> {
        Ok(())
    }

    fn extent(&mut self, who: &Who, vma: &Arc<Vma>, extent: &Extent) -> io::Result<()> {
        if !self.each {
            return Ok(());
        }
        self.line(&Line::Pages {
            pid: who.tgid.0,
            comm: &who.comm,
            vaddr: extent.address.to_string(),
            pages: extent.pages,
            state: extent.state.name(),
            pfn: extent.pfn().map(|pfn| pfn.to_string()),
            hidden: extent.hides_frames() || extent.state.hides(),
            node: extent.node.map(|node| node.0),
            order: extent.order.map(|order| order.0),
            mapping: extent.mapping.map(Mapping::name),
            map_count: extent.mapped,
            swap: extent.slot().map(Slot::from),
            exclusive: extent.entry.exclusive(),
            file: extent.entry.file_or_shmem(),
            soft_dirty: extent.entry.soft_dirty(),
            uffd_wp: extent.entry.uffd_wp(),
            flags: extent.flags.map(|flags| page_flags::names_of(flags.bits()).collect()),
            vma: VmaKey::new(vma),
        })
    }

    fn vma(&mut self, who: &Who, vma: &Arc<Vma>, sums: &Sums, unread: u64) -> io::Result<()> {
        if !self.vmas {
            return Ok(());
        }
        self.line(&Line::Vma {
            pid: who.tgid.0,
            comm: &who.comm,
            vma: VmaKey::new(vma),
            pages: vma.pages(),
            unread_pages: unread,
            counts: Counts::new(sums),
        })
    }

    fn end(&mut self, who: &Who, walked: &Walked, sums: &Sums) -> io::Result<()> {
        self.line(&Line::Process {
            pid: who.tgid.0,
            comm: &who.comm,
            vmas: walked.vmas,
            mapped_pages: walked.mapped >> PAGE_SHIFT,
            ended: walked.ended,
            changed_vmas: walked.changed,
            unparsed_vmas: walked.skipped,
            counts: Counts::new(sums),
        })
    }

    fn finish(&mut self, counts: &ProcessCounts, sums: &Sums) -> io::Result<()> {
        self.line(&Line::Summary {
            processes: counts.whole,
            ended: counts.ended,
            unreadable: counts.unreadable,
            counts: Counts::new(sums),
        })?;
        self.out.flush()
    }
}
