//! Reads of the running kernel's structures at offsets that user space took from its BTF.
//! Input: pointers that a hook received.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_func_arg_cnt, bpf_ktime_get_ns, bpf_probe_read_kernel, generated,
};
use tracer_common::{arch, config::Config, names::COMM_LEN};

/// User space overrides it before loading; then it is frozen.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::UNSET;

/// A field of [`CONFIG`]. The read is volatile: otherwise the compiler would use the zeros of the object.
macro_rules! config {
    ($field:ident) => {
        // SAFETY: a valid static.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::CONFIG.$field) }
    };
}
pub(crate) use config;

/// `bpf_ktime_get_ns`: `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// (tgid, tid) of the current task.
#[inline(always)]
pub fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// The current task's name, NUL-padded.
#[inline(always)]
pub fn comm() -> [u8; COMM_LEN] {
    let mut comm = MaybeUninit::<[u8; COMM_LEN]>::uninit();
    // SAFETY: the helper writes every byte, and fills with zeros where it fails (`bpf_get_current_comm`,
    // kernel/bpf/helpers.c, 6.1 to 7.3).
    unsafe {
        generated::bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_LEN as u32);
        comm.assume_init()
    }
}

/// Reads a `T` at `base + offset`; zero where the kernel refuses.
#[inline(always)]
pub fn read<T: Default>(base: u64, offset: u32) -> T {
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.unwrap_or_default()
}

/// Reads a word as [`read`] does, but without a branch, of which the verifier would follow both ways: the helper fills
/// a word that it cannot read with zeros (`bpf_probe_read_kernel_common`, 6.1 to 7.3).
#[inline(always)]
pub fn peek(base: u64, offset: u32) -> u64 {
    let mut word = MaybeUninit::<u64>::uninit();
    let at = (base + u64::from(offset)) as *const c_void;
    // SAFETY: the helper checks the address, and writes every byte of the word.
    unsafe {
        generated::bpf_probe_read_kernel(word.as_mut_ptr().cast(), size_of::<u64>() as u32, at);
        word.assume_init()
    }
}

/// `vma->vm_mm`.
#[inline(always)]
pub fn vma_mm(vma: u64) -> u64 {
    read(vma, config!(vma_mm))
}

/// Order of a folio: 0 unless `PG_head` is set.
#[inline(always)]
pub fn folio_order(folio: u64) -> u8 {
    let flags: u64 = read(folio, config!(folio_flags));
    if flags >> (config!(pg_head) & 63) & 1 == 0 {
        return 0;
    }
    read(folio, config!(folio_order))
}

/// Frame of a `struct folio` or a `struct page`; 0 where the address of the memory map is not known.
#[inline(always)]
pub fn folio_pfn(folio: u64) -> u64 {
    let base = config!(vmemmap_base);
    if base == 0 || folio < base {
        return 0;
    }
    (folio - base) >> (config!(page_struct_shift) & 63)
}

/// The `struct page` of a frame; 0 where the address of the memory map is not known.
#[inline(always)]
pub fn page_of(pfn: u64) -> u64 {
    match config!(vmemmap_base) {
        0 => 0,
        base => base + (pfn << (config!(page_struct_shift) & 63)),
    }
}

/// `PAGE_MAPPING_KSM`, since 6.16 `FOLIO_MAPPING_KSM` (include/linux/page-flags.h): both low bits of `mapping`.
const MAPPING_KSM: u64 = 3;

/// Whether a frame holds a page that KSM shares. Such a page is never inside a large folio.
#[inline(always)]
pub fn is_ksm(pfn: u64) -> bool {
    let page = page_of(pfn);
    let head: u64 = read(page, config!(page_head));
    let mapping: u64 = read(page, config!(folio_mapping));
    head & 1 == 0 && mapping & MAPPING_KSM == MAPPING_KSM
}

/// Whether a folio is anonymous, has a place on swap, and is not one that is dropped instead (MADV_FREE).
#[inline(always)]
pub fn is_swapped_anon(folio: u64) -> bool {
    /// `PAGE_MAPPING_ANON`, since 6.16 `FOLIO_MAPPING_ANON` (include/linux/page-flags.h).
    const MAPPING_ANON: u64 = 1;
    let flags: u64 = read(folio, config!(folio_flags));
    let mapping: u64 = read(folio, config!(folio_mapping));
    mapping & MAPPING_ANON != 0
        && flags >> (config!(pg_swapbacked) & 63) & 1 != 0
        && flags >> (config!(pg_swapcache) & 63) & 1 != 0
}

/// Whether a super block belongs to hugetlbfs.
#[inline(always)]
pub fn is_hugetlbfs(sb: u64) -> bool {
    /// include/uapi/linux/magic.h.
    const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
    read::<u64>(sb, config!(sb_magic)) == HUGETLBFS_MAGIC
}

/// The folio of a page.
#[inline(always)]
pub fn head_of(page: u64) -> u64 {
    /// The highest addresses, where no `struct page` is.
    const MASKS: u64 = u64::MAX << 32;
    let head = peek(page, config!(page_head));
    if head & 1 == 0 {
        page
    } else if head >= MASKS {
        // A mask that leads to the head (`compound_info_has_mask`, include/linux/page-flags.h, since 7.1).
        page & head
    } else {
        head - 1
    }
}

/// The index of the page at a VMA's start. Since 7.3 anonymous pages have an offset of their own, which differs in a
/// private mapping of a file (`vma_start_anon_pgoff`, include/linux/mm.h).
#[inline(always)]
pub fn first_index(vma: u64, anon: bool) -> u64 {
    if anon && config!(vma_anon_pgoff_lo) != 0 {
        let half = |offset| peek(vma, offset) & u64::from(u32::MAX);
        half(config!(vma_anon_pgoff_lo)) | half(config!(vma_anon_pgoff_hi)) << 32
    } else {
        peek(vma, config!(vma_pgoff))
    }
}

/// The address of an anonymous page in a VMA, by its index (`linear_page_index`, include/linux/pagemap.h); not for KSM
/// pages. `index`: of the page, in base pages.
#[inline(always)]
pub fn address_in(vma: u64, index: u64) -> u64 {
    let start: u64 = read(vma, config!(vma_start));
    start + arch::bytes(index.wrapping_sub(first_index(vma, true)))
}

/// The number of arguments of the hooked function.
#[inline(always)]
pub fn arg_count(ctx: &impl aya_ebpf::EbpfContext) -> i64 {
    // SAFETY: the context of a fentry or fexit program.
    unsafe { bpf_get_func_arg_cnt(ctx.as_ptr()) }
}

/// The source folio from `remove_migration_pte`'s last argument.
#[inline(always)]
pub fn migration_source(arg: u64) -> u64 {
    if config!(remove_arg_is_walk) != 0 {
        read(arg, config!(walk_folio))
    } else {
        arg
    }
}

/// Argument `n` of a hook's context as a plain number.
///
/// It is read with a helper: a direct load would give the verifier a typed pointer, on which it allows little
/// arithmetic.
#[inline(always)]
pub fn arg(ctx: &impl aya_ebpf::EbpfContext, n: u32) -> u64 {
    read(ctx.as_ptr() as u64, n * 8)
}
