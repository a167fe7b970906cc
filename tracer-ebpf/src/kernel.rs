//! Reads of the running kernel's structures at offsets that user space took from its BTF.
//! Input: pointers that a hook received.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    btf_maps::LruHashMap,
    helpers::{bpf_get_current_pid_tgid, bpf_get_func_arg_cnt, bpf_ktime_get_ns, bpf_probe_read_kernel, generated},
    macros::btf_map,
};
use tracer_common::{arch, config::Config};

use crate::filter;

/// Overridden by user space before loading, then frozen.
#[unsafe(no_mangle)]
pub static CONFIG: Config = Config::UNSET;

/// A field of [`CONFIG`]; volatile, or the compiler would fold the zeros of the object in.
macro_rules! config {
    ($field:ident) => {
        // SAFETY: a valid static.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::CONFIG.$field) }
    };
}
pub(crate) use config;

/// Who owned an address space last.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LastOwner {
    tgid: u32,
    /// [`Owner::fulfilled`].
    fulfilled: u32,
}

/// The last owner of an mm whose owner is exiting: the kernel clears `mm->owner` before it tears
/// the mm down, and pages may move in between. Key: `struct mm_struct *`.
#[btf_map]
static LAST_OWNER: LruHashMap<u64, LastOwner, 4096> = LruHashMap::new();

/// The owner of an address space.
#[derive(Clone, Copy)]
pub struct Owner {
    /// 0: not known.
    pub tgid: u32,
    pub exiting: bool,
    /// What it fulfilled when it left, bits of `membership`: by now another process may have its number, or it runs
    /// another program. 0 of one that has not left.
    pub fulfilled: u32,
}

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

/// Reads a `T` at `base + offset`; zero where the kernel refuses.
#[inline(always)]
pub fn read<T: Default>(base: u64, offset: u32) -> T {
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.unwrap_or_default()
}

/// As [`read`], a word and without a branch, of which the verifier would follow both ways: the helper fills what it cannot
/// read with zeros (`bpf_probe_read_kernel_common`, 6.1 to 7.3).
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

/// `mm->owner->tgid`, or who owned it last.
#[inline(always)]
pub fn mm_owner(mm: u64) -> Owner {
    let task: u64 = read(mm, config!(mm_owner));
    if task != 0 {
        // Between copy_signal and the assignment of its own tgid (kernel/fork.c, copy_process), a task
        // that is being forked still bears its parent's: it has no number to be reported by.
        let leader: u64 = read(task, config!(task_group_leader));
        let signal: u64 = read(task, config!(task_signal));
        let own = leader == task || read::<u64>(leader, config!(task_signal)) == signal;
        return Owner {
            tgid: if own { read(task, config!(task_tgid)) } else { 0 },
            exiting: false,
            fulfilled: 0,
        };
    }
    // SAFETY: a value of the map, read once.
    let last = LAST_OWNER
        .get_ptr(mm)
        .map_or(LastOwner::default(), |last| unsafe { *last });
    Owner {
        tgid: last.tgid,
        exiting: true,
        fulfilled: last.fulfilled,
    }
}

