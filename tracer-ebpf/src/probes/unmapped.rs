//! Folios that move without a mapping: page cache that nobody maps. Exact backend, where every process is traced.
//! Input: the folio in hand when its turn is over, from `state`.

use aya_ebpf::{btf_maps::LruHashMap, helpers::bpf_get_smp_processor_id, macros::btf_map};
use tracer_common::{
    event::UnmappedMoved,
    task::{Call, File, Folio},
};

use crate::{
    emit, filter,
    kernel::{self, config},
};

/// `PAGE_MAPPING_FLAGS`, include/linux/page-flags.h: at least one is set in the mapping of a folio that belongs to no
/// file (anonymous, KSM, or movable by a driver).
const NO_FILE: u64 = 3;

#[repr(C)]
#[derive(Clone, Copy)]
struct FileKey {
    ino: u64,
    dev: u32,
    pad: u32,
}

/// Identifies a name: an inode number may be used again, and a renamed file keeps its dentry.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
struct Name {
    alias: u64,
    /// `d_name.hash_len`: the hash of the name and the directory (`hash_name`, fs/namei.c).
    hash: u64,
}

/// Files whose names were sent.
#[btf_map]
static NAMED: LruHashMap<FileKey, Name, 4096> = LruHashMap::new();

/// The file of a folio that is locked and has moved. Only page cache is examined, and only if it will be reported.
#[inline(always)]
pub fn file_of(folio: u64) -> File {
    if !filter::wants_unowned() {
        return File::NONE;
    }
    let mapping: u64 = kernel::read(folio, config!(folio_mapping));
    if mapping == 0 || mapping & NO_FILE != 0 {
        return File::NONE;
    }
    File {
        inode: kernel::read(mapping, config!(mapping_host)),
        index: kernel::read(folio, config!(folio_index)),
    }
}

/// Counts the folio in hand of a call, which is finished, and reports it if none of its mappings was restored.
#[inline(always)]
pub fn finish_folio(call: &mut Call) {
    if let Some(folio) = call.finish_folio()
        && !report(&folio, call.reason)
    {
        call.unmapped_filtered += folio.pages;
    }
}

/// Reports a folio without a restored mapping; false: it is filtered out. It is not inlined: several programs end with
/// it, and its events would not fit on their stacks beside theirs.
#[inline(never)]
fn report(folio: &Folio, reason: u8) -> bool {
    let (old_pfn, new_pfn) = (kernel::folio_pfn(folio.src), kernel::folio_pfn(folio.dst));
    if !filter::wants_unowned() || !filter::wants_order(folio.order) || !filter::wants_frames(old_pfn, new_pfn) {
        return false;
    }
    let (actor_tgid, actor_tid) = kernel::current();
    let mut event = UnmappedMoved {
        reason,
        order: folio.order,
        at: kernel::now(),
        old_pfn,
        new_pfn,
        index: folio.file.index,
        actor_tgid,
        actor_tid,
        // SAFETY: the helper has no preconditions.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        ..UnmappedMoved::default()
    };
    let inode = folio.file.inode;
    if inode != 0 {
        event.of_file = 1;
        event.ino = kernel::read(inode, config!(inode_ino));
        let sb = kernel::read(inode, config!(inode_sb));
        event.dev = kernel::read(sb, config!(sb_dev));
        if config!(huge_index) != 0 && kernel::is_hugetlbfs(sb) {
            event.index <<= folio.order & 31;
        }
        name(inode, event.dev, event.ino);
    }
    emit::unmapped(event);
    true
}

/// Sends the file's name if it is new or has changed.
#[inline(always)]
fn name(inode: u64, dev: u32, ino: u64) {
    let alias: u64 = kernel::read(inode, config!(inode_dentry));
    if alias == 0 {
        return; // deleted, or known by handle only
    }
    let dentry = alias.wrapping_sub(u64::from(config!(dentry_alias)));
    let key = FileKey { ino, dev, pad: 0 };
    let name = Name {
        alias,
        hash: kernel::read(dentry, config!(dentry_hash)),
    };
    // SAFETY: a value of the map; a value torn by another CPU differs, and the name is sent once more.
    if NAMED.get_ptr(key).is_some_and(|known| unsafe { *known } == name) {
        return;
    }
    if emit::file(dev, ino, kernel::read(dentry, config!(dentry_name))) {
        let _ = NAMED.insert(key, name, 0);
    }
}
