//! The only place that reserves room in the rings, and counts the events that find none.
//! Input: filled wire events from every probe.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    btf_maps::{Array, RingBuf},
    helpers::{bpf_get_smp_processor_id, bpf_probe_read_kernel_str_bytes},
    macros::btf_map,
};
use tracer_common::{
    counter::Counter,
    event::{
        CompactionRan, FILE_NAME, FileSeen, FolioFailed, MappingMoved, ProcessSeen, UnmappedMoved, Wire, failure_flags,
    },
};

use crate::{counters, filter};

/// Sizes of the rings; user space sets others before loading.
const RING_BYTES: usize = 1 << 24;
const PROCESSES_BYTES: usize = 1 << 22;

#[btf_map]
static RING: RingBuf<u64, RING_BYTES> = RingBuf::new();

/// Events about processes: any user can cause as many as he likes, and moves keep their room nevertheless.
#[btf_map]
static PROCESSES: RingBuf<u64, PROCESSES_BYTES> = RingBuf::new();

/// 1 while the reader sleeps until it is woken; else it reads by timer.
#[btf_map]
static READER_SLEEPS: Array<u32, 1> = Array::new();

/// Sends an extent of mappings, or counts it as lost.
#[inline(always)]
pub fn mapping(mut event: MappingMoved) {
    // SAFETY: the helper has no preconditions.
    event.cpu = unsafe { bpf_get_smp_processor_id() } as u16;
    if !send(&RING, event) {
        counters::add(Counter::LostMappings, 1);
        counters::add(Counter::LostMappingPages, u64::from(event.pages));
    }
}

/// Sends an extent that moved outside migrate_pages, whose owner is wanted, if the other filters let it through.
#[inline(always)]
pub fn outside(event: MappingMoved) {
    if filter::wants_outside(&event) {
        mapping(event);
    } else {
        counters::add(Counter::FilteredOutsidePages, u64::from(event.pages));
    }
}

/// Sends what happened to a process, or counts it as lost.
#[inline(always)]
pub fn process(event: ProcessSeen) {
    if !send(&PROCESSES, event) {
        counters::add(Counter::LostProcesses, 1);
    }
}

/// Sends a folio that moved without a mapping, or counts it as lost.
#[inline(always)]
pub fn unmapped(event: UnmappedMoved) {
    if !send(&RING, event) {
        counters::add(Counter::LostFolios, 1);
        counters::add(Counter::LostFolioPages, 1 << (event.order & 31));
    }
}

/// Sends a file's name, which is a string at that address. Returns false, and counts nothing, if there is no room or no
/// such string: the name is sent with the next folio. It is read into the ring, because it is too long for the stack.
#[inline(always)]
pub fn file(dev: u32, ino: u64, name: u64) -> bool {
    let Some(mut entry) = RING.reserve_untyped::<FileSeen>(0) else {
        return false;
    };
    let event = entry.write(FileSeen {
        kind: FileSeen::KIND as u16,
        pad: 0,
        dev,
        ino,
        name: [0; FILE_NAME],
    });
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    if unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut event.name) }.is_err() {
        entry.discard(u64::from(BPF_RB_NO_WAKEUP));
        return false;
    }
    entry.submit(wake_up());
    true
}

/// Sends a failure, or counts it as lost.
#[inline(always)]
pub fn failure(event: FolioFailed) {
    let sent = send(&RING, event);
    if !sent {
        counters::add(Counter::LostFailures, 1);
    }
    // A folio that NUMA balancing refuses was on no call's list.
    if event.seen & failure_flags::NUMA_REFUSED == 0 {
        let counter = if sent {
            Counter::ReportedFailedPages
        } else {
            Counter::LostFailedPages
        };
        counters::add(counter, 1 << (event.order & 31));
    }
}

/// Sends a run of compaction, or counts it as lost.
#[inline(always)]
pub fn compaction(event: CompactionRan) {
    if !send(&RING, event) {
        counters::add(Counter::LostCompactions, 1);
    }
}

#[inline(always)]
fn send<T: Wire, const BYTES: usize>(ring: &RingBuf<u64, BYTES>, event: T) -> bool {
    let Some(mut entry) = ring.reserve_untyped::<T>(0) else {
        return false;
    };
    entry.write(event);
    // SAFETY: `Wire` promises that the value, which is all written by now, begins with its kind.
    unsafe { entry.as_mut_ptr().cast::<u16>().write(T::KIND as u16) };
    entry.submit(wake_up());
    true
}

/// The first event wakes a sleeping reader, which then reads by timer while there are events: a wake-up for each event
/// would cost more than a page move.
#[inline(always)]
fn wake_up() -> u64 {
    let Some(sleeps) = READER_SLEEPS.get_ptr_mut(0) else {
        return u64::from(BPF_RB_NO_WAKEUP);
    };
    // SAFETY: a live u32 of the map. Two CPUs may both see it set: then both wake the reader.
    unsafe {
        if sleeps.read_volatile() == 0 {
            return u64::from(BPF_RB_NO_WAKEUP);
        }
        sleeps.write_volatile(0);
    }
    u64::from(BPF_RB_FORCE_WAKEUP)
}