/// Remembers the current process as the last owner of `mm`.
#[inline(always)]
pub fn remember_owner(mm: u64) {
    let tgid = current().0;
    let fulfilled = filter::fulfils(tgid);
    let _ = LAST_OWNER.insert(mm, LastOwner { tgid, fulfilled }, 0);
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

/// Frame of a `struct folio` or a `struct page`; 0 where it is not known where they lie.
#[inline(always)]
pub fn folio_pfn(folio: u64) -> u64 {
    let base = config!(vmemmap_base);
    if base == 0 || folio < base {
        return 0;
    }
    (folio - base) >> (config!(page_struct_shift) & 63)
}

/// The `struct page` of a frame; 0 where it is not known where they lie.
#[inline(always)]
pub fn page_of(pfn: u64) -> u64 {
    match config!(vmemmap_base) {
        0 => 0,
        base => base + (pfn << (config!(page_struct_shift) & 63)),
    }
}

/// `PAGE_MAPPING_KSM`, since 6.16 `FOLIO_MAPPING_KSM` (include/linux/page-flags.h): both low bits of `mapping`.
const MAPPING_KSM: u64 = 3;

/// Whether a frame holds a page that KSM shares: never one inside a large folio.
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

/// Whether a super block is of hugetlbfs.
#[inline(always)]
pub fn is_hugetlbfs(sb: u64) -> bool {
    /// include/uapi/linux/magic.h.
    const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
    read::<u64>(sb, config!(sb_magic)) == HUGETLBFS_MAGIC
}

/// The folio of a page.
#[inline(always)]
pub fn head_of(page: u64) -> u64 {
    let head: u64 = read(page, config!(page_head));
    if head & 1 == 0 { page } else { head - 1 }
}

/// The index of the page at a VMA's begin. Since 7.3 anonymous pages have an offset of their own, which differs in a private
/// mapping of a file (`vma_start_anon_pgoff`, include/linux/mm.h).
#[inline(always)]
pub fn first_index(vma: u64, anon: bool) -> u64 {
    if anon && config!(vma_anon_pgoff_lo) != 0 {
        let half = |offset| peek(vma, offset) & u64::from(u32::MAX);
        half(config!(vma_anon_pgoff_lo)) | half(config!(vma_anon_pgoff_hi)) << 32
    } else {
        peek(vma, config!(vma_pgoff))
    }
}

/// Where an anonymous page that is not of KSM lies in a VMA, by its index (`linear_page_index`,
/// include/linux/pagemap.h). `index`: of the page, in base pages.
#[inline(always)]
pub fn address_in(vma: u64, index: u64) -> u64 {
    let start: u64 = read(vma, config!(vma_start));
    start + (index.wrapping_sub(first_index(vma, true)) << 12)
}

/// The PMD entry of an address; 0: no such page table. Nothing keeps the tables from changing meanwhile but the
/// kernel code that called.
#[inline(always)]
pub fn pmd_entry(mm: u64, address: u64) -> u64 {
    let base = config!(page_offset_base);
    if base == 0 {
        return 0;
    }
    let mut table: u64 = read(mm, config!(mm_pgd));
    if arch::five_levels(base) {
        table = table_below(table, address >> 48);
    }
    table = table_below(table, address >> 39);
    table = table_below(table, address >> 30);
    if table == 0 {
        return 0;
    }
    read(table + ((address >> 21 & 511) << 3), 0)
}

/// Whether the address is mapped to this frame, by a PTE or a PMD. Unlocked and without a branch on the way: where a table
/// is missing, what is read in its place is not the frame but for a strange chance.
#[inline(always)]
pub fn maps(mm: u64, address: u64, pfn: u64) -> bool {
    let base = config!(page_offset_base);
    let below = |table: u64, shift: u32| peek(table + ((address >> shift & 511) << 3), 0);
    let table = |entry: u64| base + (arch::table_pfn(entry, config!(pfn_bits)) << 12);
    let mut top = peek(mm, config!(mm_pgd));
    if arch::five_levels(base) {
        top = table(below(top, 48));
    }
    let pmd = below(table(below(table(below(top, 39)), 30)), 21);
    if arch::maps_huge(pmd) {
        arch::present_pfn(pmd, arch::PMD_ORDER, config!(pfn_bits)) + (address >> 12 & 511) == pfn
    } else {
        arch::page_pfn(below(table(pmd), 12), config!(pfn_bits)) == pfn
    }
}

/// The table that an entry of a table points to; 0 for none.
#[inline(always)]
fn table_below(table: u64, index: u64) -> u64 {
    if table == 0 {
        return 0;
    }
    table_of(read(table + ((index & 511) << 3), 0))
}

/// Kernel address of the table that an entry points to; 0 where it points to none.
#[inline(always)]
pub fn table_of(entry: u64) -> u64 {
    if !arch::present(entry) || arch::maps_huge(entry) {
        return 0;
    }
    config!(page_offset_base) + (arch::present_pfn(entry, 0, config!(pfn_bits)) << 12)
}

/// How many arguments the hooked function has.
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
/// Read with a helper: a direct load would give the verifier a typed pointer, on which it allows
/// little arithmetic.
#[inline(always)]
pub fn arg(ctx: &impl aya_ebpf::EbpfContext, n: u32) -> u64 {
    read(ctx.as_ptr() as u64, n * 8)
}
