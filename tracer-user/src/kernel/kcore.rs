//! The addresses of the kernel's direct map and of its array of `struct page`: both are placed at random at boot.
//! Input: the ELF headers of /proc/kcore; reading them needs CAP_SYS_RAWIO.

use std::{
    fs::File,
    io::{self, Read},
};

use tracer_common::bases::Bases;

use crate::units::{PAGE_SHIFT, PAGE_SIZE};

/// CONFIG_PROC_KCORE shows the kernel's memory here as a core dump.
const KCORE: &str = "/proc/kcore";
/// `Elf64_Ehdr` and `Elf64_Phdr` (elf(5)), bytes.
const EHDR: usize = 64;
const PHDR: usize = 56;
const PT_LOAD: u32 = 1;
/// Both bases are multiples of it (`kernel_randomize_memory`, arch/x86/mm/kaslr.c, 6.1 to 7.3).
const ALIGNMENT: u64 = 1 << 30;
/// The kernel's text and all above it (Documentation/arch/x86/x86_64/mm.rst) is outside the direct map.
const TEXT: u64 = 0xffff_ffff_8000_0000;
/// Segments that are not RAM have no physical address (`read_kcore_iter`, fs/proc/kcore.c, 6.1 to 7.3).
const NOWHERE: u64 = u64::MAX;

/// The bases of the running kernel; None if its segments are not those of x86-64 with CONFIG_SPARSEMEM_VMEMMAP.
///
/// # Errors
/// When /proc/kcore does not exist or may not be read.
pub fn read(page_struct: u64) -> io::Result<Option<Bases>> {
    let mut file = File::open(KCORE)?;
    let mut headers = vec![0; EHDR];
    file.read_exact(&mut headers)?;
    let count = u64::from(u16::from_le_bytes([headers[56], headers[57]]));
    file.take(count * PHDR as u64).read_to_end(&mut headers)?;
    Ok(parse(&headers, page_struct))
}

/// Finds the bases in the ELF header and the program headers after it; `page_struct` is the size of `struct page`,
/// bytes.
fn parse(headers: &[u8], page_struct: u64) -> Option<Bases> {
    let segments: Vec<Segment> = headers
        .get(EHDR..)?
        .chunks_exact(PHDR)
        .filter_map(Segment::parse)
        .collect();
    let ram = segments.iter().filter(|segment| segment.paddr != NOWHERE);
    let lowest = ram.filter(|ram| ram.vaddr < TEXT).min_by_key(|ram| ram.paddr)?;
    // `get_sparsemem_vmemmap_info`: each segment of RAM has a segment with its `struct page`s, in whole pages.
    let first = (lowest.paddr >> PAGE_SHIFT) * page_struct;
    let behind = ((lowest.paddr + lowest.len) >> PAGE_SHIFT) * page_struct;
    let len = behind.next_multiple_of(PAGE_SIZE) - (first & !(PAGE_SIZE - 1));
    let of_lowest = |segment: &&Segment| {
        let into = segment.vaddr % ALIGNMENT;
        segment.paddr == NOWHERE && segment.len == len && into == (first & !(PAGE_SIZE - 1)) % ALIGNMENT
    };
    let pages = segments.iter().find(of_lowest)?;
    let page_offset = lowest.vaddr.checked_sub(lowest.paddr)?;
    let vmemmap = pages.vaddr.checked_sub(first & !(PAGE_SIZE - 1))?;
    (page_offset % ALIGNMENT == 0 && vmemmap > page_offset).then_some(Bases { page_offset, vmemmap })
}

struct Segment {
    vaddr: u64,
    paddr: u64,
    len: u64,
}

impl Segment {
    fn parse(header: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let kind = u32::from_le_bytes(header.get(..4)?.try_into().ok()?);
        (kind == PT_LOAD).then_some(())?;
        Some(Self {
            vaddr: word(16)?,
            paddr: word(24)?,
            len: word(40)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASES: Bases = Bases {
        page_offset: 0xffff_9c40_0000_0000,
        vmemmap: 0xffff_eb12_4000_0000,
    };

    fn headers(segments: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; EHDR + PHDR]; // the first is a note
        for &(vaddr, paddr, len) in segments {
            let mut header = [0; PHDR];
            header[..4].copy_from_slice(&PT_LOAD.to_le_bytes());
            for (at, word) in [(16, vaddr), (24, paddr), (32, len), (40, len)] {
                header[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
            bytes.extend_from_slice(&header);
        }
        bytes
    }

    #[test]
    fn the_lowest_ram_tells_both() {
        let text = (0xffff_ffff_8b20_0000, 0x1_2b20_0000, 0x283_7000);
        let vmalloc = (0xffff_b0f1_0000_0000, NOWHERE, 0x1fff_ffff_ffff);
        let low = (BASES.page_offset + 0x1000, 0x1000, 0x9_e000);
        let low_pages = (BASES.vmemmap, NOWHERE, 0x3000);
        let high = (BASES.page_offset + 0x10_0000, 0x10_0000, 0x7fee_0000);
        let high_pages = (BASES.vmemmap + 0x4000, NOWHERE, 0x1ff_c000);
        let all = [vmalloc, text, high, high_pages, low, low_pages];
        assert_eq!(parse(&headers(&all), 64), Some(BASES));
        assert_eq!(parse(&headers(&[vmalloc, text, low]), 64), None);
        assert_eq!(parse(&headers(&[]), 64), None);
        assert_eq!(parse(&[], 64), None);
    }
}
